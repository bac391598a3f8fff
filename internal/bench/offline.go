package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/trust"
)

// backlogs measures the drain of a small and a large queue of one offline peer.
func (b *bencher) backlogs(ctx context.Context) ([]Result, error) {
	var out []Result
	for _, n := range []int{1_000, 100_000} {
		r, err := b.backlog(ctx, n)
		if err != nil {
			return out, err
		}
		out = append(out, r)
	}
	return out, nil
}

// backlog queues n messages for a peer that is away, then lets it come back.
func (b *bencher) backlog(ctx context.Context, n int) (Result, error) {
	const senders = 10
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
	var first atomic.Int64
	var began time.Time
	r, err := b.measured(fmt.Sprintf("backlog %d", n), n, func() error {
		began = time.Now()
		back, err := b.dial(ctx, 1, func(i int, p *peer, o *client.Options) {
			sleeper(i, p, o)
			o.Unopened = func(f *client.Push) error {
				first.CompareAndSwap(0, time.Now().UnixNano())
				b.noteGot(f.ID)
				return nil
			}
		})
		if err != nil {
			return err
		}
		defer hangUp(back)
		return b.wait(ctx)
	})
	if err != nil {
		return r, err
	}
	r.Peers = 1
	r.DeliveredPerSecond = float64(n) / r.Seconds
	r.Extra = append(r.Extra,
		Figure{"first message after dialling", float64(first.Load()-began.UnixNano()) / 1e6, "ms"},
		Figure{"resident memory when full", float64(full.rss) / (1 << 20), "MiB"},
		Figure{"resident memory after the drain", float64(b.sample().rss) / (1 << 20), "MiB"})
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

// idles measures what connected, silent peers cost.
func (b *bencher) idles(ctx context.Context) ([]Result, error) {
	var out []Result
	for _, n := range []int{1_000, 10_000} {
		r, err := b.idle(ctx, n)
		if err != nil {
			return out, err
		}
		out = append(out, r)
	}
	return out, nil
}

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
		Figure{"resident memory per connection", float64(after.rss-before.rss) / float64(n) / 1024, "KiB"},
		Figure{"CPU of a round of pings, per connection", float64((after.cpu - before.cpu).Microseconds()) / float64(n), "us, connecting included"})
	return r, err
}

// fanouts measures groups.
func (b *bencher) fanouts(ctx context.Context) ([]Result, error) {
	var out []Result
	for _, n := range []int{10, 50, 200} {
		r, err := b.fanout(ctx, n)
		if err != nil {
			return out, err
		}
		out = append(out, r)
	}
	return out, nil
}

// fanout sends from one peer to a group of n others; a message counts when its
// last recipient has it.
func (b *bencher) fanout(ctx context.Context, n int) (Result, error) {
	messages := max(b.Messages/3, 20)
	b.say("fanout: %d messages to a group of %d", messages, n)
	group := fmt.Sprintf("g%d", n)
	var got, bytes atomic.Int64
	all := make(chan struct{})
	peers, err := b.dial(ctx, n+1, func(i int, _ *peer, o *client.Options) {
		if i == 0 {
			return
		}
		o.Card.Groups = []client.Group{{Name: group}}
		o.Unopened = func(f *client.Push) error {
			bytes.Add(int64(len(f.Nonce) + len(f.Ciphertext) + len(f.Wrap)))
			if got.Add(1) == int64(n*messages) {
				close(all)
			}
			return nil
		}
	})
	if err != nil {
		return Result{}, err
	}
	defer hangUp(peers)
	if err := b.seal(ctx, peers[:1], messages, func(int, int) string { return "@" + group }); err != nil {
		return Result{}, err
	}
	r, err := b.measured(fmt.Sprintf("fanout %d", n), messages, func() error {
		b.release(peers[0], b.Window)
		select {
		case <-all:
			return nil
		case <-time.After(2 * time.Minute):
			return fmt.Errorf("stalled at %d of %d deliveries", got.Load(), n*messages)
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	r.Peers = n + 1
	b.rates(&r)
	if r.Seconds > 0 {
		r.DeliveredPerSecond = float64(got.Load()) / r.Seconds
	}
	r.LatencyMs = Quantiles{}
	r.Extra = append(r.Extra, Figure{"bytes delivered per message", float64(bytes.Load()) / float64(messages), "bytes"})
	return r, err
}
