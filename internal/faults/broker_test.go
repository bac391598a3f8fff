package faults

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/internal/clustertest"
)

// TestBrokerKilled kills the broker at random moments under load.
func TestBrokerKilled(t *testing.T) {
	kills := clustertest.Pick(10, 500)
	p := clustertest.NewProcess(t)
	c := clustertest.NewCrowd(t)
	var firstAck atomic.Int64 // Unix ns of the first since the last start
	c.LastAck = func() { firstAck.CompareAndSwap(0, time.Now().UnixNano()) }
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	members := clustertest.Found(t, p.URL, 2)
	senders := c.Add(members, 20, true, nil)
	recipients := c.Add(members, 50, true, nil)
	began := time.Now()
	load := c.Load(ctx, senders, recipients, 200)
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
		time.Sleep(200*time.Millisecond + rand.N(clustertest.Pick[time.Duration](1300, 2800)*time.Millisecond))
		noteLife()
		duplicates += p.Metric("claudemesh_messages_duplicate_total")
		p.Kill()
		started = time.Now()
		p.Start()
		firstAck.Store(0) // what was noted since the kill is what had come before it
	}
	time.Sleep(2500 * time.Millisecond)
	noteLife()
	cancel()
	took := time.Since(began)
	load.Wait()
	f := c.Settle(clustertest.Pick(45*time.Second, 5*time.Minute), clustertest.OfSend)
	duplicates += p.Metric("claudemesh_messages_duplicate_total")
	t.Logf("%d kills in %s; %+v, %.0f messages/s; repeats at the broker %.0f; first ack after a start: slowest %s, mean %s, killed before one %d",
		kills, took.Round(time.Second), f, float64(f.Kept)/took.Seconds(), duplicates,
		slowest.Round(time.Millisecond), (total / time.Duration(kills+1-silent)).Round(time.Millisecond), silent)
}
