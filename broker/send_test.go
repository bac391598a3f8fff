package broker_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

func TestSendChecks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *broker.Config) { c.Limits.Wraps = 4 })
	bob, gone := w.join(trust.RoleMember, "bob"), w.join(trust.RoleMember, "gone")
	a, b, g := w.founder.session(), bob.session(), gone.session()
	g.end()
	w.removeMember(w.founder, gone)
	to := b.pub()
	keys := []wire.Key{to, bob.key.Public(), {1}, {2}, {3}}
	for _, c := range []struct {
		name string
		send *wire.Send
		code wire.Code
	}{
		{"no id", a.dm(to, func(s *wire.Send) { s.ID = wire.ID{} }), wire.CodeBadFrame},
		{"no mode", a.dm(to, func(s *wire.Send) { s.Mode = "" }), wire.CodeBadFrame},
		{"unknown mode", a.dm(to, func(s *wire.Send) { s.Mode = "shout" }), wire.CodeBadFrame},
		{"no priority", a.dm(to, func(s *wire.Send) { s.Priority = "" }), wire.CodeBadFrame},
		{"unknown priority", a.dm(to, func(s *wire.Send) { s.Priority = "asap" }), wire.CodeBadFrame},
		{"short nonce", a.dm(to, func(s *wire.Send) { s.Nonce = s.Nonce[1:] }), wire.CodeBadFrame},
		{"short body", a.dm(to, func(s *wire.Send) { s.Ciphertext = s.Ciphertext[:15] }), wire.CodeBadFrame},
		{"large body", a.dm(to, func(s *wire.Send) { s.Ciphertext = make([]byte, 40<<10+1) }), wire.CodeTooLarge},
		{"dm to nobody", a.dm(wire.Key{}), wire.CodeBadFrame},
		{"dm with wraps", a.dm(to, func(s *wire.Send) { s.Wraps = a.group(to).Wraps }), wire.CodeBadFrame},
		{"group with a recipient", a.dm(to, func(s *wire.Send) { s.Mode = wire.ModeGroup; s.Wraps = a.group(to).Wraps }), wire.CodeBadFrame},
		{"group without wraps", a.group(), wire.CodeBadFrame},
		{"receipt with wraps", a.dm(to, func(s *wire.Send) { s.Mode = wire.ModeReceipt; s.Wraps = a.group(to).Wraps }), wire.CodeBadFrame},
		{"too many wraps", a.group(keys...), wire.CodeAudienceTooLarge},
		{"empty box", a.dm(wire.Key{}, func(s *wire.Send) { s.Mode = wire.ModeGroup; s.Wraps = []wire.Wrap{{To: to}} }), wire.CodeBadFrame},
		{"large box", a.dm(wire.Key{}, func(s *wire.Send) {
			s.Mode = wire.ModeGroup
			s.Wraps = []wire.Wrap{{To: to, Box: make([]byte, 257)}}
		}), wire.CodeBadFrame},
		{"recipient twice", a.group(to, to), wire.CodeBadFrame},
		{"expired", a.dm(to, func(s *wire.Send) { s.Expires = w.Now().UnixMilli() }), wire.CodeExpired},
		{"expires never", a.dm(to, func(s *wire.Send) { s.Expires = 0 }), wire.CodeExpired},
		{"lives too long", a.dm(to, func(s *wire.Send) { s.Expires = w.Now().Add(33 * 24 * time.Hour).UnixMilli() }), wire.CodeBadLifetime},
		{"unknown recipient", a.dm(wire.Key{9}), wire.CodeUnknownRecipient},
		{"removed session", a.dm(g.pub()), wire.CodeRemoved},
		{"removed member", a.dm(gone.key.Public()), wire.CodeRemoved},
		{"to the owner key", a.dm(w.m.Owner), wire.CodeUnknownRecipient},
		{"to oneself", a.dm(a.pub()), wire.CodeBadFrame},
		{"group of oneself", a.group(a.pub()), wire.CodeBadFrame},
		{"group of unknown ones", a.group(wire.Key{9}, wire.Key{8}), wire.CodeUnknownRecipient},
		{"from another member's session", a.dm(to, func(s *wire.Send) { s.From = b.pub() }), wire.CodeForbidden},
		{"from an unknown session", a.dm(to, func(s *wire.Send) { s.From = wire.Key{7} }), wire.CodeForbidden},
		{"from another member", a.dm(to, func(s *wire.Send) { s.From = bob.key.Public() }), wire.CodeForbidden},
	} {
		t.Run(c.name, func(t *testing.T) {
			if e := a.refused(c.send, c.code); e.ID != c.send.ID {
				t.Errorf("the refusal does not name the message: %+v", e)
			}
		})
	}
	none[*wire.Push](b, "nothing was accepted")
}

// Siblings, one's own member key and every role may send; From speaks for a sibling.
func TestSendersAndTargets(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	bob := w.join(trust.RoleMember, "bob")
	a, sib, b := w.founder.session(), w.founder.session(), bob.session()
	person, obs := w.founder.person(), w.founder.observer()
	for _, c := range []struct {
		name     string
		by, from *peer
		to       wire.Key
		at       *peer
	}{
		{"sibling", a, a, sib.pub(), sib},
		{"own member", a, a, w.founder.key.Public(), person},
		{"other", a, a, b.pub(), b},
		{"other's member", a, a, bob.key.Public(), b},
		{"from a sibling", sib, a, b.pub(), b},
		{"observer", obs, obs, b.pub(), b},
		{"person", person, person, b.pub(), b},
		{"person for a session", person, a, b.pub(), b},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := c.by.dm(c.to, func(s *wire.Send) {
				if c.by != c.from {
					s.From = c.from.pub()
				}
			})
			ack := ask[*wire.Ack](c.by, m)
			if len(ack.Recipients) != 1 || ack.Recipients[0].Key != c.to || !ack.Recipients[0].Online || !ack.Queued || ack.ID != m.ID {
				t.Errorf("%+v", ack)
			}
			p := want(c.at, byID(m.ID))
			if p.SenderPubkey != c.from.pub() || p.SenderMember != c.by.member.Public() || p.To != c.to || p.MembersVersion != 2 {
				t.Errorf("%+v", p)
			}
			c.at.ackPush(p)
			want(c.from, func(r *wire.Receipt) bool { return r.ID == m.ID && r.State == wire.StateDelivered })
		})
	}
}

func TestGroupSkips(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	bob := w.join(trust.RoleMember, "bob")
	a, b, away := w.founder.session(), bob.session(), bob.session()
	away.end()
	w.eventually("offline", func() bool { return len(ask[*wire.PeersList](a, &wire.ListPeers{}).Peers) == 2 })
	ack := ask[*wire.Ack](a, a.group(b.pub(), wire.Key{9}, away.pub(), a.pub()))
	if len(ack.Recipients) != 2 || !ack.Recipients[0].Online || ack.Recipients[1].Online || ack.Recipients[1].Key != away.pub() {
		t.Errorf("recipients %+v", ack.Recipients)
	}
	if len(ack.Skipped) != 2 || ack.Skipped[0] != (wire.Skipped{Key: wire.Key{9}, Code: wire.CodeUnknownRecipient}) || ack.Skipped[1].Key != a.pub() {
		t.Errorf("skipped %+v", ack.Skipped)
	}
}

// A repeat is answered with what is known, whatever else is full, late or limited.
func TestRepeat(t *testing.T) {
	t.Parallel()
	var disk atomic.Int64
	w := newWorld(t, func(c *broker.Config) {
		c.Limits.SendsPerMinute, c.Limits.SendBurst, c.Limits.QueueMessages = 60, 12, 8
		c.DiskUsage = func() (int, error) { return int(disk.Load()), nil }
	})
	bob := w.join(trust.RoleMember, "bob")
	a, b, away := w.founder.session(), bob.session(), bob.session()
	away.end()
	done, open := a.dm(b.pub()), a.group(away.pub(), b.pub())
	ask[*wire.Ack](a, done)
	b.ackPush(want[*wire.Push](b))
	want[*wire.Receipt](a)
	ask[*wire.Ack](a, open)
	b.write(&wire.ClientNack{Delivery: want[*wire.Push](b).Delivery, Code: wire.CodeBadBox})
	want[*wire.Receipt](a)
	repeat := func(when string) {
		t.Helper()
		ack := ask[*wire.Ack](a, done)
		if !ack.Duplicate || !ack.Queued || len(ack.Recipients) != 1 || ack.Recipients[0].State != wire.StateDelivered || ack.Recipients[0].Key != b.pub() {
			t.Errorf("%s: %+v", when, ack)
		}
		fewer := *open
		fewer.Wraps = open.Wraps[:1] // wraps may shrink
		ack = ask[*wire.Ack](a, &fewer)
		if !ack.Duplicate || len(ack.Recipients) != 2 || ack.Recipients[0].State != wire.StateQueued || ack.Recipients[1].State != wire.StateBounced || ack.Recipients[1].Code != wire.CodeBadBox {
			t.Errorf("%s: %+v", when, ack)
		}
		other := *done
		other.Ciphertext = random(64)
		if e := a.refused(&other, wire.CodeIDReused); e.ID != done.ID {
			t.Errorf("%s: %+v", when, e)
		}
	}
	repeat("at once")
	ask[*wire.Ack](a, a.dm(away.pub()))
	a.refused(a.dm(away.pub()), wire.CodeQueueFull) // a quarter of 8
	repeat("queue full")
	for w.Now(); ; {
		if e, ok := a.answer(a.dm(b.pub())).(*wire.Error); ok {
			if e.Code != wire.CodeRateLimited || e.RetryAfterMs < 1 || e.RetryAfterMs > 1001 {
				t.Fatalf("%+v", e)
			}
			break
		}
		b.ackPush(want[*wire.Push](b))
	}
	for range 20 {
		repeat("rate limited")
	}
	receipt := func(s *wire.Send) { s.Mode = wire.ModeReceipt }
	ask[*wire.Ack](a, a.dm(b.pub(), receipt)) // read receipts have a budget of their own
	b.ackPush(want(b, func(p *wire.Push) bool { return p.Mode == wire.ModeReceipt }))
	w.Advance(1100 * time.Millisecond)
	m := a.dm(b.pub())
	ask[*wire.Ack](a, m)
	p := want(b, byID(m.ID))
	disk.Store(99)
	w.tick()
	a.refused(a.dm(b.pub()), wire.CodeStorageFull)
	repeat("disk full")
	b.ackPush(p) // deliveries go on
	want(a, func(r *wire.Receipt) bool { return r.ID == m.ID && r.State == wire.StateDelivered })
	disk.Store(1)
	w.tick()
	w.Advance(59 * time.Minute)
	repeat("near its end")
	w.Advance(2 * time.Minute) // past its expiry
	if ack := ask[*wire.Ack](a, done); !ack.Duplicate {
		t.Errorf("past expiry: %+v", ack)
	}
}

// Both of two equal sends in one breath are answered, one as a duplicate.
func TestRepeatInFlight(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a, b := w.founder.session(), w.founder.session()
	for range 20 {
		m := a.dm(b.pub())
		raw, _ := wire.Append(nil, m)
		a.text("[" + string(raw) + "," + string(raw) + "]")
		x, y := want[*wire.Ack](a), want[*wire.Ack](a)
		if x.Duplicate || !y.Duplicate {
			t.Fatalf("%+v\n%+v", x, y)
		}
		b.ackPush(want[*wire.Push](b))
	}
	none[*wire.Push](b, "each came once")
}

func TestQuotas(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		edit  func(*broker.Limits)
		fill  int // sends of one sender that fit
		other bool
		code  wire.Code
	}{
		{"a quarter of the messages", func(l *broker.Limits) { l.QueueMessages = 16 }, 4, true, wire.CodeQueueFull},
		{"a quarter of the bytes", func(l *broker.Limits) { l.QueueBytes = 4 * 3 * 88 }, 3, true, wire.CodeQueueFull},
		{"a tiny queue", func(l *broker.Limits) { l.QueueMessages = 1 }, 1, false, wire.CodeQueueFull},
		{"mesh messages", func(l *broker.Limits) { l.MeshMessages = 3 }, 3, false, wire.CodeMeshFull},
		{"mesh bytes", func(l *broker.Limits) { l.MeshBytes = 3 * 88 }, 3, false, wire.CodeMeshFull},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(cfg *broker.Config) { c.edit(&cfg.Limits) })
			a, other, away := w.founder.session(), w.founder.session(), w.founder.session()
			away.end()
			for range c.fill {
				ask[*wire.Ack](a, a.dm(away.pub()))
			}
			a.refused(a.dm(away.pub()), c.code)
			if c.other {
				ask[*wire.Ack](other, other.dm(away.pub()))
				ack := ask[*wire.Ack](a, a.group(away.pub(), other.pub()))
				if len(ack.Skipped) != 1 || ack.Skipped[0].Code != wire.CodeQueueFull || len(ack.Recipients) != 1 {
					t.Errorf("%+v", ack)
				}
				other.ackPush(want[*wire.Push](other))
			} else {
				other.refused(other.dm(away.pub()), c.code)
			}
			w.check()
			w.Stop() // the counters outlive a restart
			w.Start()
			a, away = w.founder.again(a), w.founder.again(away)
			late := a.dm(away.pub())
			a.refused(late, c.code)
			away.ackPush(want[*wire.Push](away))
			want[*wire.Receipt](a)
			ask[*wire.Ack](a, late) // room again
		})
	}
}

// Sixteen senders together fill a queue that each may fill a quarter of.
func TestQueueTotal(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *broker.Config) { c.Limits.QueueMessages = 6 })
	away := w.founder.session()
	away.end()
	for i := range 7 {
		s := w.founder.session()
		if i < 6 {
			ask[*wire.Ack](s, s.dm(away.pub()))
		} else {
			s.refused(s.dm(away.pub()), wire.CodeQueueFull)
		}
	}
}
