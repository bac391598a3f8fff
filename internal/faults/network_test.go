package faults

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/internal/clustertest"
)

// TestCuts has the network fail in every way it can under load.
func TestCuts(t *testing.T) {
	clustertest.Aside(t)
	rounds := clustertest.Pick(8, 120)
	// The broker notices a silent peer soon: a stall outlives it now and then.
	b := clustertest.NewProcess(t, "--ping-every=500ms", "--gone-after=1500ms", "--write-timeout=1s", "--lease=3s")
	px := clustertest.NewProxy(t, b.URL)
	members := clustertest.Found(t, b.URL, 3)
	for i := range members {
		members[i].Broker = px.URL
	}
	c := clustertest.NewCrowd(t)
	senders := c.Add(members, 5, true, nil)
	recipients := c.Add(members, 10, true, nil)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	wg := c.Load(ctx, senders, recipients, 100)
	faults := []struct {
		name string
		do   func()
	}{
		{"cut", px.Cut},
		{"stall", func() {
			px.Set(func() { px.Stalled = true })
			time.Sleep(700 * time.Millisecond)
			px.Set(func() { px.Stalled = false })
		}},
		{"half open, given up by the broker, then cut", func() {
			px.Set(func() { px.Stalled = true })
			time.Sleep(clustertest.Pick[time.Duration](2000, 30_000) * time.Millisecond)
			px.Cut()
			px.Set(func() { px.Stalled = false })
		}},
		{"trickle, then cut within a frame", func() {
			px.Set(func() { px.Slow = true })
			time.Sleep(700 * time.Millisecond)
			px.Cut()
			px.Set(func() { px.Slow = false })
		}},
	}
	for n := range rounds {
		time.Sleep(200*time.Millisecond + rand.N(600*time.Millisecond))
		faults[n%len(faults)].do()
	}
	time.Sleep(500 * time.Millisecond)
	cancel()
	wg.Wait()
	f := c.Settle(clustertest.Pick(45*time.Second, 5*time.Minute), clustertest.OfSend)
	t.Logf("%d faults; %+v; repeats at the broker %.0f, pushes %.0f", rounds, f,
		b.Metric("claudemesh_messages_duplicate_total"), b.Metric("claudemesh_deliveries_pushed_total"))
}
