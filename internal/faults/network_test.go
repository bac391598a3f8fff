package faults

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"
)

// TestCuts has the network fail in every way it can under load.
func TestCuts(t *testing.T) {
	aside(t)
	rounds := pick(8, 120)
	// The broker notices a silent peer soon: a stall outlives it now and then.
	b := newProcess(t, "--ping-every=500ms", "--gone-after=1500ms", "--write-timeout=1s", "--lease=3s")
	px := newProxy(t, b.url)
	members := mesh(t, b.url, 3)
	for i := range members {
		members[i].Broker = px.url
	}
	c := newCrowd(t)
	senders := c.add(members, 5, true, nil)
	recipients := c.add(members, 10, true, nil)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	wg := c.load(ctx, senders, recipients, 100)
	faults := []struct {
		name string
		do   func()
	}{
		{"cut", px.cut},
		{"stall", func() {
			px.set(func() { px.stalled = true })
			time.Sleep(700 * time.Millisecond)
			px.set(func() { px.stalled = false })
		}},
		{"half open, given up by the broker, then cut", func() {
			px.set(func() { px.stalled = true })
			time.Sleep(pick[time.Duration](2000, 30_000) * time.Millisecond)
			px.cut()
			px.set(func() { px.stalled = false })
		}},
		{"trickle, then cut within a frame", func() {
			px.set(func() { px.slow = true })
			time.Sleep(700 * time.Millisecond)
			px.cut()
			px.set(func() { px.slow = false })
		}},
	}
	for n := range rounds {
		time.Sleep(200*time.Millisecond + rand.N(600*time.Millisecond))
		faults[n%len(faults)].do()
	}
	time.Sleep(500 * time.Millisecond)
	cancel()
	wg.Wait()
	f := c.settle(pick(45*time.Second, 5*time.Minute), OfSend)
	t.Logf("%d faults; %+v; repeats at the broker %.0f, pushes %.0f", rounds, f,
		b.metric("claudemesh_messages_duplicate_total"), b.metric("claudemesh_deliveries_pushed_total"))
}
