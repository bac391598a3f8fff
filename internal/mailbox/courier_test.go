package mailbox_test

import (
	"errors"
	"os"
	"testing"

	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/process"
	"github.com/claudemesh/claudemesh/internal/wire"
)

func held(holder string, now int64) mailbox.Query {
	q := toBob
	q.Holder, q.Now = holder, now
	return q
}

func TestLease(t *testing.T) {
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		receive(t, b, in(1), in(2), in(3))
		lease := func(holder string, now, until int64, limit int) string {
			q := held(holder, now)
			q.Limit = limit
			msgs, more, err := b.Lease(ctx, q, until)
			return say(idsOf(msgs), more, err)
		}
		equal(t, lease("7/mod/a", 100, 200, 2), "[1 2] 1 <nil>")
		equal(t, lease("7/rewake/b", 150, 250, 0), "[3] 0 <nil>")
		equal(t, lease("7/mod/a", 150, 300, 0), "[1 2] 0 <nil>") // its own, renewed
		equal(t, lease("7/hooks/c", 250, 400, 0), "[3] 0 <nil>") // b's has run out
		check(t, b.Renew(ctx, "7/mod/a", 350))
		equal(t, lease("7/hooks/c", 320, 400, 0), "[3] 0 <nil>")
		check(t, b.Renew(ctx, "7/rewake/b", 900)) // it holds nothing any more
		list := func(q mailbox.Query) string { msgs, _, err := b.List(ctx, q); return say(idsOf(msgs), err) }
		equal(t, list(toBob), "[1 2 3] <nil>")
		equal(t, list(held("", 260)), "[] <nil>")
		equal(t, list(held("7/mod/a", 260)), "[1 2] <nil>")
		msgs, _, err := b.Take(ctx, held("", 260), bob, 5)
		equal(t, say(idsOf(msgs), err), "[] <nil>")

		check(t, b.Release(ctx, "7/mod/a", []int64{1, 3})) // 3 is not its own
		equal(t, list(held("", 260)), "[1] <nil>")
		marked, err := b.MarkShown(ctx, "7/mod/a", []mailbox.Showing{{1, bob, 9}, {2, bob, 9}, {3, bob, 9}, {99, bob, 9}})
		equal(t, say(marked, err), "[2] <nil>")
		marked, err = b.MarkShown(ctx, "7/mod/a", []mailbox.Showing{{2, bob, 9}})
		equal(t, say(marked, err), "[] <nil>")
		owed, err := b.Unreceipted(ctx, mesh, bob, 0)
		equal(t, say(idsOf(owed), err), "[2] <nil>")
		marked, err = b.MarkShown(ctx, "7/hooks/c", []mailbox.Showing{{3, carol, 500}}) // its lease ran out, nobody took it
		equal(t, say(marked, err), "[3] <nil>")
		check(t, b.Release(ctx, "7/mod/a", nil))
		equal(t, list(held("", 260)), "[1] <nil>")

		for _, bad := range []mailbox.Query{{}, held("", 1), held("x", 0), held("x", 10)} {
			_, _, err := b.Lease(ctx, bad, 10)
			equal(t, err != nil, true)
		}
		_, err = b.MarkShown(ctx, "x", []mailbox.Showing{{1, bob, 0}})
		equal(t, err != nil, true)
	})
}

func TestQueryOfCouriers(t *testing.T) {
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		low, now, reply, far := in(1), in(2), in(3), in(4)
		low.Priority, now.Priority, far.Priority = wire.PriorityLow, wire.PriorityNow, wire.PriorityNow
		reply.ReplyTo, far.Mesh = id(50), mesh2
		now.Own, far.Own = true, true
		receive(t, b, low, now, reply, far)
		list := func(change func(*mailbox.Query)) string {
			q := toBob
			change(&q)
			msgs, _, err := b.List(ctx, q)
			return say(idsOf(msgs), err)
		}
		equal(t, list(func(q *mailbox.Query) { q.AtLeast = wire.PriorityNext }), "[2 4 3] <nil>")
		equal(t, list(func(q *mailbox.Query) { q.AtLeast = wire.PriorityNow }), "[2 4] <nil>")
		equal(t, list(func(q *mailbox.Query) { q.AtLeast = "soon" }), "[] <nil>")
		equal(t, list(func(q *mailbox.Query) { q.Except = []wire.ID{id(50), id(51)} }), "[2 4 1] <nil>")
		equal(t, list(func(q *mailbox.Query) { q.Except = []wire.ID{id(50), mesh2} }), "[2 1] <nil>")
	})
}

func TestAgents(t *testing.T) {
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		_, err := b.Agent(ctx, 7)
		equal(t, err, mailbox.ErrNoAgent)
		_, err = b.ChangeAgent(ctx, 7, func(*mailbox.Agent) error { return nil })
		equal(t, err, mailbox.ErrNoAgent)
		for _, pid := range []int{9, 7} {
			check(t, b.PutAgent(ctx, mailbox.Agent{Process: process.Process{PID: pid, Started: 1}, Mode: mailbox.Push,
				Seats: []mailbox.AgentSeat{{Mesh: mesh, Key: bob, Member: carol}, {Mesh: mesh2, Key: alice, Member: carol}}}))
		}
		a, err := b.ChangeAgent(ctx, 7, func(a *mailbox.Agent) error {
			a.Session, a.Proven = "s", map[mailbox.Path]int64{mailbox.ByMod: 5}
			return nil
		})
		check(t, err)
		equal(t, say(a.Recipients()), say([]wire.Key{bob, alice, carol}))
		equal(t, say(a.Seat(mesh2).Key, a.Seat(id(3))), say(alice, (*mailbox.AgentSeat)(nil)))
		failed := errors.New("no")
		_, err = b.ChangeAgent(ctx, 7, func(a *mailbox.Agent) error { a.Session = "lost"; return failed })
		equal(t, err, failed)
		got, err := b.Agent(ctx, 7)
		equal(t, say(got, err), say(a, nil))

		receive(t, b, in(1), in(2))
		for i, holder := range []string{"7/mod/a", "77/mod/a"} {
			q := held(holder, 1)
			q.Limit = 1
			msgs, _, err := b.Lease(ctx, q, 1000)
			equal(t, say(idsOf(msgs), err), say([]int{i + 1}, nil))
		}
		check(t, b.ForgetAgents(ctx, []int{7}))
		msgs, _, err := b.List(ctx, held("", 2))
		equal(t, say(idsOf(msgs), err), "[1] <nil>") // 77 is another agent
		all, err := b.Agents(ctx)
		equal(t, say(len(all), all[0].PID, err), "1 9 <nil>")
	})
}

func TestWake(t *testing.T) {
	t.Parallel()
	alive, dead := process.Self(), process.Process{PID: os.Getpid(), Started: 1}
	for want, a := range map[mailbox.Path][]mailbox.Agent{
		mailbox.ByMod:    {{Mode: mailbox.Push, Mod: alive, Waiter: alive, Hooks: 1}},
		mailbox.ByRewake: {{Mode: mailbox.Push, Mod: dead, Waiter: alive, Hooks: 1}},
		mailbox.ByHooks:  {{Mode: mailbox.Push, Mod: dead, Hooks: 1}, {Mode: mailbox.Notice, Mod: alive}, {Mode: mailbox.Notice, Waiter: alive, Hooks: 1}},
		mailbox.ByNone:   {{Mode: mailbox.Push}, {Mode: mailbox.InboxOnly, Mod: alive, Hooks: 1}, {Mode: mailbox.Off, Mod: alive}},
	} {
		for _, agent := range a {
			agent.Process = alive
			equal(t, agent.Wake(), want)
			agent.Process = dead
			equal(t, agent.Wake(), mailbox.ByNone)
		}
	}
}
