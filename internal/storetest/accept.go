package storetest

import (
	"bytes"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
)

var acceptTests = []test{
	{"Accept", testAccept},
	{"AcceptDurable", testAcceptDurable},
	{"AcceptEdges", testAcceptEdges},
	{"AcceptDuplicate", testAcceptDuplicate},
	{"AcceptIDReused", testAcceptIDReused},
	{"AcceptDuplicateInOneBatch", testDuplicateInBatch},
	{"QueuedOrder", testQueuedOrder},
	{"Usage", testUsage},
	{"LookupAndStatus", testLookupStatus},
}

// sameDelivery holds a queued delivery against the message it came from.
func (w *world) sameDelivery(got broker.Delivery, m *broker.Message, first int64, i int) {
	w.Helper()
	if !bytes.Equal(got.Nonce, m.Nonce) || !bytes.Equal(got.Ciphertext, m.Ciphertext) || !bytes.Equal(got.Wrap, m.Deliveries[i].Wrap) {
		w.Errorf("delivery %d has another content", got.Number)
	}
	got.Nonce, got.Ciphertext, got.Wrap = nil, nil, nil
	w.equal(got, broker.Delivery{Number: first + int64(i), Message: first, Sender: m.Sender, ID: m.ID, Mode: m.Mode, Priority: m.Priority,
		Created: m.Created, Expires: m.Expires})
}

func testAccept(w *world) {
	direct, group := w.message(w.bob), w.message(w.bob, w.alice)
	n1, n2 := w.send(direct), w.send(group)
	if n2 <= n1 {
		w.Errorf("numbers %d, %d do not grow", n1, n2)
	}
	toBob, toAlice := w.queued(w.bob, 10), w.queued(w.alice, 10)
	w.equal([]int{len(toBob), len(toAlice)}, []int{2, 1})
	w.sameDelivery(toBob[0], direct, n1, 0)
	w.sameDelivery(toBob[1], group, n2, 0)
	w.sameDelivery(toAlice[0], group, n2, 1)
	if n3 := w.send(w.message(w.bob)); n3 < n2+2 {
		w.Errorf("number %d after a message with two deliveries from %d", n3, n2)
	}
	m := w.getMesh()
	w.equal(m.Queued, int64(4))
	w.equal(m.QueuedBytes, int64(2*(24+100)+2*(24+100+72)))
}

// A message is on disk when done is called: neither before nor after that.
func testAcceptDurable(w *world) {
	m := w.message(w.bob)
	got := make(chan int64, 1)
	var crashed broker.Store
	w.s.Accept(m, func(a broker.Accepted, err error) {
		if err != nil {
			w.Error(err)
		}
		if _, _, err := w.s.Lookup(w.ctx, m.Sender, m.ID); err != nil {
			w.Errorf("at done, Lookup fails: %v", err)
		}
		crashed = w.reopen()
		got <- a.First
	})
	n := wait(w, got)
	var settledCrash broker.Store
	w.s.Settle([]broker.Settlement{end(m, n, 0)}, func([]bool, error) {
		settledCrash = w.reopen()
		got <- 0
	})
	wait(w, got)
	w.sameNumbers(w.queue(w.bob))
	w.s = settledCrash
	w.sameNumbers(w.queue(w.bob))
	w.recount()
	w.s = crashed
	w.sameNumbers(w.queue(w.bob), n)
	w.sameDelivery(w.queued(w.bob, 1)[0], m, n, 0)
	if next := w.send(w.message(w.bob)); next <= n {
		w.Errorf("number %d was given again, as %d", n, next)
	}
}

func testAcceptEdges(w *world) {
	empty := w.message(w.bob)
	empty.Nonce, empty.Ciphertext = nil, nil
	n := w.send(empty)
	w.sameDelivery(w.queued(w.bob, 1)[0], empty, n, 0)
	w.settle(w.delivered(n, w.bob))

	none := w.message() // every recipient was skipped
	a, err := w.accept(none)
	w.ok(err)
	w.equal(a.Duplicate, false)
	w.equal(len(w.lookup(none)), 0)
	a, err = w.accept(none)
	w.ok(err)
	w.equal(a.Duplicate, true)

	unknown := w.message(w.bob)
	unknown.Mesh = w.id()
	_, err = w.accept(unknown)
	w.fails(err, broker.ErrNotFound)
	for _, change := range []func(m *broker.Message){
		func(m *broker.Message) { m.Mode = "shout" },
		func(m *broker.Message) { m.Priority = "later" },
	} {
		bad := w.message(w.bob)
		change(bad)
		if _, err := w.accept(bad); err == nil {
			w.Errorf("a message of mode %q, priority %q was stored", bad.Mode, bad.Priority)
		}
	}
	for _, mode := range []wire.Mode{wire.ModeDM, wire.ModeGroup, wire.ModeBroadcast, wire.ModeReceipt} {
		for _, p := range wire.Priorities {
			m := w.message(w.bob)
			m.Mode, m.Priority = mode, p
			n := w.send(m)
			w.sameDelivery(w.queued(w.bob, 1)[0], m, n, 0)
			w.settle(w.delivered(n, w.bob))
		}
	}
}

func testAcceptDuplicate(w *world) {
	m := w.message(w.bob, w.alice)
	n := w.send(m)
	again := *m
	again.Deliveries = again.Deliveries[:1] // wraps may shrink on a retry
	repeat := func(want ...broker.Outcome) {
		w.Helper()
		a, err := w.accept(&again)
		w.ok(err)
		w.equal(a, broker.Accepted{Duplicate: true, Outcomes: want})
		w.equal(w.lookup(m), want)
	}
	q0, q1 := w.outcome(m, n, 0, wire.StateQueued, "", t0), w.outcome(m, n, 1, wire.StateQueued, "", t0)
	repeat(q0, q1)
	w.settle(w.delivered(n, w.bob))
	d0 := w.outcome(m, n, 0, wire.StateDelivered, "", t0.Add(time.Second))
	repeat(d0, q1)
	w.settle(w.bounced(n+1, w.alice, wire.CodeBadBox, t0.Add(2*time.Second)))
	repeat(d0, w.outcome(m, n, 1, wire.StateBounced, wire.CodeBadBox, t0.Add(2*time.Second)))
	w.sameNumbers(w.queue(w.bob))
	w.s = w.reopen()
	repeat(d0, w.outcome(m, n, 1, wire.StateBounced, wire.CodeBadBox, t0.Add(2*time.Second)))
}

func testAcceptIDReused(w *world) {
	m := w.message(w.bob)
	n := w.send(m)
	other := *m
	other.Hash[0] ^= 1
	_, err := w.accept(&other)
	w.fails(err, broker.ErrIDReused)
	w.settle(w.delivered(n, w.bob))
	_, err = w.accept(&other) // a tombstone says the same
	w.fails(err, broker.ErrIDReused)
	other.Sender = w.bob // another sender may use the id
	w.send(&other)
}

func testDuplicateInBatch(w *world) {
	const copies = 50
	m := w.message(w.bob)
	other := *m
	other.Hash[0] ^= 1
	got := make(chan acceptResult, 2*copies)
	for range copies {
		w.s.Accept(m, func(a broker.Accepted, err error) { got <- acceptResult{a, err} })
		w.s.Accept(&other, func(a broker.Accepted, err error) { got <- acceptResult{a, err} })
	}
	for i := range copies {
		r := wait(w, got)
		w.ok(r.err)
		w.equal(r.Duplicate, i > 0)
		w.fails(wait(w, got).err, broker.ErrIDReused)
	}
	w.equal(len(w.queue(w.bob)), 1)
}

func testQueuedOrder(w *world) {
	numbers := make(map[wire.Priority][]int64)
	for i := range 9 {
		m := w.message(w.bob)
		m.Priority = wire.Priorities[2-i%3]
		numbers[m.Priority] = append(numbers[m.Priority], w.send(m))
	}
	var want []int64
	for _, p := range wire.Priorities {
		want = append(want, numbers[p]...)
	}
	w.sameNumbers(w.queue(w.bob), want...)
	var first []int64
	for _, d := range w.queued(w.bob, 4) {
		first = append(first, d.Number)
	}
	w.sameNumbers(first, want[:4]...)
	w.equal(len(w.queued(w.bob, 0)), 0)
	w.equal(len(w.queued(999999, 10)), 0)

	// Page by page, each after the place that the last one reached, by rows and by bytes.
	for _, limit := range []struct {
		rows  int
		bytes int64
	}{{2, 1 << 20}, {100, 124}, {100, 125}, {4, 1}, {9, 1 << 20}, {100, 1 << 20}} {
		var got []int64
		var place broker.Place
		for more := true; more; {
			var page []broker.Delivery
			var err error
			page, more, err = w.s.Queued(w.ctx, w.bob, place, limit.rows, limit.bytes)
			w.ok(err)
			if len(page) == 0 || len(page) > limit.rows || more != (len(got)+len(page) < len(want)) {
				w.Fatalf("%v: a page of %d after %d of %d, more: %v", limit, len(page), len(got), len(want), more)
			}
			for _, d := range page {
				got = append(got, d.Number)
				place[d.Priority.Rank()] = d.Number
			}
		}
		w.sameNumbers(got, want...)
	}
}

func testUsage(w *world) {
	a, b := w.message(w.bob), w.message(w.bob, w.alice)
	fromBob := w.message(w.bob)
	fromBob.Sender = w.bob
	w.send(a)
	n := w.send(b)
	w.send(fromBob)
	usage := func() map[broker.PeerID]broker.Usage {
		w.Helper()
		got, err := w.s.Usage(w.ctx, w.bob)
		w.ok(err)
		m := make(map[broker.PeerID]broker.Usage)
		for _, u := range got {
			m[u.Sender] = u
		}
		return m
	}
	w.equal(usage(), map[broker.PeerID]broker.Usage{
		w.alice: {Sender: w.alice, Count: 2, Bytes: 124 + 196}, w.bob: {Sender: w.bob, Count: 1, Bytes: 124}})
	w.settle(w.delivered(n, w.bob))
	w.equal(usage()[w.alice], broker.Usage{Sender: w.alice, Count: 1, Bytes: 124})
}

func testLookupStatus(w *world) {
	bob := w.join("bob")
	stranger := w.session(bob.Key)
	m, other := w.message(w.bob, stranger), w.message(w.bob)
	other.Sender = stranger
	twin := *m // another session of the same member used the same id
	twin.Sender = w.bob
	twin.Hash[0] ^= 1
	n, _, n3 := w.send(m), w.send(other), w.send(&twin)
	_, _, err := w.s.Lookup(w.ctx, w.alice, other.ID)
	w.fails(err, broker.ErrNotFound)
	want := []broker.Outcome{w.outcome(m, n, 0, wire.StateQueued, "", t0), w.outcome(m, n, 1, wire.StateQueued, "", t0)}
	w.equal(w.lookup(m), want)

	status, err := w.s.Status(w.ctx, w.mesh.ID, w.founder.Key, []wire.ID{w.id(), other.ID, m.ID})
	w.ok(err)
	w.equal(status, append(want, w.outcome(&twin, n3, 0, wire.StateQueued, "", t0), w.outcome(&twin, n3, 1, wire.StateQueued, "", t0)))
	mesh, _ := w.newMesh()
	status, err = w.s.Status(w.ctx, mesh.ID, w.founder.Key, []wire.ID{m.ID})
	w.ok(err)
	w.equal(len(status), 0)
}
