package broker

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// conn is one WebSocket: one goroutine reads it (the HTTP handler's), one
// writes it.
type conn struct {
	b       *Broker
	ws      *websocket.Conn
	socket  net.Conn // below it
	id      string
	number  int64 // in the order in which connections came
	address netip.Prefix

	// Set by the handshake, constant afterwards.
	hello  *wire.Hello // nil until its signature was found good
	mesh   *mesh
	role   wire.Role
	member wire.Key
	key    wire.Key
	self   *peer // the peer that sends: the session, or the member's own

	out      *wire.Queue
	lastRead atomic.Int64 // Unix ms of the last sign of life
	lastPing atomic.Int64
	writing  atomic.Int64 // Unix ms since when a write is under way; 0 = none
	closed   atomic.Bool
	clean    atomic.Bool  // the peer ended it with a close frame
	spread   atomic.Int64 // ms that the peer was told to spread over; 0 before hello_ack
	ending   atomic.Int32 // a close code: sent after what is queued; nothing more is handled

	ctx    context.Context // of reads and writes; its end cuts the socket
	cancel context.CancelFunc

	// Guarded by mesh.mu.
	serves  []*peer
	leases  map[int64]*lease
	inBytes int // of the leases
	watches bool
	listing bool // a list of peers is under way: news waits
	news    map[*peer]wire.PresenceEvent
	joined  time.Time
	from    Holder             // the node that held its session before, until that was told
	settled bool               // its session was at no other node lately
	synced  map[[2]PeerID]bool // sender and recipient whose order is certain here; see inOrder
}

// lease is one delivery in flight on a connection.
type lease struct {
	conn     *conn
	peer     *peer
	end      Settlement // its State is set when it is answered
	sender   PeerID
	id       wire.ID
	deadline time.Time
}

// handleWS accepts a WebSocket, and serves it on a goroutine of its own: the
// handler's keeps the request, and a stack that the handshake has made large.
func (b *Broker) handleWS(w http.ResponseWriter, r *http.Request) {
	address := b.address(r)
	if b.stopping.Load() {
		w.Header().Set("Connection", "close")
		http.Error(w, wire.CodeShuttingDown.Info().Text, http.StatusServiceUnavailable)
		return
	}
	if !b.gate.enter(address) {
		b.metrics.preAuthDropped.Inc()
		w.Header().Set("Connection", "close") // it would stay, uncounted
		http.Error(w, wire.CodeRateLimited.Info().Text, http.StatusTooManyRequests)
		return
	}
	l := b.cfg.Limits
	c := &conn{
		b: b, id: randomID(), number: b.came.Add(1), address: address, leases: map[int64]*lease{},
		out: wire.NewQueue(l.OutFrames, l.OutBytes, l.OutMax),
	}
	c.ctx, c.cancel = context.WithCancel(b.ctx)
	alive := func() { c.lastRead.Store(b.cfg.Now().UnixMilli()) }
	h := &hijacked{ResponseWriter: w}
	ws, err := websocket.Accept(h, r, &websocket.AcceptOptions{
		CompressionMode: websocket.CompressionDisabled, // ciphertext does not compress
		OnPingReceived:  func(context.Context, []byte) bool { alive(); return true },
		OnPongReceived:  func(context.Context, []byte) { alive() },
	})
	if err != nil {
		c.cancel()
		b.gate.leave(address)
		return // Accept has answered
	}
	c.ws, c.socket = ws, h.socket
	alive()
	if !b.add(c) { // Shutdown has begun since
		c.dismissStranger(wire.CloseGoingAway)
		c.cancel()
		b.gate.leave(address)
		return
	}
	if c.welcome() {
		go c.serve()
	} else {
		c.end()
	}
}

// add makes the connection one of the broker's, unless it is stopping.
func (b *Broker) add(c *conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopping.Load() || !b.routines.begin() {
		return false
	}
	b.conns[c] = struct{}{}
	return true
}

// welcome runs the handshake.
func (c *conn) welcome() bool {
	defer c.b.gate.leave(c.address)
	req, err := c.handshake()
	if err != nil {
		c.refuse(req, err)
	}
	return err == nil
}

// end lets go of the connection.
func (c *conn) end() {
	_ = c.ws.CloseNow()
	c.cancel()
	c.b.mu.Lock()
	delete(c.b.conns, c)
	c.b.mu.Unlock()
	c.b.routines.end()
}

// serve reads until the connection ends.
func (c *conn) serve() {
	defer c.end()
	var writer sync.WaitGroup
	writer.Go(c.write)
	c.read()
	c.closed.Store(true)
	c.out.End()
	_ = c.ws.CloseNow()
	writer.Wait()
	c.mesh.leave(c)
}

// errDropped says that a socket ended before its hello could be answered.
var errDropped = errors.New("dropped")

// refuse answers a failed handshake with an error frame and a close code.
func (c *conn) refuse(req string, err error) {
	c.b.metrics.preAuthDropped.Inc()
	if errors.Is(err, errDropped) {
		return
	}
	f, code := asFault(err), wire.CloseBadHello
	switch f.Code {
	case wire.CodeUnknownMesh, wire.CodeUnknownMember:
		code = wire.CloseUnknown
	case wire.CodeRemoved, wire.CodeInviteClosed:
		code = wire.CloseRemoved
	case wire.CodeUnsupportedVersion:
		code = wire.CloseVersion
	case wire.CodeShuttingDown, wire.CodeStaleMembers:
		code = wire.CloseGoingAway
	case wire.CodeInternal, wire.CodeStorageFull:
		code = wire.CloseSlow
	}
	c.recordHello(f.Code)
	if raw, err := wire.Append(nil, f.Frame(req)); err == nil {
		ctx, cancel := context.WithTimeout(c.ctx, time.Second)
		_ = c.ws.Write(ctx, websocket.MessageText, raw)
		cancel()
	}
	c.b.log.Info("hello refused", "code", f.Code, "conn", c.id)
	c.dismissStranger(code)
}

// dismissStranger closes a connection before its hello was taken: it is not waited for long.
func (c *conn) dismissStranger(code wire.CloseCode) {
	stop := time.AfterFunc(time.Second, func() { _ = c.socket.Close() }) // nobody reads: the context cuts nothing
	defer stop.Stop()
	_ = c.ws.Close(closeStatus(code), code.Info().Reason)
}

// hijacked keeps the socket of a WebSocket.
type hijacked struct {
	http.ResponseWriter
	socket net.Conn
}

// Hijack implements http.Hijacker.
func (h *hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	h.socket = conn
	return conn, rw, err
}

// close ends the connection with one of our codes.
func (c *conn) close(code wire.CloseCode) {
	if c.closed.Swap(true) {
		return
	}
	c.b.metrics.closed(code)
	_ = c.ws.Close(closeStatus(code), code.Info().Reason)
}

// finish closes the connection once what is queued for it is written. Nothing
// more that it sends is handled.
func (c *conn) finish(code wire.CloseCode) {
	c.ending.CompareAndSwap(0, int32(code))
	c.out.Finish()
}

// dismiss closes the connection with a code. It handles nothing more of it; when it
// is the one that asked for that, it has its answer first.
func (c *conn) dismiss(code wire.CloseCode, asking *conn) {
	if c == asking {
		c.finish(code)
		return
	}
	c.ending.CompareAndSwap(0, int32(code))
	c.closeSoon(code)
}

// closeSoon is close for callers that may not wait for the peer.
func (c *conn) closeSoon(code wire.CloseCode) { c.b.routines.run(func() { c.close(code) }) }

// read handles messages in order until the connection ends.
func (c *conn) read() {
	c.ws.SetReadLimit(int64(c.b.cfg.Limits.MessageBytes))
	for {
		c.out.Wait() // a peer that does not read is not read from
		t, r, err := c.ws.Reader(c.ctx)
		if err == nil {
			err = c.message(t, r)
		}
		if err != nil {
			s := websocket.CloseStatus(err)
			c.clean.Store(s == websocket.StatusNormalClosure || s == websocket.StatusGoingAway)
			return
		}
	}
}

// scratch is what reading or writing one message takes. It goes from connection
// to connection, so that a silent one holds none.
type scratch struct {
	in     bytes.Buffer
	frames []wire.Incoming
	out    []byte
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// message reads one message and handles its frames.
func (c *conn) message(t websocket.MessageType, r io.Reader) error {
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	s.in.Reset()
	if _, err := s.in.ReadFrom(r); err != nil {
		return err
	}
	c.lastRead.Store(c.b.cfg.Now().UnixMilli())
	switch {
	case c.over(): // until the close handshake is through
	case t != websocket.MessageText:
		c.send(wire.Faultf(wire.CodeBadFrame, "frames are text").Frame(""))
	default:
		c.dispatchAll(s)
	}
	return nil
}

// over reports whether frames of this connection are ignored: it is being closed.
func (c *conn) over() bool { return c.closed.Load() || c.ending.Load() != 0 }

// write sends what has gathered since the last write, never waiting for more.
func (c *conn) write() {
	defer c.out.End() // the reader may wait for room
	for c.out.Next() {
		if err := c.writeMessage(); err != nil {
			_ = c.ws.CloseNow()
			return
		}
		if c.out.Roomy() {
			c.flushNews()
			c.mesh.pump(c)
		}
	}
	if code := c.ending.Load(); code != 0 {
		c.close(wire.CloseCode(code))
	}
}

func (c *conn) writeMessage() error {
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	s.out = c.out.Take(s.out[:0], c.b.cfg.Limits.MessageBytes)
	if !c.b.cluster.holds() {
		return ErrFenced
	}
	c.writing.Store(c.b.cfg.Now().UnixMilli())
	defer c.writing.Store(0)
	return c.ws.Write(c.ctx, websocket.MessageText, s.out)
}

// send queues one frame. A connection that lets too much gather is closed.
func (c *conn) send(f wire.Frame) {
	raw, err := wire.Append(nil, f)
	if err != nil {
		c.b.log.Error("frame does not encode", "type", f.Type(), "error", err)
		return
	}
	if !c.out.Put(raw) && !c.closed.Load() {
		c.b.routines.run(c.cut)
	}
}
