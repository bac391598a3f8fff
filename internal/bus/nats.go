package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/claudemesh/claudemesh/broker"
)

const (
	payloadNATS = 256 << 10
	// What may wait for a node that hears slowly; what exceeds it is dropped.
	waitingMsgs, waitingBytes = 1 << 16, 64 << 20
	// natsPing is how often the server is asked for life; after two answers that
	// are missing the connection is given up.
	natsPing = 5 * time.Second
	// natsWrite is how long the server may take nothing before the connection is given up.
	natsWrite = 2 * time.Second
)

// viaNATS publishes on core NATS, a subject per node.
type viaNATS struct {
	nc        *nats.Conn
	log       *slog.Logger
	wg        sync.WaitGroup // listeners, and a Send that its caller has given up
	connected atomic.Bool    // as far as we have heard
	most      atomic.Int64   // bytes of a payload

	turn   chan struct{} // holds one while somebody publishes
	closed bool          // for who has the turn

	mu   sync.Mutex // guards ears
	ears []*ear
}

// ear is one Listen.
type ear struct {
	got func([]byte)
	gap func()

	mu      sync.Mutex // held while got or gap runs
	over    bool
	dropped int // of the subscription, as gap was told last
}

// checkURLs refuses what is not URLs of NATS servers with commas between them,
// and repeats nothing of it: they may hold passwords.
func checkURLs(urls string) error {
	for u := range strings.SplitSeq(urls, ",") {
		if p, err := url.Parse(strings.TrimSpace(u)); err != nil || p.Host == "" || p.Scheme != "nats" && p.Scheme != "tls" {
			return fmt.Errorf("%w: the URL cannot be parsed", ErrSpec)
		}
	}
	return nil
}

// NATS returns a bus through the NATS server at a URL, or at several with
// commas between them. A URL may hold credentials.
func NATS(urls string, log *slog.Logger) (broker.Bus, error) {
	if err := checkURLs(urls); err != nil {
		return nil, err
	}
	n := &viaNATS{log: log, turn: make(chan struct{}, 1)}
	n.most.Store(payloadNATS)
	nc, err := nats.Connect(urls,
		nats.Name("claudemesh-broker"), nats.Timeout(5*time.Second),
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
		nats.CustomReconnectDelay(func(tries int) time.Duration { return pause(max(tries, 1)) }),
		nats.ReconnectBufSize(-1), nats.PingInterval(natsPing), nats.MaxPingsOutstanding(2), nats.FlusherTimeout(natsWrite),
		nats.ReconnectOnFlusherError(), nats.IgnoreAuthErrorAbort(), // a password may be changed under way
		nats.ConnectHandler(n.joined), nats.ReconnectHandler(n.joined),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			n.connected.Store(false)
			if err != nil {
				log.Warn("bus: disconnected", "error", err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { log.Warn("bus", "error", err) }),
	)
	if err != nil {
		return nil, errors.New(strings.ReplaceAll(fmt.Sprintf("bus: %v", err), urls, "(hidden)"))
	}
	n.nc = nc
	if nc.IsConnected() {
		n.connected.Store(true) // before joined is called
	}
	return n, nil
}

// joined is called after each connect.
func (n *viaNATS) joined(c *nats.Conn) {
	n.log.Info("bus: connected", "server", c.ConnectedAddr())
	if most := c.MaxPayload(); most > 0 {
		n.most.Store(min(most, payloadNATS))
	}
	n.connected.Store(true)
	n.mu.Lock()
	ears := slices.Clone(n.ears)
	n.mu.Unlock()
	for _, e := range ears {
		hears(c, e)
	}
}

// subject is a node's.
func subject(node string) string { return "claudemesh.node." + address(node) }

// MaxPayload implements broker.Bus. Until the first connect the server's own
// limit is unknown.
func (n *viaNATS) MaxPayload() int { return int(n.most.Load()) }

// Send implements broker.Bus. It writes to the connection's buffer. The driver
// holds its lock while it dials, and knows no ctx: it is left to itself then.
func (n *viaNATS) Send(ctx context.Context, node string, payload []byte) error {
	if err := fits(payload, n.MaxPayload()); err != nil {
		return err
	}
	select {
	case n.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if n.closed || !n.connected.Load() {
		closed := n.closed
		<-n.turn
		if closed {
			return broker.ErrClosed
		}
		return ErrAway
	}
	payload = bytes.Clone(payload) // its owner may not wait
	done := make(chan error, 1)
	n.wg.Go(func() {
		done <- n.nc.Publish(subject(node), payload)
		<-n.turn
	})
	select {
	case err := <-done:
		if errors.Is(err, nats.ErrReconnectBufExceeded) {
			return ErrAway
		}
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Listen implements broker.Bus.
func (n *viaNATS) Listen(ctx context.Context, node string, got func([]byte), gap func()) {
	n.wg.Go(func() {
		e := &ear{got: got, gap: gap}
		sub, err := n.nc.Subscribe(subject(node), e.hear)
		if err == nil {
			err = sub.SetPendingLimits(waitingMsgs, waitingBytes)
		}
		if err != nil { // the URL's owner is no longer let in
			n.log.Error("bus: cannot listen", "error", err)
			return
		}
		n.mu.Lock()
		n.ears = append(n.ears, e)
		n.mu.Unlock()
		hears(n.nc, e)
		<-ctx.Done()
		_ = sub.Unsubscribe() // it may be closed
		e.mu.Lock()
		e.over = true
		e.mu.Unlock()
		n.mu.Lock()
		n.ears = slices.DeleteFunc(n.ears, func(x *ear) bool { return x == e })
		n.mu.Unlock()
	})
}

// hears tells a listener of the gap that ends, once the server knows what it
// listens to. When that fails it is told after the next connect.
func hears(c *nats.Conn, e *ear) {
	if c.FlushTimeout(natsPing) == nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		if !e.over {
			e.gap()
		}
	}
}

// hear takes a message. Drops are told once the worst is over: each is followed
// by those that waited before it.
func (e *ear) hear(m *nats.Msg) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.over {
		return
	}
	e.got(m.Data)
	dropped, err := m.Sub.Dropped()
	if err != nil || dropped == e.dropped {
		return
	}
	if msgs, bytes, err := m.Sub.Pending(); err == nil && msgs <= waitingMsgs/2 && bytes <= waitingBytes/2 {
		e.dropped = dropped
		e.gap()
	}
}

// Close implements broker.Bus.
func (n *viaNATS) Close() error {
	n.turn <- struct{}{}
	n.closed = true
	<-n.turn
	n.wg.Wait()
	n.nc.Close()
	return nil
}
