package storetest

import (
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
)

var settleTests = []test{
	{"Settle", testSettle},
	{"SettleLeavesAlone", testSettleAlone},
	{"SettleInOrderWithAccept", testSettleOrder},
	{"Retry", testRetry},
}

var endTests = []test{
	{"Expire", testExpire},
	{"ExpireLimit", testExpireLimit},
	{"ExpireLateArrival", testExpireLate},
	{"ExpireManyTombstones", testExpireMany},
	{"Prune", testPrune},
	{"PruneKeepsNumbers", testPruneNumbers},
}

func testSettle(w *world) {
	m := w.message(w.bob, w.alice)
	n := w.send(m)
	w.equal(w.settle(w.delivered(n, w.bob)), []bool{true})
	w.sameNumbers(w.queue(w.bob))
	left := w.queued(w.alice, 1) // still has its body
	w.sameDelivery(left[0], m, n, 1)
	bounce := w.bounced(n+1, w.alice, wire.CodeUndeliverable, t0.Add(time.Second))
	w.equal(w.settle(bounce), []bool{true})
	w.equal(w.lookup(m), []broker.Outcome{
		w.outcome(m, n, 0, wire.StateDelivered, "", t0.Add(time.Second)),
		w.outcome(m, n, 1, wire.StateBounced, wire.CodeUndeliverable, t0.Add(time.Second))})
	w.equal(w.getMesh().Queued, int64(0))
}

func testSettleAlone(w *world) {
	n, other := w.send(w.message(w.bob)), w.send(w.message(w.bob))
	bounce := w.bounced(n, w.bob, wire.CodeExpired, t0.Add(time.Hour))
	w.equal(w.settle(), []bool{})
	w.equal(w.settle(w.delivered(n, w.alice), w.delivered(999999, w.bob), w.delivered(n, w.bob), w.delivered(n, w.bob), bounce),
		[]bool{false, false, true, false, false})
	w.equal(w.settle(bounce, w.delivered(other, w.bob)), []bool{false, true})
	w.equal(w.getMesh().Queued, int64(0))
}

func testSettleOrder(w *world) {
	first := w.send(w.message(w.bob))
	var order []int
	settled := make(chan []bool, 1)
	m := w.message(w.bob)
	w.s.Accept(m, func(broker.Accepted, error) { order = append(order, 1) })
	w.s.Settle([]broker.Settlement{end(m, first+1, 0)}, func(s []bool, _ error) {
		order = append(order, 2)
		settled <- s
	})
	w.equal(wait(w, settled), []bool{true})
	w.equal(order, []int{1, 2})
	w.sameNumbers(w.queue(w.bob), first)
}

func testRetry(w *world) {
	n := w.send(w.message(w.bob, w.alice))
	retry := func(want []int, numbers ...int64) {
		w.Helper()
		got, err := w.s.Retry(w.ctx, numbers)
		w.ok(err)
		w.equal(got, want)
	}
	retry([]int{1, 1}, n, n+1)
	retry([]int{2}, n)
	w.equal(w.queued(w.bob, 1)[0].Attempts, 2)
	w.equal(w.queued(w.alice, 1)[0].Attempts, 1)
	w.settle(w.delivered(n, w.bob))
	retry([]int{0, 2, 0}, n, n+1, 999999) // what is not queued is not retried
}

func (w *world) expire(now time.Time, limit int) []broker.Outcome {
	w.Helper()
	out, err := w.s.Expire(w.ctx, now, limit)
	w.ok(err)
	return out
}

func testExpire(w *world) {
	soon, later := w.message(w.bob, w.alice), w.message(w.bob)
	later.Expires = t0.Add(2 * time.Hour)
	n1, n2 := w.send(soon), w.send(later)
	w.settle(w.delivered(n1+1, w.alice))
	w.equal(len(w.expire(soon.Expires.Add(-time.Millisecond), 10)), 0)
	out := w.expire(soon.Expires, 10) // at or before
	want := w.outcome(soon, n1, 0, wire.StateBounced, wire.CodeExpired, soon.Expires)
	w.equal(out, []broker.Outcome{want})
	w.equal(len(w.expire(soon.Expires, 10)), 0)
	w.equal(w.lookup(soon)[0], want)
	w.sameNumbers(w.queue(w.bob), n2)
	w.equal(w.settle(w.delivered(n1, w.bob)), []bool{false})
	w.s = w.reopen()
	w.equal(len(w.expire(soon.Expires, 10)), 0)
	w.equal(len(w.expire(t0.Add(1000*time.Hour), 10)), 1) // it expired while no broker ran
}

func testExpireLimit(w *world) {
	n := w.send(w.message(w.bob, w.alice, w.bob))
	w.send(w.message(w.bob))
	var got []int64
	for range 5 {
		for _, o := range w.expire(t0.Add(time.Hour), 1) {
			got = append(got, o.Delivery)
		}
	}
	w.sameNumbers(got, n, n+1, n+2, n+3)
	w.equal(len(w.expire(t0.Add(time.Hour), 0)), 0)
}

// A message may come in that expired before others which are done with.
func testExpireLate(w *world) {
	w.send(w.message(w.bob))
	w.equal(len(w.expire(t0.Add(3*time.Hour), 10)), 1)
	for _, at := range []time.Duration{time.Hour, 30 * time.Minute, 2 * time.Hour} {
		m := w.message(w.bob)
		m.Expires = t0.Add(at)
		n := w.send(m)
		out := w.expire(t0.Add(3*time.Hour), 10)
		w.equal(out, []broker.Outcome{w.outcome(m, n, 0, wire.StateBounced, wire.CodeExpired, t0.Add(3*time.Hour))})
	}
}

// Tombstones in the way hide nothing.
func testExpireMany(w *world) {
	const many = 2500
	done := make(chan broker.Settlement, many)
	for range many {
		m := w.message(w.bob)
		w.s.Accept(m, func(a broker.Accepted, err error) {
			if err != nil {
				w.Error(err)
			}
			done <- end(m, a.First, 0)
		})
	}
	ends := make([]broker.Settlement, many)
	for i := range ends {
		ends[i] = wait(w, done)
	}
	w.settle(ends...)
	n := w.send(w.message(w.bob))
	out := w.expire(t0.Add(time.Hour), 10)
	w.equal(len(out), 1)
	w.equal(out[0].Delivery, n)
}

func testPrune(w *world) {
	prune := func(before time.Time, limit, want int) {
		w.Helper()
		got, err := w.s.Prune(w.ctx, before, limit)
		w.ok(err)
		w.equal(got, want)
	}
	a, b, half, live := w.message(w.bob), w.message(w.bob), w.message(w.bob, w.alice), w.message(w.bob)
	live.Expires = t0.Add(5 * time.Hour)
	for _, m := range []*broker.Message{a, b, half, live} {
		n := w.send(m)
		w.settle(w.delivered(n, w.bob))
	}
	prune(a.Expires, 10, 0) // expired before, not at
	prune(a.Expires.Add(1*time.Millisecond), 1, 1)
	prune(a.Expires.Add(1*time.Millisecond), 10, 1)
	prune(a.Expires.Add(1*time.Millisecond), 10, 0) // half is no tombstone yet
	for m, want := range map[*broker.Message]error{a: broker.ErrNotFound, b: broker.ErrNotFound, half: nil, live: nil} {
		_, _, err := w.s.Lookup(w.ctx, m.Sender, m.ID)
		w.fails(err, want)
	}
	w.equal(len(w.queue(w.alice)), 1)
	w.equal(len(w.expire(a.Expires, 10)), 1)
	prune(a.Expires.Add(time.Millisecond), 10, 1)
	w.send(a) // its id is free again
}

// A number is never given twice: an old ack may still name it.
func testPruneNumbers(w *world) {
	n := w.send(w.message(w.bob, w.alice))
	w.settle(w.delivered(n, w.bob), w.delivered(n+1, w.alice))
	pruned, err := w.s.Prune(w.ctx, t0.Add(48*time.Hour), 10)
	w.ok(err)
	w.equal(pruned, 1)
	w.s = w.reopen()
	if next := w.send(w.message(w.bob)); next <= n+1 {
		w.Errorf("number %d after %d was pruned", next, n+1)
	}
}
