package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/client"
)

// priorities are drawn from: most messages are next.
var priorities = []client.Priority{client.Next, client.Next, client.Now, client.Low}

// load has each of the senders send about rate messages a second in all, every
// tenth of them to three recipients, until ctx ends.
func (c *crowd) load(ctx context.Context, senders, recipients []*peer, rate int) *sync.WaitGroup {
	wg := new(sync.WaitGroup)
	every := time.Second * time.Duration(len(senders)) / time.Duration(rate)
	for _, p := range senders {
		wg.Go(func() {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for n := 0; ; n++ {
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
				i := rand.N(len(recipients))
				to := []*peer{recipients[i]}
				if n%10 == 9 {
					to = append(to, recipients[(i+1)%len(recipients)], recipients[(i+2)%len(recipients)])
				}
				// Send is not cut off by the end of the run: it says what it has done.
				c.send(context.WithoutCancel(ctx), p, fmt.Sprintf("%s/%d", p.name, n), priorities[rand.N(len(priorities))], to...)
			}
		})
	}
	return wg
}

// TestBrokerKilled kills the broker at random moments under load.
func TestBrokerKilled(t *testing.T) {
	kills := pick(10, 500)
	p := newProcess(t)
	c := newCrowd(t)
	var firstAck atomic.Int64 // Unix ns of the first since the last start
	c.lastAck = func() { firstAck.CompareAndSwap(0, time.Now().UnixNano()) }
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	members := mesh(t, p.url, 2)
	senders := c.add(members, 20, true, nil)
	recipients := c.add(members, 50, true, nil)
	began := time.Now()
	load := c.load(ctx, senders, recipients, 200)
	var slowest, total time.Duration
	var silent int
	var duplicates float64
	started := began
	noteLife := func() {
		lived, at := time.Since(started), firstAck.Load()
		took := time.Duration(at - started.UnixNano())
		switch {
		case at == 0 && lived > 2*time.Second:
			t.Errorf("no acknowledgement in the %s after a start", lived)
		case at == 0:
			silent++
		case took > 2*time.Second:
			t.Errorf("the first acknowledgement took %s", took)
		}
		if at != 0 {
			slowest, total = max(slowest, took), total+took
		}
	}
	for range kills {
		time.Sleep(200*time.Millisecond + rand.N(pick[time.Duration](1300, 2800)*time.Millisecond))
		noteLife()
		duplicates += p.metric("claudemesh_messages_duplicate_total")
		p.kill()
		started = time.Now()
		p.start()
		firstAck.Store(0) // what was noted since the kill is what had come before it
	}
	time.Sleep(2500 * time.Millisecond)
	noteLife()
	cancel()
	took := time.Since(began)
	load.Wait()
	f := c.settle(pick(45*time.Second, 5*time.Minute), OfSend)
	duplicates += p.metric("claudemesh_messages_duplicate_total")
	t.Logf("%d kills in %s; %+v, %.0f messages/s; repeats at the broker %.0f; first ack after a start: slowest %s, mean %s, killed before one %d",
		kills, took.Round(time.Second), f, float64(f.Kept)/took.Seconds(), duplicates,
		slowest.Round(time.Millisecond), (total / time.Duration(kills+1-silent)).Round(time.Millisecond), silent)
}
