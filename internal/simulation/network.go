// Package simulation runs a broker and its peers, all real, on a fake network
// and a fake clock, and breaks both by a plan that a seed makes. Minutes of
// back-off and keep-alive pass in milliseconds, so that thousands of plans can be tried.
package simulation

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Direction is where bytes go.
type Direction int

// The directions.
const (
	ToBroker Direction = iota
	ToPeer
)

// Network joins peers, who dial, with one broker, which listens. It is to be
// made and used in one synctest bubble.
type Network struct {
	mu       sync.Mutex
	listener *listener // nil: nobody listens
	links    map[int]*Link
	ports    int

	dials  sync.WaitGroup
	closed chan struct{}
}

// NewNetwork returns one without faults.
func NewNetwork() *Network { return &Network{links: map[int]*Link{}, closed: make(chan struct{})} }

// Close ends what is still dialling: an HTTP transport goes on with it when nobody
// wants the connection any more.
func (n *Network) Close() {
	close(n.closed)
	n.dials.Wait()
}

// Listen makes the address of the broker answer.
func (n *Network) Listen() net.Listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listener = &listener{n: n, accepted: make(chan net.Conn, 64), closed: make(chan struct{})}
	return n.listener
}

// Link returns the way between peer i and the broker.
func (n *Network) Link(i int) *Link {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.links[i]
	if l == nil {
		l = &Link{n: n, number: i}
		n.links[i] = l
	}
	return l
}

// CutAll breaks every connection at once.
func (n *Network) CutAll(keep bool) {
	n.mu.Lock()
	links := make([]*Link, 0, len(n.links))
	for _, l := range n.links {
		links = append(links, l)
	}
	n.mu.Unlock()
	for _, l := range links {
		l.Cut(keep, keep)
	}
}

// Link is the way between one peer and the broker, and what is wrong with it.
type Link struct {
	n      *Network
	number int

	mu       sync.Mutex // guards the following
	conns    []*pair
	delay    [2]time.Duration
	stalled  time.Time
	refuse   bool
	repeated int // by connections that are over
}

// pair is one connection: a pipe each way.
type pair struct{ pipes [2]*pipe }

// Client returns an HTTP client whose every request takes this link.
func (l *Link) Client() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: l.dial, DisableKeepAlives: true}}
}

func (l *Link) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	l.n.dials.Add(1)
	defer l.n.dials.Done()
	l.n.mu.Lock()
	ln := l.n.listener
	l.n.ports++
	from := &net.TCPAddr{IP: net.IPv4(10, 0, 0, byte(l.number+1)), Port: 1024 + l.n.ports}
	l.n.mu.Unlock()
	l.mu.Lock()
	refuse, delay, stalled := l.refuse || ln == nil, l.delay, l.stalled
	p := &pair{}
	p.pipes[ToBroker], p.pipes[ToPeer] = newPipe(delay[ToBroker], stalled, 1), newPipe(delay[ToPeer], stalled, 2)
	for _, d := range p.pipes {
		d.cut = func() { l.Cut(true, false) }
	}
	if !refuse {
		l.conns = append(l.conns, p)
	}
	l.mu.Unlock()
	if wait := max(delay[ToBroker]+delay[ToPeer], time.Until(stalled)); wait > 0 {
		select { // the handshake of TCP
		case <-time.After(wait):
		case <-ctx.Done():
			l.forget(p)
			return nil, ctx.Err()
		case <-l.n.closed:
			return nil, net.ErrClosed
		}
	}
	to := &net.TCPAddr{IP: net.IPv4(10, 0, 1, 1), Port: 80}
	if !refuse {
		near := &conn{l: l, p: p, in: p.pipes[ToPeer], out: p.pipes[ToBroker], local: from, remote: to}
		far := &conn{l: l, p: p, in: p.pipes[ToBroker], out: p.pipes[ToPeer], local: to, remote: from}
		select {
		case ln.accepted <- far:
			return near, nil
		case <-ln.closed:
			l.forget(p)
		}
	}
	return nil, &net.OpError{Op: "dial", Net: "sim", Addr: to, Err: syscall.ECONNREFUSED}
}

func (l *Link) forget(p *pair) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.conns, p); i >= 0 {
		l.conns = slices.Delete(l.conns, i, i+1)
		for _, d := range p.pipes {
			d.set(func() { l.repeated += d.frames.repeated })
		}
	}
}

// each calls fn for one direction of every connection.
func (l *Link) each(d Direction, fn func(*pipe)) {
	l.mu.Lock()
	conns := slices.Clone(l.conns)
	l.mu.Unlock()
	for _, p := range conns {
		fn(p.pipes[d])
	}
}

// Cut breaks the link's connections at both ends. What is on its way arrives
// first, or is gone, in each direction by itself.
func (l *Link) Cut(keepToBroker, keepToPeer bool) {
	l.each(ToBroker, func(p *pipe) { p.reset(keepToBroker) })
	l.each(ToPeer, func(p *pipe) { p.reset(keepToPeer) })
}

// CutAfter breaks them after some more bytes in a direction: within a frame, mostly.
func (l *Link) CutAfter(d Direction, bytes int) {
	l.each(d, func(p *pipe) { p.set(func() { p.cutAt = bytes }) })
}

// Lose lets everything vanish that takes a direction on a connection of now.
func (l *Link) Lose(d Direction) { l.each(d, (*pipe).lose) }

// Stall lets nothing arrive for a while, nor any connection be made.
func (l *Link) Stall(d time.Duration) {
	until := time.Now().Add(d)
	l.mu.Lock()
	l.stalled = until
	l.mu.Unlock()
	l.each(ToBroker, func(p *pipe) { p.stall(until) })
	l.each(ToPeer, func(p *pipe) { p.stall(until) })
}

// Delay makes everything that takes a direction from now on arrive later.
func (l *Link) Delay(d Direction, by time.Duration) {
	l.mu.Lock()
	l.delay[d] = by
	l.mu.Unlock()
	l.each(d, func(p *pipe) { p.set(func() { p.delay = by }) })
}

// Refuse refuses connections, or admits them again.
func (l *Link) Refuse(refuse bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse = refuse
}

// Repeat sends the next frames of a direction twice.
func (l *Link) Repeat(d Direction, frames int, late bool) {
	l.each(d, func(p *pipe) { p.set(func() { p.frames.repeat, p.frames.late = frames, late }) })
}

// Repeated is how many frames were sent twice.
func (l *Link) Repeated() int {
	l.mu.Lock()
	conns, sum := slices.Clone(l.conns), l.repeated
	l.mu.Unlock()
	for _, p := range conns {
		for _, d := range p.pipes {
			d.set(func() { sum += d.frames.repeated })
		}
	}
	return sum
}

// conn is one end of a connection.
type conn struct {
	l             *Link
	p             *pair
	in, out       *pipe
	local, remote net.Addr
}

func (c *conn) Read(b []byte) (int, error)  { return c.in.read(b) }
func (c *conn) Write(b []byte) (int, error) { return c.out.write(b) }
func (c *conn) LocalAddr() net.Addr         { return c.local }
func (c *conn) RemoteAddr() net.Addr        { return c.remote }

// Close ends both directions. A connection of which both ends are closed is forgotten.
func (c *conn) Close() error {
	told := c.out.end()
	c.in.abandon(told)
	over := true
	for _, p := range c.p.pipes {
		p.set(func() { over = over && p.wErr != nil && len(p.queue) == 0 })
	}
	if over {
		c.l.forget(c.p)
	}
	return nil
}

func (c *conn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.set(func() { c.in.rDeadline.set(t, c.in.wake) })
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.set(func() { c.out.wDeadline.set(t, c.out.wake) })
	return nil
}

// listener is the broker's.
type listener struct {
	n        *Network
	accepted chan net.Conn
	once     sync.Once
	closed   chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accepted:
		return c, nil
	case <-l.closed:
		return nil, fmt.Errorf("accept: %w", net.ErrClosed)
	}
}

func (l *listener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 0, 1, 1), Port: 80} }

// Close ends it, and resets what nobody has accepted.
func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.n.mu.Lock()
		if l.n.listener == l {
			l.n.listener = nil
		}
		l.n.mu.Unlock()
		for {
			select {
			case c := <-l.accepted:
				_ = c.Close()
				continue
			default:
			}
			return
		}
	})
	return nil
}
