package faults

import (
	"context"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/client"
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

// TestReconnects cuts many peers off at once, and looks at how they come back.
func TestReconnects(t *testing.T) {
	aside(t)
	n := pick(200, 1000)
	b := newProcess(t)
	px := newProxy(t, b.url)
	members := mesh(t, b.url, 2)
	for i := range members {
		members[i].Broker = px.url
	}
	c := newCrowd(t)
	c.add(members, n, false, nil)
	back := func(name string, outage, floor time.Duration) {
		cut := time.Now()
		px.set(func() { px.refuse = outage > 0 })
		px.cut()
		time.Sleep(outage)
		px.set(func() { px.refuse = false })
		open := time.Now()
		var since []time.Duration
		eventually(t, 75*time.Second, "all are back", func() bool {
			since = since[:0]
			for _, p := range c.peers {
				if s := p.c.State(); s.Online && s.Since.After(cut) {
					since = append(since, s.Since.Sub(open))
				}
			}
			return len(since) == n
		})
		slices.Sort(since)
		if len(since) < n {
			return
		}
		spread := since[n*95/100] - since[n*5/100]
		t.Logf("%s: %d peers come back %s to %s after it, the middle 90 %% within %s", name, n,
			since[0].Round(time.Millisecond), since[n-1].Round(time.Millisecond), spread.Round(time.Millisecond))
		if spread < floor {
			t.Errorf("%s: they come back within %s; want %s or more", name, spread, floor)
		}
	}
	back("a cut", 0, 500*time.Millisecond)
	back("an outage", pick(time.Second, 30*time.Second), pick(time.Second, 8*time.Second))
	http.DefaultClient.CloseIdleConnections()
	c.send(context.Background(), c.peers[0], "p0/after", client.Next, c.peers[1])
	c.settle(20*time.Second, OfSend)
}
