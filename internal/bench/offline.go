package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/trust"
)

// Names of figures that the goals ask for.
const (
	FirstAfterDial = "first message after dialling"
	DrainRise      = "memory rise during the drain"
	BaseRSS        = "resident memory before the first connection"
	PerConnection  = "resident memory per connection"
	StoredRatio    = "stored, of one body and the wraps"
	CommitsEach    = "commits per message, one at a time"
)

func mebi(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// backlog queues n messages for a peer that is away, then lets it come back.
func (b *bencher) backlog(ctx context.Context, n int) (Result, error) {
	const senders = 10
	n = max(n/senders, 1) * senders
	b.say("backlog: %d messages for one offline peer", n)
	seed := client.Secret(trust.NewSecretKey().Seed())
	sleeper := func(_ int, _ *peer, o *client.Options) { o.SessionSeed, o.Card.Label = seed, "sleeper" }
	away, err := b.dial(ctx, 1, sleeper)
	if err != nil {
		return Result{}, err
	}
	key := away[0].c.Key().String()
	hangUp(away)
	peers, err := b.dial(ctx, senders, nil)
	if err != nil {
		return Result{}, err
	}
	defer hangUp(peers)
	if err := b.seal(ctx, peers, n/senders, func(int, int) string { return key }); err != nil {
		return Result{}, err
	}
	b.say("  filling the queue")
	for _, p := range peers {
		b.release(p, max(b.Window, 32))
	}
	if err := b.until(ctx, func() bool { return b.countAcked() == n }); err != nil {
		return Result{}, fmt.Errorf("backlog: the queue does not fill: %w", err)
	}
	full := b.sample()
	most := b.watchRSS()
	var first, last atomic.Int64
	var began time.Time
	r, err := b.measured(fmt.Sprintf("backlog %d", n), n, func() error {
		began = time.Now()
		back, err := b.dial(ctx, 1, func(i int, p *peer, o *client.Options) {
			sleeper(i, p, o)
			o.Unopened = func(f *client.Push) error {
				now := time.Now().UnixNano()
				first.CompareAndSwap(0, now)
				b.noteGot(f.ID)
				last.Store(now)
				return nil
			}
		})
		if err != nil {
			return err
		}
		defer hangUp(back)
		return b.wait(ctx)
	})
	peak := most()
	if err != nil {
		return r, err
	}
	r.Peers = 1
	r.DeliveredPerSecond = perSecond(n, last.Load()-began.UnixNano())
	r.Extra = append(r.Extra,
		Figure{FirstAfterDial, float64(first.Load()-began.UnixNano()) / 1e6, "ms"},
		Figure{"resident memory when full", mebi(full.rss), "MiB"},
		Figure{DrainRise, mebi(max(0, peak-full.rss)), "MiB"},
		Figure{"resident memory after the drain", mebi(b.sample().rss), "MiB"})
	return r, nil
}

func (b *bencher) countAcked() (n int) {
	for i := range b.acked {
		if b.acked[i].Load() > 0 {
			n++
		}
	}
	return n
}

// until polls for a condition, for at most ten minutes.
func (b *bencher) until(ctx context.Context, ok func() bool) error {
	t := time.NewTicker(50 * time.Millisecond)
	defer t.Stop()
	for range 20 * 600 {
		if ok() {
			return nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return fmt.Errorf("not within ten minutes")
}

// idle measures what connected, silent peers cost.
func (b *bencher) idle(ctx context.Context, n int) (Result, error) {
	b.say("idle: %d peers", n)
	before := b.sample()
	peers, err := b.dial(ctx, n, nil)
	if err != nil {
		return Result{}, err
	}
	defer hangUp(peers)
	const round = 35 * time.Second // longer than the time between pings
	b.say("  watching a round of pings, %s", round)
	r, err := b.measured(fmt.Sprintf("idle %d", n), 0, func() error {
		select {
		case <-time.After(round):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	after := b.sample()
	r.Peers = n
	r.Extra = append(r.Extra,
		Figure{BaseRSS, mebi(before.rss), "MiB"},
		Figure{PerConnection, float64(after.rss-before.rss) / float64(n) / 1024, "KiB"},
		Figure{"CPU of a round of pings, per connection", float64((after.cpu - before.cpu).Microseconds()) / float64(n), "us, connecting included"})
	return r, err
}
