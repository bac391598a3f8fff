package client_test

import (
	"errors"
	"slices"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/meshtest"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// lists changes the list of peers that bob is shown, and has bob write to all of them.
func (h *hostile) lists(edit func(l *wire.PeersList)) {
	h.lie(func(f wire.Frame) []wire.Frame {
		if l, ok := f.(*wire.PeersList); ok {
			edit(l)
		}
		return []wire.Frame{f}
	})
	if _, fresh, err := h.bob.Peers(h.Context(), true); err != nil || !fresh {
		h.Fatal(fresh, err)
	}
	if _, err := h.bob.Send(h.Context(), client.Message{To: []string{"*"}, Text: "to all"}); err != nil {
		if te := new(client.TargetError); !errors.As(err, &te) {
			h.Error(err)
		}
	}
}

// ofAlice edits what is shown of alice's session.
func (h *hostile) ofAlice(edit func(p *wire.Peer)) {
	h.lists(func(l *wire.PeersList) {
		for i := range l.Peers {
			if l.Peers[i].SessionPubkey == h.alice.Key() {
				edit(&l.Peers[i])
			}
		}
	})
}

// ghost is a session that is none.
func (h *hostile) ghost(member wire.Key, a *wire.Attestation) wire.Peer {
	return wire.Peer{
		SessionPubkey: h.eveSession.Public(), Pubkey: member, Role: wire.RoleSession, Attestation: a, Online: true,
		LastSeen: time.Now().UnixMilli(),
	}
}

// carol is one more member, whom bob knows.
func (h *hostile) carol() client.Membership {
	cm := h.w.Join(h.alice, "member", "carol")
	meshtest.Eventually(h, "bob knows carol", func() bool {
		return slices.ContainsFunc(h.bob.Members(), func(m client.Member) bool { return m.Key == cm.MemberKey() })
	})
	return cm
}

var peerAttacks = []attack{
	{"a ghost recipient: a session with a forged attestation", leavesIt, "bad_attestation", func(h *hostile) {
		h.lists(func(l *wire.PeersList) {
			l.Peers = append(l.Peers, h.ghost(h.am.MemberKey(), h.attest(h.eve, h.eveSession.Public())))
		})
	}},
	{"a ghost recipient: a session with a borrowed attestation", leavesIt, "bad_attestation", func(h *hostile) {
		h.lists(func(l *wire.PeersList) {
			for _, p := range l.Peers {
				if p.SessionPubkey == h.alice.Key() {
					l.Peers = append(l.Peers, h.ghost(p.Pubkey, p.Attestation))
				}
			}
		})
	}},
	{"a ghost recipient: a session of a ghost member", leavesIt, "unknown_member", func(h *hostile) {
		h.lists(func(l *wire.PeersList) {
			l.Peers = append(l.Peers, h.ghost(h.eve.Public(), h.attest(h.eve, h.eveSession.Public())))
		})
	}},
	{"swap a session's key", leavesIt, "bad_attestation", func(h *hostile) {
		h.ofAlice(func(p *wire.Peer) { p.SessionPubkey = h.eveSession.Public() })
		_, err := h.bob.Send(h.Context(), client.Message{To: []string{"alice/web"}, Text: "secret"})
		if te := new(client.TargetError); !errors.As(err, &te) || te.Reason != client.ReasonNotFound {
			h.Errorf("sent to a swapped key: %v", err)
		}
	}},
	{"show one member's session under another", leavesIt, "bad_attestation", func(h *hostile) {
		carol := h.carol()
		h.ofAlice(func(p *wire.Peer) { p.Pubkey = carol.MemberKey() })
	}},
	{"a session that another member claims as its own", leavesIt, "bad_attestation", func(h *hostile) {
		carol := memberKey(h.carol())
		h.inject() // and bob knows alice's session
		h.inject(&wire.Presence{Event: wire.PresenceChanged, Peer: wire.Peer{
			SessionPubkey: h.alice.Key(), Pubkey: carol.Public(), Role: wire.RoleSession,
			Attestation: h.attest(carol, h.alice.Key()), Online: true,
		}})
	}},
	{"a member's key shown as another's session", leavesIt, "bad_attestation", func(h *hostile) {
		carol := memberKey(h.carol())
		h.lists(func(l *wire.PeersList) {
			p := h.ghost(carol.Public(), h.attest(carol, h.am.MemberKey()))
			p.SessionPubkey = h.am.MemberKey()
			l.Peers = append(l.Peers, p)
		})
	}},
	{"a card of another session", leavesIt, "bad_card", func(h *hostile) {
		h.w.Dial(h.carol(), "ops", nil)
		h.lists(func(l *wire.PeersList) {
			cards := map[wire.Key]*wire.Card{}
			for _, p := range l.Peers {
				cards[p.SessionPubkey] = p.Card
			}
			for i := range l.Peers {
				if p := &l.Peers[i]; p.SessionPubkey == h.alice.Key() {
					for key, card := range cards {
						if key != p.SessionPubkey && card != nil {
							p.Card = card
						}
					}
				}
			}
		})
	}},
	{"a card under another mesh key's number", leavesIt, "bad_card", func(h *hostile) {
		h.ofAlice(func(p *wire.Peer) { c := *p.Card; c.Generation++; p.Card = &c })
	}},
	{"an older card", nothing, "", func(h *hostile) {
		var old wire.Peer
		h.ofAlice(func(p *wire.Peer) { old = *p })
		if err := h.alice.SetSummary(h.Context(), "new"); err != nil {
			h.Fatal(err)
		}
		summary := func() string {
			peers, _, _ := h.bob.Peers(h.Context(), true)
			for _, p := range peers {
				if p.Key == h.alice.Key() {
					return p.Card.Summary
				}
			}
			return ""
		}
		meshtest.Eventually(h, "bob sees the new card", func() bool { return summary() == "new" })
		h.inject(&wire.Presence{Event: wire.PresenceChanged, Peer: old})
		if s := summary(); s != "new" {
			h.Errorf("the card says %q again", s)
		}
	}},
}

var linkAttacks = []attack{
	{"a swapped broker key", stops, "wrong_broker", func(h *hostile) {
		own := trust.NewSecretKey()
		h.challenge(func(c *wire.Challenge) {
			c.BrokerPubkey, c.Sig = own.Public(), trust.SignChallenge(own, c.Nonce)
		})
	}},
	{"the broker's key without its signature", stops, "wrong_broker", func(h *hostile) {
		h.challenge(func(c *wire.Challenge) { c.Sig = trust.SignChallenge(h.eve, c.Nonce) })
	}},
	{"no challenge", hangsUp, "bad_frame", func(h *hostile) {
		h.opening(func(f wire.Frame) []wire.Frame {
			if _, ok := f.(*wire.Challenge); ok {
				return []wire.Frame{&wire.OK{}}
			}
			return []wire.Frame{f}
		})
	}},
	{"a message before the hello is acknowledged", hangsUp, "bad_frame", func(h *hostile) {
		p := h.forge(h.eveSession, h.eve.Public(), h.attest(h.eve, h.eveSession.Public()), wire.ModeDM, forgedText)
		h.opening(func(f wire.Frame) []wire.Frame {
			if _, ok := f.(*wire.HelloAck); ok {
				return []wire.Frame{p, f}
			}
			return []wire.Frame{f}
		})
	}},
}

func (h *hostile) challenge(edit func(c *wire.Challenge)) {
	h.opening(func(f wire.Frame) []wire.Frame {
		if c, ok := f.(*wire.Challenge); ok {
			edit(c)
		}
		return []wire.Frame{f}
	})
}

// opening lies to bob's next connection, until it has failed.
func (h *hostile) opening(fn func(f wire.Frame) []wire.Frame) {
	h.lie(fn)
	h.again()
	meshtest.Eventually(h, "bob's connection fails", func() bool { return h.bob.State().Err != nil })
}
