package client_test

import (
	"errors"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/meshtest"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// hostile is a mesh where bob reaches the broker through a relay that lies.
type hostile struct {
	*testing.T
	w          *meshtest.World
	relay      *meshtest.Relay
	alice, bob *client.Client
	am, bm     client.Membership
	nacks      chan wire.Code
}

func newHostile(t *testing.T) *hostile {
	h := &hostile{T: t, w: meshtest.New(t, nil), nacks: make(chan wire.Code, 64)}
	h.am = h.w.Found("acme", "alice")
	h.alice = h.w.Dial(h.am, "web", nil)
	h.bm = h.w.Join(h.alice, "member", "bob")
	h.relay = h.w.Relay()
	h.bm.Broker = h.relay.URL
	h.lie(func(f wire.Frame) []wire.Frame { return []wire.Frame{f} })
	h.bob = h.w.Dial(h.bm, "api", nil)
	return h
}

// lie changes what bob is told; what bob refuses is noted.
func (h *hostile) lie(fn func(f wire.Frame) []wire.Frame) {
	h.relay.Hook(func(toClient bool, f wire.Frame) []wire.Frame {
		if n, ok := f.(*wire.ClientNack); ok {
			h.nacks <- n.Code
		}
		if toClient {
			return fn(f)
		}
		return []wire.Frame{f}
	})
}

func (h *hostile) refuses(want wire.Code) {
	h.Helper()
	select {
	case got := <-h.nacks:
		if got != want {
			h.Errorf("refused with %s, want %s", got, want)
		}
	case <-time.After(30 * time.Second):
		h.Errorf("not refused; want %s", want)
	}
	if r, err := meshtest.Next(h.bob, 50*time.Millisecond); err == nil {
		h.Errorf("shown all the same: %q", r.Text)
	}
}

func pushes(edit func(p *wire.Push)) func(wire.Frame) []wire.Frame {
	return func(f wire.Frame) []wire.Frame {
		if p, ok := f.(*wire.Push); ok && p.Mode == wire.ModeDM {
			edit(p)
		}
		return []wire.Frame{f}
	}
}

func TestHostileBrokerAlters(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(p *wire.Push)
		want wire.Code
	}{
		"relabels the priority":  {func(p *wire.Push) { p.Priority = wire.PriorityNow }, wire.CodeHeaderMismatch},
		"renames the message":    {func(p *wire.Push) { p.ID[0] ^= 1 }, wire.CodeHeaderMismatch},
		"prolongs the message":   {func(p *wire.Push) { p.Expires++ }, wire.CodeHeaderMismatch},
		"swaps the member":       {func(p *wire.Push) { p.SenderMember = trust.NewSecretKey().Public() }, wire.CodeHeaderMismatch},
		"swaps the session":      {func(p *wire.Push) { p.SenderPubkey = trust.NewSecretKey().Public() }, wire.CodeBadBox},
		"flips a bit":            {func(p *wire.Push) { p.Ciphertext[20] ^= 1 }, wire.CodeBadBox},
		"addresses another":      {func(p *wire.Push) { p.To = p.SenderMember }, wire.CodeWrongRecipient},
		"calls it a receipt":     {func(p *wire.Push) { p.Mode = wire.ModeReceipt }, wire.CodeHeaderMismatch},
		"sends a key of order 1": {func(p *wire.Push) { p.SenderPubkey = wire.Key{1} }, wire.CodeBadBox},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHostile(t)
			h.lie(pushes(c.edit))
			send(t, h.alice, "bob/api", "hello")
			h.refuses(c.want)
		})
	}
}

func TestHostileBrokerReplays(t *testing.T) {
	h := newHostile(t)
	h.lie(func(f wire.Frame) []wire.Frame {
		if p, ok := f.(*wire.Push); ok {
			q := *p
			q.Delivery += 1000
			return []wire.Frame{p, &q, p}
		}
		return []wire.Frame{f}
	})
	send(t, h.alice, "bob/api", "once")
	if r := h.w.Next(h.bob); r.Text != "once" {
		t.Errorf("received %q", r.Text)
	}
	if r, err := meshtest.Next(h.bob, 300*time.Millisecond); err == nil {
		t.Errorf("shown twice: %q", r.Text)
	}
}

func TestHostileBrokerReflects(t *testing.T) {
	h := newHostile(t)
	var sent *wire.Send
	ready := make(chan struct{})
	h.relay.Hook(func(toClient bool, f wire.Frame) []wire.Frame {
		switch f := f.(type) {
		case *wire.Send:
			if f.Mode == wire.ModeDM {
				sent = f
				close(ready)
			}
		case *wire.ClientNack:
			h.nacks <- f.Code
		case *wire.Ack:
			<-ready
			return []wire.Frame{f, &wire.Push{
				Delivery: 9, ID: sent.ID, Mode: sent.Mode, To: h.bob.Key(), SenderPubkey: sent.To, SenderMember: h.am.MemberKey(),
				Priority: sent.Priority, Expires: sent.Expires, Nonce: sent.Nonce, Ciphertext: sent.Ciphertext,
			}}
		}
		return []wire.Frame{f}
	})
	send(t, h.bob, "alice/web", "yours")
	h.refuses(wire.CodeReflected)
}

func TestHostileBrokerAddsGhostMember(t *testing.T) {
	h := newHostile(t)
	_ = h.bob.Close()
	ghost, ghostSession := trust.NewSecretKey(), trust.NewSecretKey()
	forged := trust.NewSecretKey() // plays the owner
	cert := wire.Certificate{trust.SignFounder(forged, ghost.Public(), "eve", 1)}
	h.lie(func(f wire.Frame) []wire.Frame {
		switch f := f.(type) {
		case *wire.MembersList:
			f.Certificates = append(f.Certificates, cert)
		case *wire.PeersList:
			a := trust.SignAttestation(ghost, h.am.MeshID, ghostSession.Public(), 1)
			f.Peers = append(f.Peers, wire.Peer{
				SessionPubkey: ghostSession.Public(), Pubkey: ghost.Public(), Role: wire.RoleSession, Attestation: &a, Online: true,
			})
		}
		return []wire.Frame{f}
	})
	bob := h.w.Dial(h.bm, "api2", nil)
	peers, fresh, err := bob.Peers(t.Context(), true)
	if err != nil || !fresh {
		t.Fatal(fresh, err)
	}
	for _, p := range peers {
		if p.Member == ghost.Public() {
			t.Error("a ghost is shown")
		}
	}
	if n := len(bob.Members()); n != 2 {
		t.Errorf("%d members", n)
	}
}

func TestHostileBrokerSwapsSessionKey(t *testing.T) {
	h := newHostile(t)
	eve := trust.NewSecretKey().Public()
	h.lie(func(f wire.Frame) []wire.Frame {
		if l, ok := f.(*wire.PeersList); ok {
			for i := range l.Peers {
				if l.Peers[i].Pubkey == h.am.MemberKey() {
					l.Peers[i].SessionPubkey = eve
				}
			}
		}
		return []wire.Frame{f}
	})
	_, err := h.bob.Send(t.Context(), client.Message{To: []string{"alice/web"}, Text: "secret"})
	if te := new(client.TargetError); !errors.As(err, &te) || te.Reason != client.ReasonNotFound {
		t.Errorf("sent to a swapped key: %v", err)
	}
}

func TestHostileBrokerRollsBack(t *testing.T) {
	h := newHostile(t)
	carol := h.w.Join(h.alice, "member", "carol")
	box := h.w.Mailbox()
	bob := h.w.Dial(h.bm, "keeps", withBox(box))
	if _, err := h.alice.Remove(t.Context(), carol.MemberKey(), trust.ReasonRemoved); err != nil {
		t.Fatal(err)
	}
	meshtest.Eventually(t, "bob knows of the removal", func() bool { return len(bob.Members()) == 2 })
	_ = bob.Close()
	// An older membership that has lost no removal is one restored from a backup.
	h.lie(func(f wire.Frame) []wire.Frame {
		if a, ok := f.(*wire.HelloAck); ok {
			a.MembersVersion = 1
		}
		return []wire.Frame{f}
	})
	bob = h.w.Dial(h.bm, "keeps", withBox(box))
	if n := len(bob.Members()); n != 2 {
		t.Errorf("%d members after a restore", n)
	}
	_ = bob.Close()
	h.lie(func(f wire.Frame) []wire.Frame {
		switch f := f.(type) {
		case *wire.HelloAck:
			f.MembersVersion = 1
		case *wire.MembersList:
			f.Removals = []wire.Signed{}
		}
		return []wire.Frame{f}
	})
	bob = h.w.Start1(h.bm, "keeps", withBox(box))
	if err := bob.Ready(t.Context()); !errors.Is(err, wire.Faultf(wire.CodeRosterRollback, "")) {
		t.Errorf("a rolled back membership: %v", err)
	}
	if s := bob.State(); !s.Final {
		t.Error("it would try again")
	}
}

func TestHostileBrokerWithholdsRemoval(t *testing.T) {
	h := newHostile(t)
	carol := h.w.Join(h.alice, "member", "carol")
	meshtest.Eventually(t, "bob knows carol", func() bool { return len(h.bob.Members()) == 3 })
	h.lie(func(f wire.Frame) []wire.Frame {
		if l, ok := f.(*wire.MembersList); ok {
			l.Removals, l.Closes, l.Keys = []wire.Signed{}, []wire.Signed{}, []wire.KeyBox{}
		}
		return []wire.Frame{f}
	})
	if _, err := h.alice.Remove(t.Context(), carol.MemberKey(), trust.ReasonRemoved); err != nil {
		t.Fatal(err)
	}
	send(t, h.alice, "bob/api", "she is gone")
	h.refuses(wire.CodeRemovalWithheld)
	_, err := h.bob.Send(t.Context(), client.Message{To: []string{"alice/web"}, Text: "what?"})
	if !errors.Is(err, wire.Faultf(wire.CodeRemovalWithheld, "")) {
		t.Errorf("bob goes on sending: %v", err)
	}
}

func TestHostileBrokerSwapsItsKey(t *testing.T) {
	h := newHostile(t)
	m := h.bm
	m.BrokerKey = trust.NewSecretKey().Public() // the broker joined at was another
	bob := h.w.Start1(m, "api3", nil)
	if err := bob.Ready(t.Context()); !errors.Is(err, wire.Faultf(wire.CodeWrongBroker, "")) {
		t.Errorf("another broker: %v", err)
	}
}

func TestRemovedMemberReadsNothing(t *testing.T) {
	h := newHostile(t)
	if _, err := h.alice.Remove(t.Context(), h.bm.MemberKey(), trust.ReasonRemoved); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"bob", "bob/api", h.bob.Key().String(), h.bm.MemberKey().String(), "*"} {
		if s, err := h.alice.Send(t.Context(), client.Message{To: []string{to}, Text: "not for bob"}); err == nil {
			t.Errorf("%s still reaches somebody: %+v", to, s.Targets)
		}
	}
	meshtest.Eventually(t, "bob is told for good", func() bool { s := h.bob.State(); return s.Final && !s.Online })
}
