package main

import (
	"context"
	"fmt"
	"time"
)

// backlog fills the queue of a peer that is away, then lets it come back. The
// rate is that of the queue's messages from dialling to the last of them.
func (l *load) backlog(ctx context.Context, t target) (result, error) {
	// It was there once, so that its queue exists.
	nothing := func([]byte) {}
	away, err := t.dial(ctx, senders, l.addresses, handlers{nothing, nothing, func(error) {}})
	if err != nil {
		return result{}, fmt.Errorf("dial: %w", err)
	}
	away.close()
	if err := l.dial(ctx, t); err != nil {
		return result{}, fmt.Errorf("dial: %w", err)
	}
	l.storm()
	select {
	case <-l.taken:
	case err := <-l.failed:
		return result{}, err
	case <-ctx.Done():
		return result{}, fmt.Errorf("%d messages are not accepted: %w", l.unacked.Load(), ctx.Err())
	}
	full, most, began := used(t.pid()), watchRSS(t.pid()), time.Now()
	l.clients[senders], err = t.dial(ctx, senders, l.addresses, handlers{nothing, func(p []byte) { l.noteGot(senders, p) }, l.fail})
	if err == nil {
		err = l.wait(ctx)
	}
	took, after, peak := time.Since(began), used(t.pid()), most()
	if err != nil {
		return result{}, err
	}
	n := len(l.payloads)
	r := result{
		Mode: l.mode, Peers: 1, Messages: n, Seconds: took.Seconds(), BrokerPeakRSS: after.peak,
		BrokerCPUMicros: float64((after.cpu - full.cpu).Microseconds()) / float64(n),
	}
	l.rates(&r)
	r.LatencyMs = quantiles{} // they lay there
	first, last := l.got[0].Load(), int64(0)
	for i := range l.got {
		at := l.got[i].Load()
		first, last = min(first, at), max(last, at)
	}
	r.DeliveredPerSecond = perSecond(n, last-began.UnixNano())
	r.Extra = []extra{
		{firstAfterDial, float64(first-began.UnixNano()) / 1e6, "ms"},
		{"resident memory when full", float64(full.rss) / (1 << 20), "MiB"},
		{drainRise, float64(max(0, peak-full.rss)) / (1 << 20), "MiB"},
	}
	return r, nil
}
