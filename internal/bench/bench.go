// Package bench loads a broker with real peers and real envelopes, through
// package client, and measures it from outside: the broker is another process.
// docs/performance.md explains the figures.
package bench

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// Options say what load is made.
type Options struct {
	Membership client.Membership // the mesh, on the broker that is measured
	Peers      int               // sessions
	Messages   int               // of each peer
	Window     int               // unacknowledged messages of each peer
	Size       int               // bytes of a body
	Rate       int               // messages/s of mode open
	OpenFor    time.Duration     // how long mode open lasts
	Backlogs   []int             // messages that wait in mode backlog, one run each
	Idles      []int             // sessions of mode idle, likewise
	Fanouts    []int             // recipients of mode fanout, likewise
	Parked     int               // messages for others that wait during mode parked; see Park
	Live       bool              // seal and open within the measured time
	Disk       string            // "": mailboxes in memory; else the directory of their files
	Broker     Process           // the broker, where it can be seen
	More       []Node            // other brokers on its database: peers connect to each in turn
	Postgres   int               // process id of that database's server, where it can be seen
	Progress   io.Writer         // what goes on; nil discards
	Logger     *slog.Logger
}

// Node is one more broker of the same mesh.
type Node struct {
	URL string // of its WebSocket
	Process
}

// Quantiles are latencies in milliseconds.
type Quantiles struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
}

// Result is the figures of one mode. Zero means not measured.
type Result struct {
	Mode               string    `json:"mode"`
	Peers              int       `json:"peers"`
	Messages           int       `json:"messages"`
	Seconds            float64   `json:"seconds"`
	AcceptedPerSecond  float64   `json:"acceptedPerSecond"`
	DeliveredPerSecond float64   `json:"deliveredPerSecond"`
	LatencyMs          Quantiles `json:"latencyMs"`    // send to delivery; mode pingpong: the round trip
	AckLatencyMs       Quantiles `json:"ackLatencyMs"` // send to the broker's acknowledgement
	BrokerCPUMicros    float64   `json:"brokerCpuMicrosPerMessage"`
	BrokerPeakRSS      int64     `json:"brokerPeakRssBytes"`
	Extra              []Figure  `json:"extra,omitempty"`
}

// Figure is one more figure of a mode.
type Figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

// Modes are the loads by name, in the order of "all".
var Modes = []string{"pingpong", "serial", "storm", "open", "backlog", "idle", "fanout", "parked"}

// Run makes one load.
func Run(ctx context.Context, mode string, o Options) ([]Result, error) {
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	b := &bencher{Options: o}
	one := func(r Result, err error) ([]Result, error) { return []Result{r}, err }
	switch mode {
	case "pingpong":
		return one(b.pingpong(ctx))
	case "serial":
		b.Window = 1
		return one(b.storm(ctx, mode))
	case "storm":
		return one(b.storm(ctx, mode))
	case "open":
		return one(b.open(ctx))
	case "backlog":
		return each(o.Backlogs, func(n int) (Result, error) { return b.backlog(ctx, n) })
	case "idle":
		return each(o.Idles, func(n int) (Result, error) { return b.idle(ctx, n) })
	case "fanout":
		return each(o.Fanouts, func(n int) (Result, error) { return b.fanout(ctx, n) })
	case "parked":
		return one(b.storm(ctx, fmt.Sprintf("parked %d", o.Parked)))
	}
	return nil, fmt.Errorf("unknown mode %q: one of %v", mode, Modes)
}

// each makes one load in several sizes.
func each(sizes []int, load func(n int) (Result, error)) (out []Result, err error) {
	for _, n := range sizes {
		r, err := load(n)
		if err != nil {
			return out, err
		}
		out = append(out, r)
	}
	return out, nil
}

// bencher is one run.
type bencher struct {
	Options
	index map[client.ID]int // message id to its place in the times below; constant while the clock runs
	sent  []int64           // ns since the epoch, by place
	acked []atomic.Int64
	got   []atomic.Int64
	left  atomic.Int64 // deliveries to wait for
	done  chan struct{}

	scrapes float64 // looks at the broker's metrics so far
}

// peer is one session under load.
type peer struct {
	c     *client.Client
	queue []int // places of its sealed messages, in order
	next  atomic.Int64
}

// ledger is a mailbox that tells when the broker has accepted a message.
type ledger struct {
	mailbox.Mailbox
	accepted func(client.ID)
}

// Advance notes acceptance before it is stored.
func (l *ledger) Advance(ctx context.Context, mesh, id wire.ID, to wire.Key, s mailbox.State, code wire.Code, online bool, at int64) (bool, error) {
	changed, err := l.Mailbox.Advance(ctx, mesh, id, to, s, code, online, at)
	if changed && s != mailbox.Bounced { // a receipt may overtake the acknowledgement
		l.accepted(id)
	}
	return changed, err
}

func (b *bencher) say(format string, args ...any) { fmt.Fprintf(b.Progress, format+"\n", args...) }

// dial connects n sessions of the one member, a few at a time.
func (b *bencher) dial(ctx context.Context, n int, edit func(i int, p *peer, o *client.Options)) ([]*peer, error) {
	peers := make([]*peer, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	gate := make(chan struct{}, 16)
	for i := range n {
		gate <- struct{}{}
		wg.Go(func() {
			defer func() { <-gate }()
			peers[i], errs[i] = b.dialOne(ctx, i, edit)
		})
		if i%1000 == 999 {
			b.say("  %d connected", i+1)
		}
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			hangUp(peers)
			return nil, err
		}
	}
	if err := b.meet(ctx, peers); err != nil {
		hangUp(peers)
		return nil, err
	}
	return peers, nil
}

// meet waits until every broker knows all peers: those of another one are heard
// of a little later.
func (b *bencher) meet(ctx context.Context, peers []*peer) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for i := 0; len(b.More) > 0 && i < min(len(peers), len(b.More)+1); {
		known, _, err := peers[i].c.Peers(ctx, false)
		if err != nil {
			return err
		}
		if len(known) >= len(peers)-1 { // itself may be among them
			i++
			continue
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (b *bencher) dialOne(ctx context.Context, i int, edit func(int, *peer, *client.Options)) (*peer, error) {
	p := &peer{}
	box, err := b.mailbox(ctx, i)
	if err != nil {
		return nil, err
	}
	m := b.Membership
	if n := i % (len(b.More) + 1); n > 0 {
		m.Broker = b.More[n-1].URL
	}
	o := client.Options{
		Membership: m, SessionSeed: client.Secret(trust.NewSecretKey().Seed()), Logger: b.Logger,
		Card: client.Card{Label: fmt.Sprintf("p%d", i), PeerType: "connector"}, Hold: !b.Live,
		Mailbox: &ledger{Mailbox: box, accepted: func(id client.ID) { b.noteAck(p, id) }},
	}
	if !b.Live {
		o.Unopened = func(f *client.Push) error { b.noteGot(f.ID); return nil }
	}
	if edit != nil {
		edit(i, p, &o)
	}
	if p.c, err = client.Dial(ctx, o); err != nil {
		return nil, err
	}
	ready, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return p, p.c.Ready(ready)
}

func (b *bencher) mailbox(ctx context.Context, i int) (mailbox.Mailbox, error) {
	if b.Disk == "" {
		return mailbox.NewMemory(), nil
	}
	return mailbox.Open(ctx, fmt.Sprintf("%s/box-%d.db", b.Disk, i))
}

func hangUp(peers []*peer) {
	var wg sync.WaitGroup
	for _, p := range peers {
		if p != nil && p.c != nil {
			wg.Go(func() { _ = p.c.Close() })
		}
	}
	wg.Wait()
}

// noteAck notes the broker's word and, under load, lets the next message go.
func (b *bencher) noteAck(p *peer, id client.ID) {
	if i, ok := b.index[id]; ok && b.acked[i].CompareAndSwap(0, time.Now().UnixNano()) {
		b.release(p, 1)
	}
}

func (b *bencher) noteGot(id client.ID) {
	if i, ok := b.index[id]; ok && b.got[i].CompareAndSwap(0, time.Now().UnixNano()) {
		if b.left.Add(-1) == 0 {
			close(b.done)
		}
	}
}

// release lets a peer's next n sealed messages go and starts their clocks.
func (b *bencher) release(p *peer, n int) {
	at, ready := time.Now().UnixNano(), 0
	for range n {
		k := int(p.next.Add(1)) - 1
		if k >= len(p.queue) {
			break
		}
		b.sent[p.queue[k]] = at
		ready++
	}
	if ready > 0 {
		p.c.Release(ready)
	}
}

// seal makes each peer's messages, before the clock starts. To names the
// recipient of a peer's k-th message.
func (b *bencher) seal(ctx context.Context, peers []*peer, n int, to func(i, k int) string) error {
	total := len(peers) * n
	b.say("  sealing %d messages", total)
	b.index, b.sent = make(map[client.ID]int, total), make([]int64, total)
	b.acked, b.got, b.done = make([]atomic.Int64, total), make([]atomic.Int64, total), make(chan struct{})
	b.left.Store(int64(total))
	body := string(slices.Repeat([]byte("x"), b.Size))
	var mu sync.Mutex
	var wg sync.WaitGroup
	errs := make([]error, len(peers))
	for i, p := range peers {
		p.queue = make([]int, n)
		wg.Go(func() {
			for k := range n {
				s, err := p.c.Send(ctx, client.Message{To: []string{to(i, k)}, Text: body})
				if err != nil {
					errs[i] = err
					return
				}
				p.queue[k] = i*n + k
				mu.Lock()
				b.index[s.ID] = i*n + k
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// wait waits for the last delivery.
func (b *bencher) wait(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	last := b.left.Load()
	for stalls := 0; ; {
		select {
		case <-b.done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			left := b.left.Load()
			b.say("  %d to go", left)
			if stalls++; left != last {
				stalls = 0
			}
			if last = left; stalls == 12 {
				return fmt.Errorf("stalled with %d messages to go", left)
			}
		}
	}
}
