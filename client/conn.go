package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/claudemesh/claudemesh/internal/audit"
	"github.com/claudemesh/claudemesh/internal/wire"
)

const (
	dialTimeout  = 10 * time.Second
	replyTimeout = 20 * time.Second
	pingEvery    = 30 * time.Second
	goneAfter    = 75 * time.Second
	maxBackoff   = 30 * time.Second
	pushBatch    = 64   // stored in one transaction
	maxPushes    = 8192 // received and not yet stored, whatever the broker's window
)

// conn is one live connection. One goroutine reads it, one writes it, one
// stores what it receives, one watches that the broker is still there.
type conn struct {
	c        *Client
	ws       *websocket.Conn
	out      *wire.Queue
	hello    *wire.HelloAck
	pushes   chan *wire.Push
	acks     []int64       // of what is on disk; the receiver's
	deaf     chan struct{} // closed when nobody takes pushes any more
	lastRead atomic.Int64

	mu      sync.Mutex // guards the following
	seq     uint64
	waiting map[string]chan wire.Frame
	err     error // why the reader ended
}

// run connects, serves and connects again, until Close or a refusal that no
// retry would change.
func (c *Client) run() {
	for failures := 0; ; {
		began := c.now()
		welcomed, err := c.serve()
		if c.ctx.Err() != nil {
			return
		}
		final := isFinal(err)
		if isRemoval(err) {
			err = &RemovedError{c.m.Mesh, err}
			c.note(c.ctx, audit.Entry{Event: audit.Removed, Member: c.member.Public(), Note: "told by the broker"})
		}
		c.setState(State{Err: err, Final: final})
		if final {
			c.log.Error("the broker refuses this member for good", "error", err)
			return
		}
		if failures++; welcomed {
			failures = 1
		}
		wait := rand.N(c.backoff(failures))
		if websocket.CloseStatus(err) == websocket.StatusCode(wire.CloseKicked) {
			wait = maxBackoff // whoever closed it wanted some quiet
		}
		c.log.Debug("disconnected", "error", err, "after", c.now().Sub(began), "retry_in", wait)
		select {
		case <-time.After(wait):
		case <-c.ctx.Done():
			return
		}
	}
}

// backoff is the limit of the wait before the next attempt, of which a random
// part is waited: it doubles from what the broker asked for, so that a thousand
// clients of a restarted broker do not all come at once, and a few come soon.
func (c *Client) backoff(failures int) time.Duration {
	first := min(max(time.Duration(c.spread.Load())*time.Millisecond, time.Second), maxBackoff)
	return min(first<<min(failures-1, 5), maxBackoff)
}

// setSpread takes what the broker asks for, within reason.
func (c *Client) setSpread(ms int64) { c.spread.Store(min(max(ms, 0), maxBackoff.Milliseconds())) }

// isFinal reports whether trying again is pointless.
func isFinal(err error) bool {
	if info := wire.CloseCode(websocket.CloseStatus(err)).Info(); info.Terminal {
		return true
	}
	var f *wire.Fault
	if !errors.As(err, &f) {
		return false
	}
	switch f.Code {
	case wire.CodeWrongBroker, wire.CodeRosterRollback, wire.CodeGenerationFork, wire.CodeBadCertificate,
		wire.CodeWrongOwner, wire.CodeRemoved, wire.CodeInviteClosed, wire.CodeUnknownMember, wire.CodeUnknownMesh, wire.CodeUnsupportedVersion:
		return true
	}
	return false
}

// isRemoval reports whether the broker says that this member is none any more.
func isRemoval(err error) bool {
	if websocket.CloseStatus(err) == websocket.StatusCode(wire.CloseRemoved) {
		return true
	}
	var f *wire.Fault
	return errors.As(err, &f) && (f.Code == wire.CodeRemoved || f.Code == wire.CodeInviteClosed)
}

// serve makes one connection and serves it to its end. welcomed reports whether the broker took
// the hello.
func (c *Client) serve() (welcomed bool, err error) {
	k, err := c.connect()
	if err != nil {
		return false, err
	}
	var wg, writer, receiver sync.WaitGroup
	ctx, cancel := context.WithCancel(c.ctx)
	writer.Go(k.write)
	wg.Go(func() { k.read(); cancel() })
	receiver.Go(func() { k.receive(ctx) })
	wg.Go(func() { k.watch(ctx) })
	if err = c.welcome(ctx, k); err == nil {
		<-ctx.Done() // the reader ended, or Close was called
	}
	c.mu.Lock()
	c.conn = nil
	c.watching = false
	for _, p := range c.peers {
		p.Online = false
	}
	c.mu.Unlock()
	cancel()
	receiver.Wait() // its last acknowledgements go before the end
	k.hangUp(c.ctx.Err() != nil && err == nil, &writer)
	wg.Wait()
	if err == nil || errors.Is(err, errLost) {
		err = k.reason()
	}
	return true, err
}

// connect dials, checks that the broker is the one the mesh was joined at, and
// says hello.
func (c *Client) connect() (*conn, error) {
	ctx, cancel := context.WithTimeout(c.ctx, dialTimeout)
	defer cancel()
	k := &conn{
		c: c, out: wire.NewQueue(64, 256<<10, 8<<20), pushes: make(chan *wire.Push, pushBatch),
		deaf: make(chan struct{}), waiting: map[string]chan wire.Frame{},
	}
	alive := func() { k.lastRead.Store(c.now().UnixMilli()) }
	ws, _, err := websocket.Dial(ctx, c.m.Broker, &websocket.DialOptions{
		HTTPClient:      c.http,
		CompressionMode: websocket.CompressionDisabled,
		OnPingReceived:  func(context.Context, []byte) bool { alive(); return true },
		OnPongReceived:  func(context.Context, []byte) { alive() },
	})
	if err != nil {
		return nil, err
	}
	k.ws = ws
	alive()
	ws.SetReadLimit(wire.MaxMessageBytes)
	if err := k.shake(ctx); err != nil {
		_ = ws.CloseNow()
		return nil, err
	}
	return k, nil
}

var errLost = errors.New("the connection was lost")

// read handles frames in order until the connection ends. Its context never
// ends: that would cut the connection before it can be closed cleanly.
func (k *conn) read() {
	const kept = 64 << 10 // bytes; one large message does not fatten the connection
	var buf bytes.Buffer
	var frames []wire.Incoming
	for {
		t, r, err := k.ws.Reader(context.Background())
		if err == nil {
			buf.Reset()
			_, err = buf.ReadFrom(r)
		}
		if err != nil {
			k.fail(err)
			return
		}
		k.lastRead.Store(k.c.now().UnixMilli())
		if t != websocket.MessageText {
			continue
		}
		frames, err = wire.Frames(frames[:0], buf.Bytes())
		if err != nil {
			k.fail(fmt.Errorf("the broker sent what is no frame: %w", err))
			return
		}
		for _, in := range frames {
			k.handle(in)
		}
		clear(frames) // or they would keep bodies alive
		if buf.Cap() > kept {
			buf, frames = bytes.Buffer{}, nil
		}
	}
}

func (k *conn) fail(err error) {
	k.mu.Lock()
	if k.err == nil {
		k.err = err
	}
	waiting := k.waiting
	k.waiting = map[string]chan wire.Frame{}
	k.mu.Unlock()
	for _, ch := range waiting {
		close(ch)
	}
}

func (k *conn) reason() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err == nil {
		return errLost
	}
	return k.err
}

// write sends what has gathered since the last write.
func (k *conn) write() {
	var buf []byte
	stuck := time.AfterFunc(dialTimeout, func() { _ = k.ws.CloseNow() }) // cheaper than a context each time
	stuck.Stop()
	for k.out.Next() {
		buf = k.out.Take(buf[:0], k.limit())
		stuck.Reset(dialTimeout)
		err := k.ws.Write(context.Background(), websocket.MessageText, buf)
		stuck.Stop()
		if err != nil {
			_ = k.ws.CloseNow()
			k.out.End()
			return
		}
	}
}

func (k *conn) limit() int {
	if n := k.hello.Limits.MessageBytes; n > 0 && n < wire.MaxMessageBytes {
		return n
	}
	return wire.MaxMessageBytes
}

// watch pings a quiet broker and gives up one that is silent for too long.
func (k *conn) watch(ctx context.Context) {
	jitter := rand.N(pingEvery / 6)
	t := time.NewTicker(pingEvery - jitter)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		quiet := time.Duration(k.c.now().UnixMilli()-k.lastRead.Load()) * time.Millisecond
		if quiet > goneAfter || quiet < -goneAfter { // or the clock was set
			k.fail(fmt.Errorf("%w: silent for %s", ErrUnreachable, quiet))
			_ = k.ws.CloseNow()
			return
		}
		pctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		_ = k.ws.Ping(pctx)
		cancel()
	}
}

// hangUp ends the connection; cleanly, after what is queued, when the client closes.
func (k *conn) hangUp(clean bool, writer *sync.WaitGroup) {
	if clean {
		k.out.Finish()
		writer.Wait()
		_ = k.ws.Close(websocket.StatusNormalClosure, "")
	}
	k.out.End()
	_ = k.ws.CloseNow()
	writer.Wait()
}

// poke wakes the outbox.
func (c *Client) poke() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}
