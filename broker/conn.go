package broker

import (
	"bytes"
	"context"
	"errors"
	"io"
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
	id      string
	address netip.Prefix

	// Set by the handshake, constant afterwards.
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
	clean    atomic.Bool // the peer ended it with a close frame

	// Guarded by mesh.mu.
	serves   []*peer
	leases   map[int64]*lease
	inFlight int // bytes of the leased deliveries
	watches  bool
	news     map[*peer]wire.PresenceEvent
}

// lease is one delivery in flight on a connection.
type lease struct {
	peer     *peer
	delivery int64
	sender   PeerID
	id       wire.ID
	size     int64
	deadline time.Time
}

// handleWS accepts a WebSocket and serves it until it ends.
func (b *Broker) handleWS(w http.ResponseWriter, r *http.Request) {
	address := b.address(r)
	if b.stopping.Load() {
		http.Error(w, wire.CodeShuttingDown.Info().Text, http.StatusServiceUnavailable)
		return
	}
	if !b.gate.enter(address) {
		b.metrics.preAuthDropped.Inc()
		http.Error(w, wire.CodeRateLimited.Info().Text, http.StatusTooManyRequests)
		return
	}
	l := b.cfg.Limits
	c := &conn{
		b: b, id: randomID(), address: address, leases: map[int64]*lease{},
		out: wire.NewQueue(l.OutFrames, l.OutBytes, l.OutMax),
	}
	alive := func() { c.lastRead.Store(b.cfg.Now().UnixMilli()) }
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		CompressionMode: websocket.CompressionDisabled, // ciphertext does not compress
		OnPingReceived:  func(context.Context, []byte) bool { alive(); return true },
		OnPongReceived:  func(context.Context, []byte) { alive() },
	})
	if err != nil {
		b.gate.leave(address)
		return // Accept has answered
	}
	c.ws = ws
	alive()
	b.mu.Lock()
	b.conns[c] = struct{}{}
	b.mu.Unlock()
	b.wg.Add(1)
	defer b.wg.Done()
	c.serve()
	b.mu.Lock()
	delete(b.conns, c)
	b.mu.Unlock()
}

// serve runs the handshake, then reads until the connection ends.
func (c *conn) serve() {
	defer func() { _ = c.ws.CloseNow() }()
	err := c.handshake()
	c.b.gate.leave(c.address)
	if err != nil {
		c.refuse(err)
		return
	}
	var writer sync.WaitGroup
	writer.Go(c.write)
	c.read()
	c.closed.Store(true)
	c.out.End()
	_ = c.ws.CloseNow()
	writer.Wait()
	c.mesh.leave(c)
}

// refuse answers a failed handshake with an error frame and a close code.
func (c *conn) refuse(err error) {
	f, code := asFault(err), wire.CloseBadHello
	switch f.Code {
	case wire.CodeUnknownMesh, wire.CodeUnknownMember:
		code = wire.CloseUnknown
	case wire.CodeRemoved, wire.CodeInviteClosed:
		code = wire.CloseRemoved
	case wire.CodeUnsupportedVersion:
		code = wire.CloseVersion
	case wire.CodeShuttingDown:
		code = wire.CloseGoingAway
	case wire.CodeInternal, wire.CodeStorageFull:
		code = wire.CloseSlow
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, io.EOF) {
		c.b.metrics.preAuthDropped.Inc()
		return
	}
	if raw, err := wire.Append(nil, f.Frame("")); err == nil {
		ctx, cancel := context.WithTimeout(c.b.ctx, time.Second)
		_ = c.ws.Write(ctx, websocket.MessageText, raw)
		cancel()
	}
	c.b.log.Info("hello refused", "code", f.Code, "conn", c.id)
	_ = c.ws.Close(closeStatus(code), code.Info().Reason)
}

// close ends the connection with one of our codes.
func (c *conn) close(code wire.CloseCode) {
	if c.closed.Swap(true) {
		return
	}
	c.b.metrics.closed(code)
	_ = c.ws.Close(closeStatus(code), code.Info().Reason)
}

// closeSoon is close for callers that may not wait for the peer.
func (c *conn) closeSoon(code wire.CloseCode) { c.b.wg.Go(func() { c.close(code) }) }

// read handles messages in order until the connection ends.
func (c *conn) read() {
	c.ws.SetReadLimit(int64(c.b.cfg.Limits.MessageBytes))
	var buf bytes.Buffer
	for {
		c.out.Wait() // a peer that does not read is not read from
		t, r, err := c.ws.Reader(c.b.ctx)
		if err == nil {
			buf.Reset()
			_, err = buf.ReadFrom(r)
		}
		if err != nil {
			s := websocket.CloseStatus(err)
			c.clean.Store(s == websocket.StatusNormalClosure || s == websocket.StatusGoingAway)
			return
		}
		c.lastRead.Store(c.b.cfg.Now().UnixMilli())
		if t != websocket.MessageText {
			c.send(wire.Faultf(wire.CodeBadFrame, "frames are text").Frame(""))
			continue
		}
		c.dispatchAll(buf.Bytes())
		if buf.Cap() > 64<<10 {
			buf = bytes.Buffer{} // one large message does not fatten an idle connection
		}
	}
}

// write sends what has gathered since the last write, never waiting for more.
func (c *conn) write() {
	var buf []byte
	for {
		var ok bool
		if buf, ok = c.out.Take(buf[:0], c.b.cfg.Limits.MessageBytes); !ok {
			return
		}
		c.writing.Store(c.b.cfg.Now().UnixMilli())
		err := c.ws.Write(c.b.ctx, websocket.MessageText, buf)
		c.writing.Store(0)
		if err != nil {
			_ = c.ws.CloseNow()
			return
		}
		if cap(buf) > 64<<10 {
			buf = nil
		}
		if c.out.Roomy() {
			c.flushNews()
			c.mesh.pump(c)
		}
	}
}

// send queues one frame. A connection that lets too much gather is closed.
func (c *conn) send(f wire.Frame) {
	raw, err := wire.Append(nil, f)
	if err != nil {
		c.b.log.Error("frame does not encode", "type", f.Type(), "error", err)
		return
	}
	if !c.out.Put(raw) && !c.closed.Load() {
		c.closeSoon(wire.CloseSlow)
	}
}
