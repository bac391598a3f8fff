package broker_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// TestPutOffIsNotOvertaken: what comes behind a message that was refused for now,
// and may have been on its way already, is refused as well until that one has come again.
func TestPutOffIsNotOvertaken(t *testing.T) {
	t.Parallel()
	var disk atomic.Int64
	w := newWorld(t, func(c *broker.Config) {
		c.Limits.QueueMessages = 24 // a quarter for each sender
		c.DiskUsage = func() (int, error) { return int(disk.Load()), nil }
	})
	bob := w.join(trust.RoleMember, "bob")
	a, away, other := w.founder.session(), bob.session(), bob.session()
	away.end()
	now := func(s *wire.Send) { s.Priority = wire.PriorityNow }
	a.sends(6, away.pub())
	first := a.dm(away.pub())
	a.refused(first, wire.CodeQueueFull)
	away = bob.again(away)
	for range 6 {
		away.ackPush(want[*wire.Push](away))
		want[*wire.Receipt](a)
	} // there is room now
	behind := a.dm(away.pub())
	a.refused(behind, wire.CodeQueueFull)
	if ack := ask[*wire.Ack](a, a.group(away.pub(), other.pub())); len(ack.Skipped) != 1 || ack.Skipped[0].Key != away.pub() {
		t.Errorf("a group message passes: %+v", ack)
	}
	ask[*wire.Ack](a, a.dm(other.pub()))     // another recipient
	ask[*wire.Ack](a, a.dm(away.pub(), now)) // another priority
	ask[*wire.Ack](a, first)
	ask[*wire.Ack](a, behind)
	for _, id := range []wire.ID{first.ID, behind.ID} {
		p := want(away, func(p *wire.Push) bool { return p.Priority == wire.PriorityNext })
		if p.ID != id {
			t.Error("out of order")
		}
		away.ackPush(p)
	}

	disk.Store(99)
	w.tick()
	first = a.dm(other.pub())
	a.refused(first, wire.CodeStorageFull)
	disk.Store(0)
	w.tick()
	behind = a.dm(away.pub())
	a.refused(behind, wire.CodeStorageFull) // any recipient: it was not the queue
	ask[*wire.Ack](a, first)
	last := a.dm(away.pub())
	a.refused(last, wire.CodeStorageFull) // it is behind the second
	ask[*wire.Ack](a, behind)
	ask[*wire.Ack](a, last)

	disk.Store(99)
	w.tick()
	a.refused(a.dm(other.pub()), wire.CodeStorageFull) // and is never heard of again
	disk.Store(0)
	w.Advance(2 * time.Minute)
	w.tick()
	ask[*wire.Ack](a, a.dm(away.pub()))
}
