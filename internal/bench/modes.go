package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/claudemesh/claudemesh/client"
)

// measured runs a load between two looks at the broker's process.
func (b *bencher) measured(mode string, messages int, load func() error) (Result, error) {
	before := b.sample()
	began := time.Now()
	if err := load(); err != nil {
		return Result{Mode: mode}, fmt.Errorf("%s: %w", mode, err)
	}
	took := time.Since(began)
	after := b.sample()
	r := Result{Mode: mode, Peers: b.Peers, Messages: messages, Seconds: took.Seconds(), BrokerPeakRSS: after.peak}
	if messages > 0 {
		r.BrokerCPUMicros = float64((after.cpu - before.cpu).Microseconds()) / float64(messages)
	}
	if took := after.server - before.server; took > 0 && messages > 0 {
		r.Extra = append(r.Extra, Figure{"CPU of the database's server", float64(took.Microseconds()) / float64(messages), "us per message"})
	}
	if commits := after.commits - before.commits; commits > 0 {
		r.Extra = append(r.Extra, Figure{"commits", commits, ""}, Figure{"operations per commit", (after.ops - before.ops) / commits, ""})
	}
	return r, nil
}

// rates fills in what the times of messages say.
func (b *bencher) rates(r *Result) {
	var first, lastAck, lastGot int64
	var acks, gots []float64
	for i, at := range b.sent {
		if first == 0 || at < first {
			first = at
		}
		if a := b.acked[i].Load(); a > 0 {
			lastAck = max(lastAck, a)
			acks = append(acks, float64(a-at)/1e6)
		}
		if g := b.got[i].Load(); g > 0 {
			lastGot = max(lastGot, g)
			gots = append(gots, float64(g-at)/1e6)
		}
	}
	r.AcceptedPerSecond = perSecond(len(acks), lastAck-first)
	r.DeliveredPerSecond = perSecond(len(gots), lastGot-first)
	r.AckLatencyMs, r.LatencyMs = quantiles(acks), quantiles(gots)
}

func perSecond(n int, ns int64) float64 {
	if ns <= 0 {
		return 0
	}
	return float64(n) / (float64(ns) / 1e9)
}

func quantiles(ms []float64) Quantiles {
	if len(ms) == 0 {
		return Quantiles{}
	}
	slices.Sort(ms)
	at := func(q float64) float64 { return ms[min(len(ms)-1, int(q*float64(len(ms))))] }
	return Quantiles{at(0.50), at(0.95), at(0.99)}
}

// storm: every peer sends to random others, window messages unacknowledged.
func (b *bencher) storm(ctx context.Context, mode string) (Result, error) {
	b.say("%s: %d peers, %d messages each, window %d", mode, b.Peers, b.Messages, b.Window)
	peers, err := b.dial(ctx, b.Peers, nil)
	if err != nil {
		return Result{}, err
	}
	defer hangUp(peers)
	if b.Live {
		return b.live(ctx, mode, peers)
	}
	other := func(i, _ int) string {
		j := rand.IntN(len(peers) - 1)
		if j >= i {
			j++
		}
		return peers[j].c.Key().String()
	}
	if err := b.seal(ctx, peers, b.Messages, other); err != nil {
		return Result{}, err
	}
	r, err := b.measured(mode, b.Peers*b.Messages, func() error {
		for _, p := range peers {
			b.release(p, b.Window)
		}
		return b.wait(ctx)
	})
	b.rates(&r)
	return r, err
}

// live is storm with sealing, opening and the inbox within the measured time.
func (b *bencher) live(ctx context.Context, mode string, peers []*peer) (Result, error) {
	total := b.Peers * b.Messages
	body := string(slices.Repeat([]byte("x"), b.Size))
	got := make(chan struct{}, total)
	rctx, stop := context.WithCancel(ctx)
	var readers, senders sync.WaitGroup
	for _, p := range peers {
		readers.Go(func() {
			for m, err := range p.c.Receive(rctx) {
				if err != nil || m.Ack(rctx) != nil {
					return
				}
				got <- struct{}{}
			}
		})
	}
	errs := make(chan error, total)
	r, err := b.measured(mode+" (live)", total, func() error {
		for i, p := range peers {
			for w := range b.Window {
				senders.Go(func() {
					for k := w; k < b.Messages; k += b.Window {
						to := peers[(i+1+rand.IntN(len(peers)-1))%len(peers)].c.Key().String()
						if _, err := p.c.Send(ctx, client.Message{To: []string{to}, Text: body}); err != nil {
							errs <- err
							return
						}
					}
				})
			}
		}
		for n := range total {
			select {
			case <-got:
			case err := <-errs:
				return err
			case <-time.After(30 * time.Second):
				return fmt.Errorf("stalled with %d messages to go", total-n)
			}
		}
		return nil
	})
	senders.Wait()
	stop()
	readers.Wait()
	if r.Seconds > 0 {
		r.DeliveredPerSecond = float64(total) / r.Seconds
		r.AcceptedPerSecond = r.DeliveredPerSecond
	}
	return r, err
}

// pingpong: two peers, one message at a time; a latency is the time from the
// ping's start to the pong's arrival, over two durable hops.
func (b *bencher) pingpong(ctx context.Context) (Result, error) {
	rounds := max(b.Messages, 1000)
	b.say("pingpong: %d rounds", rounds)
	b.Peers = 2
	var peers []*peer
	pong := make(chan struct{}, 1)
	peers, err := b.dial(ctx, 2, func(i int, p *peer, o *client.Options) {
		o.Hold = true
		o.Unopened = func(f *client.Push) error {
			b.noteGot(f.ID)
			if i == 1 {
				b.release(p, 1)
			} else {
				pong <- struct{}{}
			}
			return nil
		}
		o.Mailbox = client.MemoryMailbox() // an acknowledgement releases nothing here
	})
	if err != nil {
		return Result{}, err
	}
	defer hangUp(peers)
	if err := b.seal(ctx, peers, rounds, func(i, _ int) string { return peers[1-i].c.Key().String() }); err != nil {
		return Result{}, err
	}
	var trips []float64
	r, err := b.measured("pingpong", 2*rounds, func() error {
		for range rounds {
			at := time.Now()
			b.release(peers[0], 1)
			select {
			case <-pong:
			case <-time.After(30 * time.Second):
				return fmt.Errorf("no pong")
			}
			trips = append(trips, float64(time.Since(at))/1e6)
		}
		return nil
	})
	b.rates(&r)
	one := r.LatencyMs
	r.Extra = append(r.Extra, Figure{"one way p50", one.P50, "ms"}, Figure{"one way p99", one.P99, "ms"})
	r.LatencyMs = quantiles(trips)
	return r, err
}

// open: messages start at a fixed rate, whatever became of those before.
func (b *bencher) open(ctx context.Context) (Result, error) {
	total := int(float64(b.Rate) * b.OpenFor.Seconds())
	each := total / b.Peers
	b.say("open: %d messages/s for %s from %d peers", b.Rate, b.OpenFor, b.Peers)
	peers, err := b.dial(ctx, b.Peers, func(i int, p *peer, o *client.Options) {
		o.Mailbox = &ledger{Mailbox: client.MemoryMailbox(), accepted: func(id client.ID) {
			if k, ok := b.index[id]; ok {
				b.acked[k].CompareAndSwap(0, time.Now().UnixNano())
			}
		}}
	})
	if err != nil {
		return Result{}, err
	}
	defer hangUp(peers)
	next := func(i, _ int) string { return peers[(i+1+rand.IntN(len(peers)-1))%len(peers)].c.Key().String() }
	if err := b.seal(ctx, peers, each, next); err != nil {
		return Result{}, err
	}
	r, err := b.measured("open", each*b.Peers, func() error {
		began := time.Now()
		for n := range each * b.Peers {
			due := began.Add(time.Duration(n) * time.Second / time.Duration(b.Rate))
			if wait := time.Until(due); wait > 0 {
				select {
				case <-time.After(wait):
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			b.release(peers[n%b.Peers], 1)
		}
		return b.wait(ctx)
	})
	b.rates(&r)
	return r, err
}
