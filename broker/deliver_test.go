package broker_test

import (
	"slices"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

func (p *peer) sends(n int, to wire.Key, edit ...func(*wire.Send)) (ids []wire.ID) {
	p.w.t.Helper()
	for range n {
		m := p.dm(to, edit...)
		ask[*wire.Ack](p, m)
		ids = append(ids, m.ID)
	}
	return ids
}

func TestOrderAndPriority(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a, away := w.founder.session(), w.founder.session()
	away.end()
	with := func(p wire.Priority) func(*wire.Send) { return func(s *wire.Send) { s.Priority = p } }
	low := a.sends(3, away.pub(), with(wire.PriorityLow))
	next := a.sends(3, away.pub())
	now := a.sends(3, away.pub(), with(wire.PriorityNow))
	more := a.sends(1, away.pub())
	b := w.founder.again(away)
	if b.ack.Pending != 10 {
		t.Errorf("%d pending", b.ack.Pending)
	}
	for i, id := range slices.Concat(now, next, more, low) {
		p := want[*wire.Push](b)
		if p.ID != id {
			t.Fatalf("push %d is of another message", i)
		}
		b.ackPush(p)
	}
	if r := want[*wire.Receipt](a); r.ID != now[0] || r.Recipient != b.pub() || r.State != wire.StateDelivered || r.At == 0 {
		t.Errorf("%+v", r)
	}
}

func TestWindow(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		edit  func(*broker.Limits)
		size  int
		flies int
	}{
		{"count", func(l *broker.Limits) { l.Window = 4 }, 64, 4},
		{"one", func(l *broker.Limits) { l.Window = 1 }, 64, 1},
		{"bytes", func(l *broker.Limits) { l.WindowBytes = 3 * 1024 }, 1000, 3},
		{"a body larger than the window", func(l *broker.Limits) { l.WindowBytes = 512 }, 1000, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(cfg *broker.Config) { c.edit(&cfg.Limits) })
			a, b := w.founder.session(), w.founder.session()
			ids := a.sends(20, b.pub(), func(s *wire.Send) { s.Ciphertext = random(c.size) })
			b.sync()
			var got []*wire.Push
			for range c.flies {
				got = append(got, want[*wire.Push](b))
			}
			none[*wire.Push](b, "the window is closed")
			if n := broker.InFlight(w.Broker, w.m.MeshID, b.pub()); n != c.flies {
				t.Errorf("%d in flight", n)
			}
			for i := 0; i < 20; i++ {
				if i == len(got) {
					got = append(got, want[*wire.Push](b))
				}
				if got[i].ID != ids[i] {
					t.Fatalf("push %d is of another message", i)
				}
				b.ackPush(got[i])
				if n := broker.InFlight(w.Broker, w.m.MeshID, b.pub()); n > c.flies {
					t.Fatalf("%d in flight", n)
				}
			}
			none[*wire.Push](b, "each came once")
		})
	}
}

func TestAcks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	bob := w.join(trust.RoleMember, "bob")
	a, b, other := w.founder.session(), bob.session(), bob.session()
	id := a.sends(1, b.pub())[0]
	p := want[*wire.Push](b)
	other.ackPush(p) // not its own
	b.write(&wire.ClientAck{Deliveries: []int64{0, -1, 999999, p.Delivery + 1}})
	b.write(&wire.ClientAck{})
	b.write(&wire.ClientNack{Delivery: 4711, Code: wire.CodeBadBox})
	b.sync()
	none[*wire.Receipt](a, "nobody has acknowledged it")
	b.ackPush(p, p)
	if r := want[*wire.Receipt](a); r.ID != id || r.State != wire.StateDelivered {
		t.Errorf("%+v", r)
	}
	b.ackPush(p)
	b.write(&wire.ClientNack{Delivery: p.Delivery, Code: wire.CodeBadBox}) // too late
	none[*wire.Error](b, "a late answer is no error")
	none[*wire.Receipt](a, "one outcome, one receipt")

	id = a.sends(1, b.pub())[0]
	b.write(&wire.ClientNack{Delivery: want[*wire.Push](b).Delivery, Code: wire.CodeReplayed})
	if r := want[*wire.Receipt](a); r.ID != id || r.State != wire.StateBounced || r.Code != wire.CodeReplayed {
		t.Errorf("%+v", r)
	}
}

func TestLeases(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *broker.Config) { c.Limits.Lease, c.Limits.Attempts, c.Limits.Window = 10*time.Second, 3, 2 })
	a, b := w.founder.session(), w.founder.session()
	ids := a.sends(3, b.pub())
	for range 4 { // lost connections count nothing
		want(b, byID(ids[0]))
		want(b, byID(ids[1]))
		b.cut()
		b = w.founder.again(b)
	}
	for i := range 3 {
		want(b, byID(ids[0]))
		want(b, byID(ids[1]))
		none[*wire.Push](b, "the lease holds")
		if i == 2 {
			break
		}
		w.Advance(11 * time.Second)
		w.tick()
	}
	w.Advance(11 * time.Second)
	w.tick()
	for range 2 {
		if r := want[*wire.Receipt](a); r.State != wire.StateBounced || r.Code != wire.CodeUndeliverable || r.ID == ids[2] {
			t.Errorf("%+v", r)
		}
	}
	p := want[*wire.Push](b) // the bounced ones made room
	if p.ID != ids[2] {
		t.Error("a bounced message was pushed again")
	}
	w.Advance(11 * time.Second)
	w.tick()
	again := want(b, byID(ids[2]))
	b.ackPush(p) // an ack of either push counts
	b.ackPush(again)
	if r := want[*wire.Receipt](a); r.ID != ids[2] || r.State != wire.StateDelivered {
		t.Errorf("%+v", r)
	}
	none[*wire.Push](b, "nothing is left")
}

// What expires at a recipient that is away, or in flight to one that does not answer.
func TestExpiry(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *broker.Config) { c.Limits.Window, c.Limits.Lease = 2, 1000*time.Hour })
	a, b, away := w.founder.session(), w.founder.session(), w.founder.session()
	away.end()
	brief := func(s *wire.Send) { s.Expires = w.Now().Add(10 * time.Second).UnixMilli() }
	gone := append(a.sends(2, b.pub(), brief), a.sends(1, away.pub(), brief)...)
	kept := a.sends(2, b.pub())
	p := want[*wire.Push](b)
	want[*wire.Push](b)
	w.Advance(11 * time.Second)
	w.tick()
	for range gone {
		if r := want[*wire.Receipt](a); r.State != wire.StateBounced || r.Code != wire.CodeExpired || !slices.Contains(gone, r.ID) {
			t.Errorf("%+v", r)
		}
	}
	for _, id := range kept {
		b.ackPush(want(b, byID(id))) // though nobody acknowledged what filled the window
	}
	b.ackPush(p)
	for range kept {
		want(a, func(r *wire.Receipt) bool { return r.State == wire.StateDelivered })
	}
	if b := w.founder.again(away); b.ack.Pending != 0 {
		t.Errorf("%d pending", b.ack.Pending)
	}
}

func TestMemberMailbox(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	bob := w.join(trust.RoleMember, "bob")
	a := w.founder.session()
	box := bob.key.Public()
	first := a.sends(1, box)[0] // nobody is there
	obs := bob.observer()
	s := bob.session()
	if s.ack.Pending != 1 || obs.ack.Pending != 0 {
		t.Errorf("pending: session %d, observer %d", s.ack.Pending, obs.ack.Pending)
	}
	held := want(s, byID(first))
	person := bob.person()
	none[*wire.Push](person, "the session holds it")
	second := a.sends(1, box)[0] // is the person's, and does not overtake the first
	none[*wire.Push](person, "the session holds what comes before")
	s.cut() // what it held moves on
	again := want[*wire.Push](person)
	if again.ID != first || again.Delivery != held.Delivery {
		t.Error("another delivery")
	}
	person.ackPush(want(person, byID(second)))
	want(a, func(r *wire.Receipt) bool { return r.ID == second })
	third := bob.session()
	person.cut()
	third.ackPush(want(third, byID(first)))
	want(a, func(r *wire.Receipt) bool { return r.ID == first && r.State == wire.StateDelivered })
	none[*wire.Push](third, "each came once")
	held = want(third, byID(a.sends(1, box)[0]))
	person = bob.person()
	fourth := a.sends(1, box)[0]
	none[*wire.Push](person, "the session holds what comes before")
	third.ackPush(held)
	person.ackPush(want(person, byID(fourth)))
	none[*wire.Push](obs, "an observer takes nothing")
}

// TestReplacedConnectionHeld: what a session's connection holds of the member's own
// mailbox, which a person has taken since, moves on when the session connects again.
func TestReplacedConnectionHeld(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	bob := w.join(trust.RoleMember, "bob")
	a, s := w.founder.session(), bob.session()
	id := a.sends(1, bob.key.Public())[0]
	want(s, byID(id))
	person := bob.person()
	none[*wire.Push](person, "the session holds it")
	bob.again(s)
	person.ackPush(want(person, byID(id)))
	want(a, func(r *wire.Receipt) bool { return r.ID == id && r.State == wire.StateDelivered })
}

// TestPushLostBeforeCommit: a message was pushed while it committed, and that
// connection ended before. Whoever takes the mailbox next gets it once it is on
// disk, and nothing before it.
func TestPushLostBeforeCommit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	bob := w.join(trust.RoleMember, "bob")
	box := bob.key.Public()
	a, taker, next := w.founder.session(), bob.session(), bob.session()
	taker.ackPush(want(taker, byID(a.sends(1, box)[0]))) // the mailbox is live
	want[*wire.Receipt](a)
	release := broker.HoldCommits(w.Broker)
	m := []*wire.Send{a.dm(box), a.dm(box)}
	a.write(m[0])
	want(taker, byID(m[0].ID))
	taker.cut()
	time.Sleep(100 * time.Millisecond) // the next taker reads the queue, and finds nothing
	a.write(m[1])
	time.Sleep(100 * time.Millisecond)
	release()
	for _, s := range m {
		p := want[*wire.Push](next)
		if p.ID != s.ID {
			t.Fatal("the second overtook the first")
		}
		next.ackPush(p)
		want(a, func(r *wire.Receipt) bool { return r.ID == s.ID && r.State == wire.StateDelivered })
	}
}

func TestGroupDelivery(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	bob, carol := w.join(trust.RoleMember, "bob"), w.join(trust.RoleMember, "carol")
	a, b, c, away := w.founder.session(), bob.session(), carol.session(), carol.session()
	away.end()
	m := a.group(b.pub(), c.pub(), away.pub())
	ask[*wire.Ack](a, m)
	away = carol.again(away)
	for i, p := range []*peer{b, c, away} {
		x := want[*wire.Push](p)
		if string(x.Ciphertext) != string(m.Ciphertext) || string(x.Nonce) != string(m.Nonce) || string(x.Wrap) != string(m.Wraps[i].Box) || x.To != p.pub() || x.Mode != wire.ModeGroup {
			t.Errorf("recipient %d: %+v", i, x)
		}
		if i < 2 {
			p.ackPush(x)
		} else {
			p.write(&wire.ClientNack{Delivery: x.Delivery, Code: wire.CodeBodyHash})
		}
		want(a, func(r *wire.Receipt) bool { return r.Recipient == p.pub() })
	}
}

// Receipts and states reach a sender that moved, and outlive the broker's restart.
func TestReceiptsAndStatus(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	bob := w.join(trust.RoleMember, "bob")
	a, sib, b, away := w.founder.session(), w.founder.session(), bob.session(), bob.session()
	away.end()
	done, bounced, open := a.sends(1, b.pub())[0], a.sends(1, b.pub())[0], a.sends(1, away.pub())[0]
	x, y := want[*wire.Push](b), want[*wire.Push](b)
	a.end()
	w.eventually("the sender is gone", func() bool { return len(ask[*wire.PeersList](b, &wire.ListPeers{}).Peers) == 2 })
	b.ackPush(x)
	want(sib, func(r *wire.Receipt) bool { return r.ID == done }) // by a sibling's connection
	a = w.founder.again(a)
	b.write(&wire.ClientNack{Delivery: y.Delivery, Code: wire.CodeBadBox})
	want(a, func(r *wire.Receipt) bool { return r.ID == bounced })
	none[*wire.Receipt](sib, "the sender itself is there")
	check := func(p *peer) {
		t.Helper()
		l := ask[*wire.StatusList](p, &wire.MessageStatus{IDs: []wire.ID{done, bounced, open, {1}}})
		if len(l.Statuses) != 3 || l.Statuses[0].State != wire.StateDelivered || l.Statuses[0].Recipient != b.pub() ||
			l.Statuses[1].State != wire.StateBounced || l.Statuses[1].Code != wire.CodeBadBox || l.Statuses[2].State != wire.StateQueued {
			t.Errorf("%+v", l.Statuses)
		}
	}
	check(a)
	check(sib)
	if l := ask[*wire.StatusList](b, &wire.MessageStatus{IDs: []wire.ID{done}}); len(l.Statuses) != 0 {
		t.Error("another member's message has a status")
	}
	w.check()
	w.Stop()
	w.Start()
	check(w.founder.observer())
	away = bob.again(away)
	away.ackPush(want(away, byID(open)))
	a = w.founder.again(a)
	w.eventually("delivered", func() bool {
		l := ask[*wire.StatusList](a, &wire.MessageStatus{IDs: []wire.ID{open}})
		return l.Statuses[0].State == wire.StateDelivered
	})
}

// The states of many group messages fit no message: the rest comes as receipts.
func TestManyStatuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.founder.session()
	var keys []wire.Key
	for range 50 {
		s := w.founder.session()
		keys = append(keys, s.pub())
		s.end()
	}
	var ids []wire.ID
	for range 40 {
		m := a.group(keys...)
		ask[*wire.Ack](a, m)
		ids = append(ids, m.ID)
	}
	l := ask[*wire.StatusList](a, &wire.MessageStatus{IDs: ids})
	raw, _ := wire.Append(nil, l)
	if len(raw) > wire.MaxMessageBytes {
		t.Errorf("a frame of %d bytes", len(raw))
	}
	for n := len(l.Statuses); n < 40*50; n++ {
		want[*wire.Receipt](a)
	}
}

// A session that is not seen for long is forgotten, and its queue bounces.
func TestForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *broker.Config) { c.Limits.MaxAge = 90 * 24 * time.Hour })
	a, away := w.founder.session(), w.founder.session()
	away.end()
	w.eventually("offline", func() bool { return len(ask[*wire.PeersList](a, &wire.ListPeers{}).Peers) == 1 })
	id := a.sends(1, away.pub(), func(s *wire.Send) { s.Expires = w.Now().Add(60 * 24 * time.Hour).UnixMilli() })[0]
	broker.Prune(w.Broker)
	w.Advance(31 * 24 * time.Hour)
	broker.Prune(w.Broker)
	if r := want[*wire.Receipt](a); r.ID != id || r.Code != wire.CodeSessionGone || r.Recipient != away.pub() {
		t.Errorf("%+v", r)
	}
	a.refused(a.dm(away.pub()), wire.CodeUnknownRecipient)
	w.founder.again(away) // and may come back
	a.sends(1, away.pub())
}
