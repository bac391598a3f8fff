package faults

import (
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// proxy stands between peers and a broker, and can do to their connections what
// networks do.
type proxy struct {
	url string
	ln  net.Listener
	to  string
	wg  sync.WaitGroup

	mu      sync.Mutex
	changed *sync.Cond
	conns   map[net.Conn]struct{}
	stalled bool // nothing passes, and nobody is told
	refuse  bool // connections are closed as they come
	slow    bool // a few bytes at a time
	closed  bool
}

func newProxy(t testing.TB, url string) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p := &proxy{
		ln: ln, url: "ws://" + ln.Addr().String() + wire.PathWS, conns: map[net.Conn]struct{}{},
		to: strings.TrimSuffix(strings.TrimPrefix(url, "ws://"), wire.PathWS),
	}
	p.changed = sync.NewCond(&p.mu)
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		p.set(func() { p.closed = true })
		_ = ln.Close()
		p.cut()
		p.wg.Wait()
	})
	return p
}

// set changes what happens from now on.
func (p *proxy) set(fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fn()
	p.changed.Broadcast()
}

// cut closes every connection; what was on its way is gone.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
	p.changed.Broadcast()
}

func (p *proxy) accept() {
	for {
		down, err := p.ln.Accept()
		if err != nil {
			return
		}
		up, err := net.Dial("tcp", p.to)
		p.mu.Lock()
		if err != nil || p.refuse || p.closed {
			p.mu.Unlock()
			_ = down.Close()
			if up != nil {
				_ = up.Close()
			}
			continue
		}
		p.conns[down], p.conns[up] = struct{}{}, struct{}{}
		p.mu.Unlock()
		p.wg.Go(func() { p.pipe(down, up) })
		p.wg.Go(func() { p.pipe(up, down) })
	}
}

func (p *proxy) pipe(from, to net.Conn) {
	defer func() {
		_, _ = from.Close(), to.Close()
		p.mu.Lock()
		delete(p.conns, from)
		p.mu.Unlock()
	}()
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		for rest := buf[:n]; len(rest) > 0; {
			part, ok := p.pass(len(rest))
			if !ok {
				return
			}
			if _, err := to.Write(rest[:part]); err != nil {
				return
			}
			rest = rest[part:]
		}
		if err != nil {
			return
		}
	}
}

// pass waits until bytes may go on, and says how many. ok is false when the
// proxy ends.
func (p *proxy) pass(n int) (part int, ok bool) {
	p.mu.Lock()
	for p.stalled && !p.closed {
		p.changed.Wait()
	}
	slow, closed := p.slow, p.closed
	p.mu.Unlock()
	if slow {
		time.Sleep(2 * time.Millisecond)
		n = min(n, 40)
	}
	return n, !closed
}
