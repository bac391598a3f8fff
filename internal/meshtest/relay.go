package meshtest

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"

	"github.com/coder/websocket"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// Relay stands between peers and a world's broker, sees every frame and may
// change it: a hostile broker, or a relaying interceptor.
type Relay struct {
	URL string // ws:// URL to dial instead of the broker's

	mu   sync.Mutex
	log  []byte
	hook func(toClient bool, f wire.Frame) []wire.Frame
}

// Relay starts one before the broker.
func (w *World) Relay() *Relay {
	r, broker := &Relay{}, w.URL // which stays over restarts
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		wg.Add(1)
		defer wg.Done()
		r.serve(ctx, rw, req, broker)
	}))
	w.T.Cleanup(func() { cancel(); wg.Wait(); srv.Close() })
	r.URL = "ws" + strings.TrimPrefix(srv.URL, "http") + "/ws"
	return r
}

// Hook sets what happens to each frame: it returns what goes on instead.
func (r *Relay) Hook(fn func(toClient bool, f wire.Frame) []wire.Frame) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hook = fn
}

// Seen returns every byte of every frame that passed, before the hook.
func (r *Relay) Seen() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]byte(nil), r.log...)
}

func (r *Relay) serve(ctx context.Context, rw http.ResponseWriter, req *http.Request, broker string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	down, err := websocket.Accept(rw, req, nil)
	if err != nil {
		return
	}
	defer func() { _ = down.CloseNow() }()
	up, _, err := websocket.Dial(ctx, broker, nil)
	if err != nil {
		return
	}
	defer func() { _ = up.CloseNow() }()
	var wg sync.WaitGroup
	wg.Go(func() { r.pipe(ctx, up, down, true); cancel() })
	wg.Go(func() { r.pipe(ctx, down, up, false); cancel() })
	wg.Wait()
}

func (r *Relay) pipe(ctx context.Context, from, to *websocket.Conn, toClient bool) {
	from.SetReadLimit(1 << 20)
	for {
		_, msg, err := from.Read(ctx)
		if err != nil {
			return
		}
		r.mu.Lock()
		r.log = append(r.log, msg...)
		hook := r.hook
		r.mu.Unlock()
		frames, err := wire.Frames(nil, msg)
		if err != nil {
			return
		}
		for _, in := range frames {
			out := [][]byte{in.Raw}
			if in.Err == nil && hook != nil {
				out = nil
				for _, g := range hook(toClient, in.Frame) {
					b, err := wire.Append(nil, g)
					if err != nil {
						return
					}
					out = append(out, b)
				}
			}
			for _, b := range out {
				if to.Write(ctx, websocket.MessageText, b) != nil {
					return
				}
			}
		}
	}
}
