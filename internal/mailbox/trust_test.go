package mailbox_test

import (
	"errors"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/wire"
)

var minute = time.Minute.Milliseconds()

// trust changes what is known of alice's member.
func trust(t testing.TB, b mailbox.Mailbox, change func(*mailbox.Trust)) mailbox.Trust {
	t.Helper()
	got, err := b.ChangeTrust(ctx, mesh, owner, 77, func(t *mailbox.Trust) error { change(t); return nil })
	check(t, err)
	return got
}

func level(l mailbox.Level) func(*mailbox.Trust) {
	return func(t *mailbox.Trust) { t.Level, t.Grants = l, nil }
}

func of(n int, mode wire.Mode, p wire.Priority) mailbox.Incoming {
	m := in(n)
	m.Mode, m.Priority = mode, p
	return m
}

// gated lists what is unread, with urgency and gate.
func gated(t testing.TB, b mailbox.Mailbox) (all string) {
	t.Helper()
	q := toBob
	q.Gate = mailbox.Shut
	msgs, _, err := b.List(ctx, q)
	check(t, err)
	for _, m := range msgs {
		all += say(idsOf([]mailbox.Incoming{m}), m.Urgency, int(m.Gate)) + ";"
	}
	return all
}

// numbers lists what is unread as far as a gate, most urgent first.
func upTo(t testing.TB, b mailbox.Mailbox, g mailbox.Gate, now int64) string {
	t.Helper()
	q := toBob
	q.Gate, q.Now = g, now
	msgs, more, err := b.List(ctx, q)
	check(t, err)
	equal(t, more, 0)
	return idsOf(msgs)
}

func TestLevels(t *testing.T) {
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		got, err := b.Trust(ctx, mesh, owner)
		check(t, err)
		equal(t, say(got.Level, got.Grants, got.Blocked, got.Verified, got.Changed), "normal [dm broadcast wake] false 0 0")
		equal(t, got.May(mailbox.GrantNow), false)
		zero := mailbox.Trust{}
		equal(t, say(zero.May(mailbox.GrantWake), zero.May(mailbox.GrantNow)), "true false")
		none := mailbox.Trust{Grants: []mailbox.Grant{}}
		equal(t, none.May(mailbox.GrantDM), false)
		for l, want := range map[mailbox.Level]string{mailbox.Quarantine: "[dm]", mailbox.Normal: "[dm broadcast wake]", mailbox.Trusted: "[dm broadcast now wake]"} {
			equal(t, say(trust(t, b, level(l)).Grants), want)
		}
		trust(t, b, func(t *mailbox.Trust) {
			t.Level, t.Grants, t.Verified = mailbox.Normal, []mailbox.Grant{mailbox.GrantWake, mailbox.GrantDM, mailbox.GrantWake}, 55
		})
		got, err = b.Trust(ctx, mesh, owner)
		check(t, err)
		equal(t, say(got.Level, got.Grants, got.Blocked, got.Verified, got.Changed), "normal [dm wake] false 55 77")
		trust(t, b, func(t *mailbox.Trust) { t.Grants = []mailbox.Grant{}; t.Mesh, t.Member = mesh2, carol })
		got, err = b.Trust(ctx, mesh, owner)
		check(t, err)
		equal(t, say(got.Grants, got.Grants != nil, got.Verified), "[] true 55")

		failed := errors.New("no")
		_, err = b.ChangeTrust(ctx, mesh, owner, 78, func(t *mailbox.Trust) error { t.Blocked = true; return failed })
		equal(t, err, failed)
		for _, bad := range []func(*mailbox.Trust){
			func(t *mailbox.Trust) { t.Level = "friend" },
			func(t *mailbox.Trust) { t.Grants = []mailbox.Grant{"dm", "root"} },
		} {
			_, err := b.ChangeTrust(ctx, mesh, owner, 78, func(t *mailbox.Trust) error { bad(t); return nil })
			equal(t, err != nil, true)
		}
		_, err = b.ChangeTrust(ctx, mesh, owner, 0, func(*mailbox.Trust) error { return nil })
		equal(t, err != nil, true)
		_, err = b.ChangeTrust(ctx, mesh2, carol, 79, func(*mailbox.Trust) error { return nil })
		check(t, err)
		_, err = b.ChangeTrust(ctx, mesh, bob, 79, func(t *mailbox.Trust) error { t.Blocked = true; return nil })
		check(t, err)
		all, err := b.Trusts(ctx, mesh)
		check(t, err)
		equal(t, say(len(all), all[0].Member == bob, all[0].Blocked, all[1].Member == owner, all[1].Blocked), "2 true true true false")

		check(t, b.Forget(ctx, mesh))
		all, err = b.Trusts(ctx, mesh)
		equal(t, say(len(all), err), "0 <nil>")
		all, err = b.Trusts(ctx, mesh2)
		equal(t, say(len(all), err), "1 <nil>")
	})
}

func TestGates(t *testing.T) {
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		receive(t, b, of(1, wire.ModeDM, wire.PriorityNow), of(2, wire.ModeBroadcast, wire.PriorityNext), of(3, wire.ModeDM, wire.PriorityLow))
		own := of(4, wire.ModeDM, wire.PriorityNow)
		own.Own = true
		receive(t, b, own)
		equal(t, gated(t, b), "[4] now 0;[1] next 0;[2] next 0;[3] low 0;")
		m, err := b.Message(ctx, id(1), toBob.Recipients)
		check(t, err)
		equal(t, say(m.Priority, m.Urgency, m.Gate, m.Own), "now next 0 false")
		q := toBob
		q.AtLeast = wire.PriorityNow
		msgs, more, err := b.List(ctx, q)
		equal(t, say(idsOf(msgs), more, err), "[4] 0 <nil>")

		trust(t, b, level(mailbox.Trusted))
		equal(t, gated(t, b), "[1] now 0;[4] now 0;[2] next 0;[3] low 0;")
		msgs, more, err = b.List(ctx, q)
		equal(t, say(idsOf(msgs), more, err), "[1 4] 0 <nil>")

		trust(t, b, level(mailbox.Quarantine)) // no broadcast
		equal(t, gated(t, b), "[4] now 0;[2] next 3;[1] low 2;[3] low 2;")
		for g, want := range []string{"[4]", "[4]", "[4 1 3]", "[4 2 1 3]"} {
			equal(t, upTo(t, b, mailbox.Gate(g), 0), want)
		}
		receive(t, b, of(5, wire.ModeDM, wire.PriorityNow))
		equal(t, upTo(t, b, mailbox.Bell, 0), "[4]")
		equal(t, upTo(t, b, mailbox.Shelf, 0), "[4 1 3 5]")
		taken, more, err := b.Take(ctx, toBob, bob, 9)
		equal(t, say(idsOf(taken), more, err), "[4] 0 <nil>")
		leased, _, err := b.Lease(ctx, held("7/mod/a", 1), 100)
		equal(t, say(idsOf(leased), err), "[] <nil>")

		trust(t, b, func(t *mailbox.Trust) { level(mailbox.Normal)(t); t.Blocked = true })
		equal(t, upTo(t, b, mailbox.Shelf, 0), "[]")
		equal(t, upTo(t, b, mailbox.Shut, 0), "[1 5 2 3]")
		other := of(6, wire.ModeDM, wire.PriorityNext) // another member's messages are as they were
		other.SenderMember, other.SenderSession = carol, key(33)
		receive(t, b, other)
		trust(t, b, func(t *mailbox.Trust) {
			t.Blocked = false
			t.Grants = []mailbox.Grant{mailbox.GrantDM, mailbox.GrantBroadcast}
		})
		equal(t, gated(t, b), "[6] next 0;[1] low 0;[2] low 0;[3] low 0;[5] low 0;")

		// What was read is not judged again.
		trust(t, b, func(t *mailbox.Trust) { t.Blocked = true })
		q = toBob
		q.Read = true
		msgs, _, err = b.List(ctx, q)
		equal(t, say(idsOf(msgs), err), "[6 4] <nil>")
	})
}

func TestRefusals(t *testing.T) {
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		try := func(msgs ...mailbox.Incoming) (got string) {
			fresh, errs, err := b.Receive(ctx, msgs)
			check(t, err)
			for i := range msgs {
				got += say(fresh[i], errors.Is(errs[i], mailbox.ErrBlocked), errors.Is(errs[i], mailbox.ErrNotGranted)) + ";"
			}
			return got
		}
		const fresh, blocked, notGranted, again = "true false false;", "false true false;", "false false true;", "false false false;"
		dm, group, all := of(1, wire.ModeDM, wire.PriorityNext), of(2, wire.ModeGroup, wire.PriorityNext), of(3, wire.ModeBroadcast, wire.PriorityNext)
		trust(t, b, level(mailbox.Quarantine))
		equal(t, try(dm, group, all), fresh+notGranted+notGranted)
		equal(t, try(dm, group), again+notGranted) // the broker has not heard of it
		trust(t, b, func(t *mailbox.Trust) { t.Level, t.Grants = mailbox.Trusted, []mailbox.Grant{mailbox.GrantBroadcast} })
		equal(t, try(of(4, wire.ModeDM, wire.PriorityNext), of(5, wire.ModeGroup, wire.PriorityNext)), notGranted+fresh)
		trust(t, b, func(t *mailbox.Trust) { t.Blocked = true })
		six, own := of(6, wire.ModeGroup, wire.PriorityNext), of(7, wire.ModeDM, wire.PriorityNext)
		six.Seq, own.Seq, own.Own = 1, 2, true
		receipt := of(8, wire.ModeReceipt, wire.PriorityNext)
		equal(t, try(six, own, receipt, dm), blocked+fresh+fresh+again)
		gaps, err := b.Missing(ctx, toBob.Recipients, 1<<40)
		equal(t, say(gaps, err), "[] <nil>")
		// What was refused was seen: it does not come in later.
		trust(t, b, level(mailbox.Trusted))
		trust(t, b, func(t *mailbox.Trust) { t.Blocked = false })
		equal(t, try(six, group, of(9, wire.ModeDM, wire.PriorityNow)), again+again+fresh)
		equal(t, upTo(t, b, mailbox.Shut, 0), "[9 1 5 7]")
		var refused []string
		for _, e := range logged(t, b) {
			if e != "received" {
				refused = append(refused, e)
			}
		}
		equal(t, say(refused), say([]string{"granted (quarantine: dm)", "refused not_granted", "refused not_granted", "granted (trusted: broadcast)",
			"refused not_granted", "blocked", "refused blocked", "granted (trusted: dm,broadcast,now,wake)", "unblocked"}))
	})
}

// automatic is a message that an agent made by itself, to or from bob.
func automatic(n int, at int64) mailbox.Incoming {
	m := in(n)
	m.Hop, m.Received = 1, at
	return m
}

func TestBrake(t *testing.T) {
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		const start = 1_000_000_000
		trust(t, b, level(mailbox.Trusted))
		for n := range 12 {
			receive(t, b, automatic(n+1, start+int64(n)))
		}
		for n := range 8 { // bob answers
			o := out(n+1, alice, carol)
			o.Sender, o.Sent, o.Hop = bob, start+int64(n), 2
			put(t, b, o)
		}
		byHand, elsewhere := out(20, alice), out(21, carol)
		byHand.Sender, byHand.Sent, elsewhere.Sender, elsewhere.Sent, elsewhere.Hop = bob, start+5, bob, start+5, 1
		put(t, b, byHand)
		put(t, b, elsewhere)
		gate := func(m mailbox.Incoming) string {
			t.Helper()
			batch := []mailbox.Incoming{m}
			receive(t, b, batch...)
			return say(batch[0].Urgency, int(batch[0].Gate))
		}
		asked := in(20)
		asked.Received = start + 50
		equal(t, gate(asked), "next 0")
		other, forCarol := automatic(21, start+50), automatic(22, start+50)
		other.SenderSession, forCarol.Recipient = key(44), carol
		equal(t, gate(other), "next 0")
		equal(t, gate(forCarol), "next 0")
		equal(t, gate(automatic(23, start+100)), "next 1") // the 21st
		own := automatic(24, start+100)
		own.Own = true
		equal(t, gate(own), "next 1")
		equal(t, gate(automatic(25, start+10*minute+1)), "next 1") // one of each is over
		equal(t, gate(automatic(26, start+10*minute+2)), "next 0")
		equal(t, upTo(t, b, mailbox.Bell, 0) != upTo(t, b, mailbox.OpenGate, 0), true)
		trust(t, b, func(t *mailbox.Trust) { t.Blocked = true })
		trust(t, b, func(t *mailbox.Trust) { t.Blocked = false })
		m, err := b.Message(ctx, id(23), toBob.Recipients)
		equal(t, say(m.Gate, m.Hop, err), "1 1 <nil>") // it was one too many, and stays so
	})
}

func TestPause(t *testing.T) {
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		far := in(2)
		far.Mesh = mesh2
		receive(t, b, in(1), far)
		hints := b.Watch(t.Context())
		check(t, b.SetPause(ctx, mesh, 500))
		hinted(t, hints, time.Second)
		paused := func(now int64) string { until, err := b.Paused(ctx, mesh, now); return say(until, err) }
		equal(t, say(paused(499), paused(500)), "500 <nil> 0 <nil>")
		equal(t, upTo(t, b, mailbox.Shelf, 499), "[2]")
		equal(t, upTo(t, b, mailbox.Shut, 499), "[1 2]")
		equal(t, upTo(t, b, mailbox.OpenGate, 500), "[1 2]")
		leased, _, err := b.Lease(ctx, held("7/mod/a", 499), 600)
		equal(t, say(idsOf(leased), err), "[2] <nil>")
		check(t, b.SetPause(ctx, mesh, 900))
		equal(t, paused(600), "900 <nil>")
		check(t, b.SetPause(ctx, mesh, 0))
		equal(t, say(paused(600), upTo(t, b, mailbox.OpenGate, 601)), "0 <nil> [1 2]")
		check(t, b.SetPause(ctx, mesh, 900))
		check(t, b.Forget(ctx, mesh))
		equal(t, paused(600), "0 <nil>")
	})
}
