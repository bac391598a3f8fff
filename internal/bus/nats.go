package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
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
	// natsWrite bounds a Send to a server that takes nothing, whatever its ctx.
	natsWrite = time.Second
)

// viaNATS publishes on core NATS, a subject per node.
type viaNATS struct {
	nc  *nats.Conn
	log *slog.Logger
	wg  sync.WaitGroup // listeners and what speaks for them

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

// NATS returns a bus through the NATS server at a URL, or at several with
// commas between them. A URL may hold credentials.
func NATS(urls string, log *slog.Logger) (broker.Bus, error) {
	for u := range strings.SplitSeq(urls, ",") {
		if p, err := url.Parse(strings.TrimSpace(u)); err != nil || p.Host == "" || p.Scheme != "nats" && p.Scheme != "tls" {
			return nil, fmt.Errorf("%w: the URL cannot be parsed", ErrSpec) // the cause repeats it
		}
	}
	n := &viaNATS{log: log}
	connected := func(c *nats.Conn) {
		log.Info("bus: connected", "server", c.ConnectedAddr())
		n.mu.Lock()
		ears := slices.Clone(n.ears)
		n.mu.Unlock()
		for _, e := range ears {
			n.rejoined(c, e)
		}
	}
	nc, err := nats.Connect(urls,
		nats.Name("claudemesh-broker"), nats.Timeout(5*time.Second),
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
		nats.CustomReconnectDelay(func(tries int) time.Duration { return pause(max(tries, 1)) }),
		nats.ReconnectBufSize(-1), nats.PingInterval(natsPing), nats.MaxPingsOutstanding(2), nats.FlusherTimeout(natsWrite),
		nats.ReconnectOnFlusherError(), nats.IgnoreAuthErrorAbort(), // a password may be changed under way
		nats.ConnectHandler(connected), nats.ReconnectHandler(connected),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
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
	return n, nil
}

// subject is a node's.
func subject(node string) string { return "claudemesh.node." + address(node) }

// MaxPayload implements broker.Bus.
func (n *viaNATS) MaxPayload() int {
	if most := n.nc.MaxPayload(); most > 0 { // 0 until it was connected once
		return min(int(most), payloadNATS)
	}
	return payloadNATS
}

// Send implements broker.Bus. It writes to the connection's buffer.
func (n *viaNATS) Send(ctx context.Context, node string, payload []byte) error {
	if err := fits(payload, n.MaxPayload()); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	err := n.nc.Publish(subject(node), payload)
	switch {
	case errors.Is(err, nats.ErrConnectionClosed):
		return broker.ErrClosed
	case errors.Is(err, nats.ErrReconnectBufExceeded):
		return ErrAway
	}
	return err
}

// Listen implements broker.Bus.
func (n *viaNATS) Listen(ctx context.Context, node string, got func([]byte), gap func()) {
	e := &ear{got: got, gap: gap}
	sub, err := n.nc.Subscribe(subject(node), e.hear)
	if err == nil {
		err = sub.SetPendingLimits(waitingMsgs, waitingBytes)
	}
	if err != nil { // it was closed
		n.log.Warn("bus: cannot listen", "error", err)
		return
	}
	n.mu.Lock()
	n.ears = append(n.ears, e)
	n.mu.Unlock()
	n.wg.Go(func() {
		n.rejoined(n.nc, e)
		<-ctx.Done()
		_ = sub.Unsubscribe()
		e.mu.Lock()
		e.over = true
		e.mu.Unlock()
		n.mu.Lock()
		n.ears = slices.DeleteFunc(n.ears, func(x *ear) bool { return x == e })
		n.mu.Unlock()
	})
}

// rejoined tells a listener that it hears again, once the server knows what it
// listens to. What fails is told after the next connect.
func (n *viaNATS) rejoined(c *nats.Conn, e *ear) {
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
	n.wg.Wait()
	n.nc.Close()
	return nil
}
