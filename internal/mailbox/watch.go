package mailbox

import (
	"context"
	"database/sql"
	"sync"
	"sync/atomic"
	"time"

	"github.com/claudemesh/claudemesh/internal/prepared"
)

// pollEvery is how often other processes' commits are looked for, pollClosely
// how often for those who watch closely.
const (
	pollEvery   = 150 * time.Millisecond
	pollClosely = 25 * time.Millisecond
)

// hub spreads hints over the watchers of this process.
type hub struct {
	mu       sync.Mutex
	watchers map[chan struct{}]struct{}
}

// add returns a channel that is hinted at until ctx ends. It is never closed: a
// reader in a select would spin on it.
func (h *hub) add(ctx context.Context) chan struct{} {
	ch := make(chan struct{}, 1) // one pending hint says all there is to say
	h.mu.Lock()
	if h.watchers == nil {
		h.watchers = make(map[chan struct{}]struct{})
	}
	h.watchers[ch] = struct{}{}
	h.mu.Unlock()
	context.AfterFunc(ctx, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.watchers, ch)
	})
	return ch
}

func (h *hub) notify() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for ch := range h.watchers {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

func (h *hub) idle() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.watchers) == 0
}

// poller hints at commits of other connections: those of other processes, and
// once more those of this one. It rests while nobody watches.
type poller struct {
	conn   *prepared.Conn
	hub    *hub
	last   int64        // data_version when it last looked
	close  atomic.Int32 // how many watch closely
	woken  chan struct{}
	cancel context.CancelFunc
	done   chan struct{}
}

// newPoller takes a connection of its own: data_version is relative to the
// connection that asks. The version is read at once, so that the first look
// after a rest sees what was committed during it.
func newPoller(ctx context.Context, db *sql.DB, h *hub) (*poller, error) {
	conn, err := prepared.Open(ctx, db)
	if err != nil {
		return nil, err
	}
	p := &poller{conn: conn, hub: h, woken: make(chan struct{}, 1), done: make(chan struct{})}
	if p.last, err = p.version(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	run, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	go p.run(run)
	return p, nil
}

func (p *poller) version(ctx context.Context) (v int64, err error) {
	err = p.conn.Row(ctx, "PRAGMA data_version", nil, &v)
	return v, err
}

// wake ends a rest.
func (p *poller) wake() {
	select {
	case p.woken <- struct{}{}:
	default:
	}
}

func (p *poller) every() time.Duration {
	if p.close.Load() > 0 {
		return pollClosely
	}
	return pollEvery
}

// stop ends the goroutine, waits for it and closes the connection.
func (p *poller) stop() error {
	p.cancel()
	<-p.done
	return p.conn.Close()
}

func (p *poller) run(ctx context.Context) {
	defer close(p.done)
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		if p.hub.idle() {
			select {
			case <-ctx.Done():
				return
			case <-p.woken:
			}
		}
		tick.Reset(p.every())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		v, err := p.version(ctx)
		// A look that failed may have missed something: hints may be too many,
		// never too few.
		if err != nil || v != p.last {
			p.last = v
			p.hub.notify()
		}
	}
}
