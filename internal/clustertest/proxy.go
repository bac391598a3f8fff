package clustertest

import (
	"net"
	"sync"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// Proxy stands before one server or several, and can do to connections what
// networks do. Several take turns, without looking who comes; one that refuses
// is passed over.
type Proxy struct {
	URL  string // of a broker's socket
	Addr string // host:port
	ln   net.Listener
	to   []string
	next int // of to
	wg   sync.WaitGroup

	mu      sync.Mutex
	changed *sync.Cond
	conns   map[net.Conn]bool // true: nothing passes any more
	Stalled bool              // nothing passes, and nobody is told
	Refuse  bool              // connections are closed as they come
	Slow    bool              // a few bytes at a time
	closed  bool
}

// NewProxy starts one before servers, given as host:port or by a broker's URL.
func NewProxy(t testing.TB, servers ...string) *Proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	Must(t, err)
	addr := ln.Addr().String()
	p := &Proxy{ln: ln, Addr: addr, URL: "ws://" + addr + wire.PathWS, conns: map[net.Conn]bool{}}
	for _, s := range servers {
		p.to = append(p.to, host(s))
	}
	p.changed = sync.NewCond(&p.mu)
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		p.Set(func() { p.closed = true })
		_ = ln.Close()
		p.Cut()
		p.wg.Wait()
	})
	return p
}

// Set changes what happens from now on.
func (p *Proxy) Set(fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fn()
	p.changed.Broadcast()
}

// Cut closes every connection; what was on its way is gone.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
	p.changed.Broadcast()
}

// Freeze lets nothing pass on the connections there are, for ever, and tells nobody.
func (p *Proxy) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		p.conns[c] = true
	}
}

func (p *Proxy) accept() {
	for {
		down, err := p.ln.Accept()
		if err != nil {
			return
		}
		up, err := p.dial()
		p.mu.Lock()
		if err != nil || p.Refuse || p.closed {
			p.mu.Unlock()
			_ = down.Close()
			if up != nil {
				_ = up.Close()
			}
			continue
		}
		p.conns[down], p.conns[up] = false, false
		p.mu.Unlock()
		p.wg.Go(func() { p.pipe(down, up) })
		p.wg.Go(func() { p.pipe(up, down) })
	}
}

// dial connects to the server whose turn it is, or to the next that takes it.
func (p *Proxy) dial() (c net.Conn, err error) {
	for range p.to {
		p.next = (p.next + 1) % len(p.to)
		if c, err = net.DialTimeout("tcp", p.to[p.next], 5*time.Second); err == nil {
			return c, nil
		}
	}
	return nil, err
}

func (p *Proxy) pipe(from, to net.Conn) {
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
			part, ok := p.pass(from, to, len(rest))
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
func (p *Proxy) pass(from, to net.Conn, n int) (part int, ok bool) {
	p.mu.Lock()
	for (p.Stalled || p.conns[from] || p.conns[to]) && !p.closed {
		p.changed.Wait()
	}
	slow, closed := p.Slow, p.closed
	p.mu.Unlock()
	if slow {
		time.Sleep(2 * time.Millisecond)
		n = min(n, 40)
	}
	return n, !closed
}
