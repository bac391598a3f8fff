package mailbox_test

import (
	"errors"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/wire"
)

var toBob = mailbox.Query{Recipients: []wire.Key{bob}}

func TestReceiveOnce(t *testing.T) {
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		m := in(1)
		m.ReplyTo, m.Seq, m.Text = id(50), 1<<63+5, "nul \x00 ü"
		batch := []mailbox.Incoming{m, in(2), m}
		equal(t, say(receive(t, b, batch...)), "[true true false]")
		equal(t, say(batch[0].Number, batch[1].Number, batch[2].Number), "1 2 0")
		equal(t, say(receive(t, b, in(2), in(3))), "[false true]")
		elsewhere := in(1)
		elsewhere.Recipient = carol // another recipient, the same id
		equal(t, say(receive(t, b, elsewhere)), "[true]")
		got, err := b.Message(ctx, id(1), []wire.Key{bob})
		check(t, err)
		m.Number, m.Urgency = 1, m.Priority
		if !reflect.DeepEqual(got, m) {
			t.Fatalf("got\n%+v, want\n%+v", got, m)
		}
		_, err = b.Message(ctx, id(3), []wire.Key{carol})
		equal(t, errors.Is(err, mailbox.ErrNotFound), true)
		bad := in(4)
		bad.Priority = "soon"
		fresh, errs, err := b.Receive(ctx, []mailbox.Incoming{bad, in(5)})
		equal(t, say(fresh, errs[0] != nil, errs[1], err), "[false true] true <nil> <nil>")
		receipt := in(6)
		receipt.Mode = wire.ModeReceipt
		equal(t, say(receive(t, b, receipt, receipt)), "[true false]")
		msgs, more, err := b.List(ctx, toBob)
		equal(t, say(idsOf(msgs), more, err), "[1 2 3 5] 0 <nil>") // a receipt is not a message
	})
}

func TestReplaces(t *testing.T) {
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		again := func(n, old int) mailbox.Incoming {
			m := in(n)
			m.Recipient, m.SenderSession, m.Replaces = carol, key(77), id(old)
			return m
		}
		equal(t, say(receive(t, b, in(1), again(2, 1))), "[true false]") // the first came
		equal(t, say(receive(t, b, again(4, 3), in(3), again(5, 3))), "[true false false]")
		liar := in(10)
		liar.SenderMember, liar.SenderSession = key(66), key(67)
		equal(t, say(receive(t, b, liar, again(11, 10))), "[true true]") // ids of others do not count
	})
}

func TestReplayFloor(t *testing.T) {
	day := (24 * time.Hour).Milliseconds()
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		at := func(n int, expires int64) mailbox.Incoming { m := in(n); m.Expires = expires; return m }
		receive(t, b, at(1, 1000), at(2, 2000), at(3, 3000))
		try := func(m mailbox.Incoming) string {
			fresh, errs, err := b.Receive(ctx, []mailbox.Incoming{m, in(100)})
			check(t, err)
			return say(fresh[0], errors.Is(errs[0], mailbox.ErrReplayed), errs[1])
		}
		const seen, replayed, fresh = "false false <nil>", "false true <nil>", "true false <nil>"
		check(t, b.Prune(ctx, 365*24*time.Hour, 2500+day, 0)) // the server's clock is not there yet
		equal(t, try(at(1, 1000)), seen)
		check(t, b.Prune(ctx, 365*24*time.Hour, 0, 2500+day))
		equal(t, try(at(2, 2000)), seen)
		equal(t, try(at(4, 900)), fresh)
		check(t, b.Prune(ctx, 365*24*time.Hour, 2500+day, 2001+day))
		equal(t, try(at(1, 1000)), replayed)
		equal(t, try(at(2, 2000)), replayed)
		equal(t, try(at(5, 2000)), replayed)
		equal(t, try(at(3, 3000)), seen)
		equal(t, try(at(6, 2001)), fresh)
		other := at(1, 1000)
		other.Mesh = mesh2
		equal(t, try(other), fresh) // a floor is one mesh's
		check(t, b.Prune(ctx, 0, 3001+day, 3001+day))
		equal(t, try(at(7, 3000)), replayed)
		equal(t, try(at(7, 3001)), fresh)
	})
}

func TestListAndTake(t *testing.T) {
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		prio := func(n int, p wire.Priority) mailbox.Incoming { m := in(n); m.Priority, m.Own = p, true; return m }
		reply, foreign, mine := prio(5, wire.PriorityNext), prio(6, wire.PriorityNow), prio(7, wire.PriorityNow)
		reply.ReplyTo, reply.SenderMember, reply.SenderSession = id(1), key(70), key(71)
		foreign.Mesh, mine.Recipient = mesh2, carol
		receive(t, b, prio(1, wire.PriorityLow), prio(2, wire.PriorityNext), prio(3, wire.PriorityNow), prio(4, wire.PriorityNow), reply, foreign, mine)
		ok, err := b.MarkOffered(ctx, 4, 9)
		equal(t, say(ok, err), "true <nil>")
		ok, err = b.MarkOffered(ctx, 4, 10)
		equal(t, say(ok, err), "false <nil>")
		ok, err = b.MarkOffered(ctx, 999, 10)
		equal(t, say(ok, err), "false <nil>")
		list := func(change func(*mailbox.Query)) string {
			q := toBob
			change(&q)
			msgs, more, err := b.List(ctx, q)
			check(t, err)
			return say(idsOf(msgs), more)
		}
		equal(t, list(func(q *mailbox.Query) {}), "[3 4 6 2 5 1] 0")
		equal(t, list(func(q *mailbox.Query) { q.Limit = 2 }), "[3 4] 4")
		equal(t, list(func(q *mailbox.Query) { q.Mesh = mesh }), "[3 4 2 5 1] 0")
		equal(t, list(func(q *mailbox.Query) { q.From = key(70) }), "[5] 0")
		equal(t, list(func(q *mailbox.Query) { q.From = key(71) }), "[5] 0")
		equal(t, list(func(q *mailbox.Query) { q.ReplyTo = id(1) }), "[5] 0")
		equal(t, list(func(q *mailbox.Query) { q.Unoffered = true }), "[3 6 2 5 1] 0")
		equal(t, list(func(q *mailbox.Query) { q.Recipients = []wire.Key{carol, bob, carol} }), "[3 4 6 7 2 5 1] 0")
		_, _, err = b.List(ctx, mailbox.Query{})
		equal(t, err != nil, true)
		ok, err = b.MarkRead(ctx, 3, carol, 20)
		equal(t, say(ok, err), "true <nil>")
		ok, err = b.MarkOffered(ctx, 3, 21) // a call showed it meanwhile
		equal(t, say(ok, err), "false <nil>")
		ok, err = b.MarkRead(ctx, 3, bob, 21)
		equal(t, say(ok, err), "false <nil>")
		msgs, more, err := b.Take(ctx, mailbox.Query{Recipients: toBob.Recipients, Limit: 2, Read: true}, bob, 22)
		equal(t, say(idsOf(msgs), more, err), "[4 6] 3 <nil>")
		equal(t, say(msgs[0].ReadAt, msgs[0].Reader == bob, msgs[0].Offered), "22 true 9")
		equal(t, list(func(q *mailbox.Query) {}), "[2 5 1] 0")
		equal(t, list(func(q *mailbox.Query) { q.Read, q.Limit = true, 4 }), "[6 5 4 3] 2")
		_, _, err = b.Take(ctx, toBob, bob, 0)
		equal(t, err != nil, true)
		m, err := b.Message(ctx, id(3), toBob.Recipients)
		equal(t, say(m.ReadAt, m.Reader == carol, err), "20 true <nil>")
	})
}

func TestReceipts(t *testing.T) {
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		other := in(4)
		other.Mesh = mesh2
		receive(t, b, in(1), in(2), in(3), other)
		_, _ = b.MarkRead(ctx, 2, bob, 5)
		_, _ = b.MarkRead(ctx, 1, bob, 6)
		_, _ = b.MarkRead(ctx, 3, carol, 6)
		_, _ = b.MarkRead(ctx, 4, bob, 6)
		owed := func(m wire.ID, reader wire.Key, limit int) string {
			msgs, err := b.Unreceipted(ctx, m, reader, limit)
			check(t, err)
			return idsOf(msgs)
		}
		equal(t, owed(mesh, bob, 0), "[1 2]")
		equal(t, owed(mesh, bob, 1), "[1]")
		equal(t, owed(mesh, carol, 0), "[3]")
		equal(t, owed(mesh, wire.Key{}, 0), "[1 2 3]")
		check(t, b.Receipted(ctx, []int64{1, 1, 999}))
		equal(t, owed(mesh, bob, 0), "[2]")
		equal(t, owed(mesh2, bob, 0), "[4]")
		check(t, b.Prune(ctx, 0, 6, 0)) // read before 6
		equal(t, owed(mesh, bob, 0), "[]")
		msgs, _, _ := b.List(ctx, mailbox.Query{Recipients: toBob.Recipients, Read: true})
		equal(t, idsOf(msgs), "[4 3 1]")
		equal(t, say(receive(t, b, in(2))), "[false]") // forgotten, and still seen
	})
}

func TestMissing(t *testing.T) {
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		n := 0
		seq := func(s uint64, at int64, name string, to wire.Key) {
			n++
			m := in(n)
			m.Seq, m.Received, m.SenderName, m.Recipient = s, at, name, to
			receive(t, b, m)
		}
		missing := func(at int64, to ...wire.Key) string {
			gaps, err := b.Missing(ctx, to, at)
			check(t, err)
			s := ""
			for _, g := range gaps {
				equal(t, g.Mesh == mesh && g.SenderSession == alice, true)
				s += say(g.SenderName, g.Count)
			}
			return s
		}
		seq(5, 10, "a", bob) // the first sets the start
		equal(t, missing(99, bob), "")
		seq(0, 10, "a", bob) // no number
		seq(6, 11, "a", bob)
		seq(10, 20, "b", bob) // 7 8 9
		seq(12, 30, "c", bob) // 11
		seq(1, 30, "c", carol)
		seq(3, 40, "d", carol)
		equal(t, missing(19, bob), "")
		equal(t, missing(20, bob), "c 3")
		equal(t, missing(99, bob), "c 4")
		equal(t, missing(99, bob, carol), "d 5")
		equal(t, missing(99), "")
		seq(8, 50, "c", bob)
		equal(t, missing(20, bob), "c 2") // as noticed first
		seq(7, 50, "c", bob)
		seq(9, 50, "c", bob)
		seq(2, 50, "c", bob) // before the start
		equal(t, missing(99, bob), "c 1")
		check(t, b.Prune(ctx, time.Hour, 31+(31*24*time.Hour).Milliseconds(), 0))
		equal(t, missing(99, bob), "")
		equal(t, missing(99, carol), "d 1")
	})
}

func TestTakeGivesToOne(t *testing.T) {
	forEach(t, func(t *testing.T, b mailbox.Mailbox) { takeOnce(t, b) })
}

// takeOnce has 16 takers share what is received, over all handles.
func takeOnce(t *testing.T, handles ...mailbox.Mailbox) {
	const messages = 60
	var batch []mailbox.Incoming
	for n := range messages {
		batch = append(batch, in(n+1))
	}
	receive(t, handles[0], batch...)
	var taken [messages + 1]atomic.Int32
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			b, q := handles[i%len(handles)], toBob
			q.Limit = 3
			for {
				msgs, _, err := b.Take(ctx, q, key(100+i), 5)
				if err != nil {
					t.Error(err)
				}
				if len(msgs) == 0 {
					return
				}
				for _, m := range msgs {
					taken[m.Number].Add(1)
				}
			}
		})
	}
	wg.Wait()
	for n := 1; n <= messages; n++ {
		equal(t, taken[n].Load(), 1)
	}
}
