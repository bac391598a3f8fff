package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// drive makes the load and returns when its last message was delivered. In mode
// pingpong it returns the round trips, in milliseconds.
func (l *load) drive(ctx context.Context) ([]float64, error) {
	switch l.mode {
	case "pingpong":
		return l.pingpong(ctx)
	case "open":
		return nil, l.open(ctx)
	}
	l.storm()
	return nil, l.wait(ctx)
}

// storm lets every peer send; each acknowledgement lets the next message go.
func (l *load) storm() {
	for i := range l.o.peers {
		go func() {
			for range l.o.window {
				l.release(i)
			}
		}()
	}
}

// pingpong: two peers, one message at a time, two hops a round.
func (l *load) pingpong(ctx context.Context) ([]float64, error) {
	var trips []float64
	stall := time.NewTimer(30 * time.Second)
	defer stall.Stop()
	for range l.o.messages {
		at := time.Now()
		stall.Reset(30 * time.Second)
		l.release(0)
		select {
		case <-l.pong:
		case err := <-l.failed:
			return nil, err
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-stall.C:
			return nil, fmt.Errorf("no pong after %d rounds", len(trips))
		}
		trips = append(trips, float64(time.Since(at))/1e6)
	}
	return trips, nil
}

// open: messages start at a fixed rate, whatever became of those before.
func (l *load) open(ctx context.Context) error {
	began := time.Now()
	for n := range len(l.payloads) {
		due := began.Add(time.Duration(n) * time.Second / time.Duration(l.o.rate))
		if wait := time.Until(due); wait > 0 {
			select {
			case <-time.After(wait):
			case err := <-l.failed:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		l.release(n % l.o.peers)
	}
	return l.wait(ctx)
}

// wait waits for the last delivery; a minute without one is a stall.
func (l *load) wait(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	last := l.left.Load()
	for stalls := 0; ; {
		select {
		case <-l.done:
			return nil
		case err := <-l.failed:
			return err
		case <-ctx.Done():
			return fmt.Errorf("%d messages to go: %w", l.left.Load(), ctx.Err())
		case <-tick.C:
			left := l.left.Load()
			if stalls++; left != last {
				stalls = 0
			}
			if last = left; stalls == 12 {
				return fmt.Errorf("stalled with %d messages to go", left)
			}
		}
	}
}

// rates fills in what the times of messages say.
func (l *load) rates(r *result) {
	var first, lastAck, lastGot int64
	var acks, gots []float64
	for i := range l.sent {
		at := l.sent[i].Load()
		if first == 0 || at < first {
			first = at
		}
		if a := l.acked[i].Load(); a > 0 {
			lastAck = max(lastAck, a)
			acks = append(acks, float64(a-at)/1e6)
		}
		if g := l.got[i].Load(); g > 0 {
			lastGot = max(lastGot, g)
			gots = append(gots, float64(g-at)/1e6)
		}
	}
	r.AcceptedPerSecond = perSecond(len(acks), lastAck-first)
	r.DeliveredPerSecond = perSecond(len(gots), lastGot-first)
	r.AckLatencyMs, r.LatencyMs = quantile(acks), quantile(gots)
}

func perSecond(n int, ns int64) float64 {
	if ns <= 0 {
		return 0
	}
	return float64(n) / (float64(ns) / 1e9)
}

func quantile(ms []float64) quantiles {
	if len(ms) == 0 {
		return quantiles{}
	}
	slices.Sort(ms)
	at := func(q float64) float64 { return ms[min(len(ms)-1, int(q*float64(len(ms))))] }
	return quantiles{at(0.50), at(0.95), at(0.99)}
}
