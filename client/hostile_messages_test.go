package client_test

import (
	"crypto/rand"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/seal"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// forge seals what a stranger or a member with an altered client can: a direct to bob
// from a session that it holds the key of, in the name of a member.
func (h *hostile) forge(session trust.SecretKey, member wire.Key, a *wire.Attestation, mode wire.Mode, c seal.Content) *wire.Push {
	now := time.Now().UnixMilli()
	head := seal.Header{
		Mode: mode, Mesh: h.am.MeshID, SenderMember: member, SenderSession: session.Public(), Recipient: h.bob.Key(),
		Sent: now, Expires: now + time.Hour.Milliseconds(), Priority: wire.PriorityNow, Seq: 1, Generation: 1,
	}
	_, _ = rand.Read(head.ID[:])
	shared, err := seal.NewShared(session, h.bob.Key())
	if err != nil {
		h.Fatal(err)
	}
	sealed, err := seal.Direct(head, c, seal.Sender{Session: session, Attestation: a}, shared)
	if err != nil {
		h.Fatal(err)
	}
	return &wire.Push{
		Delivery: 1 << 40, ID: head.ID, Mode: mode, To: h.bob.Key(), SenderPubkey: session.Public(), SenderMember: member,
		Priority: head.Priority, Expires: head.Expires, Nonce: sealed.Nonce, Ciphertext: sealed.Ciphertext, CreatedAt: now,
	}
}

var forgedText = seal.Content{Type: "text/plain", Body: []byte("forged")}

// attest is a member's word for a session.
func (h *hostile) attest(member trust.SecretKey, session wire.Key) *wire.Attestation {
	a := trust.SignAttestation(member, h.am.MeshID, session, time.Now().UnixMilli())
	return &a
}

func memberKey(m client.Membership) trust.SecretKey { return trust.SecretKeyFromSeed(m.MemberSeed) }

// attested is the true attestation of alice's session, as bob is shown it.
func (h *hostile) attested() (a *wire.Attestation) {
	h.lie(func(f wire.Frame) []wire.Frame {
		if l, ok := f.(*wire.PeersList); ok {
			for _, p := range l.Peers {
				if p.SessionPubkey == h.alice.Key() {
					a = p.Attestation
				}
			}
		}
		return []wire.Frame{f}
	})
	if _, fresh, err := h.bob.Peers(h.Context(), true); err != nil || !fresh || a == nil {
		h.Fatal("no attestation of alice is shown", err)
	}
	return a
}

func altering(name string, code wire.Code, edit func(h *hostile, p *wire.Push)) attack {
	return attack{name, refuses, string(code), func(h *hostile) { h.alter(func(p *wire.Push) { edit(h, p) }) }}
}

var messageAttacks = []attack{
	altering("relabel the sender's member", wire.CodeHeaderMismatch, func(h *hostile, p *wire.Push) { p.SenderMember = h.eve.Public() }),
	altering("relabel the sender's session", wire.CodeBadBox, func(h *hostile, p *wire.Push) { p.SenderPubkey = h.eveSession.Public() }),
	altering("relabel the sender as a key of small order", wire.CodeBadBox, func(_ *hostile, p *wire.Push) { p.SenderPubkey = wire.Key{1} }),
	altering("relabel the recipient as another's key", wire.CodeWrongRecipient, func(_ *hostile, p *wire.Push) { p.To = p.SenderMember }),
	altering("relabel the recipient as another key of one's own", wire.CodeBadBox, func(h *hostile, p *wire.Push) { p.To = h.bm.MemberKey() }),
	altering("relabel the id", wire.CodeHeaderMismatch, func(_ *hostile, p *wire.Push) { p.ID[0] ^= 1 }),
	altering("relabel the priority", wire.CodeHeaderMismatch, func(_ *hostile, p *wire.Push) { p.Priority = wire.PriorityNow }),
	altering("relabel the time it expires", wire.CodeHeaderMismatch, func(_ *hostile, p *wire.Push) { p.Expires++ }),
	altering("relabel the mode as a receipt", wire.CodeHeaderMismatch, func(_ *hostile, p *wire.Push) { p.Mode = wire.ModeReceipt }),
	altering("relabel the time sent, the reply or the text, which are sealed", wire.CodeBadBox, func(_ *hostile, p *wire.Push) { p.Ciphertext[200] ^= 1 }),
	{"splice another direct's body", refuses, "header_mismatch", func(h *hostile) {
		h.spliced("bob/api", func(p, first *wire.Push) { p.Nonce, p.Ciphertext = first.Nonce, first.Ciphertext })
	}},
	{"splice another group message's body", refuses, "body_hash", func(h *hostile) {
		h.spliced("*", func(p, first *wire.Push) { p.Nonce, p.Ciphertext = first.Nonce, first.Ciphertext })
	}},
	{"splice another group message's wrap", refuses, "body_hash", func(h *hostile) { h.spliced("*", func(p, first *wire.Push) { p.Wrap = first.Wrap }) }},
	{"splice another recipient's wrap", refuses, "bad_box", othersWrap},
	{"reflect a message to its sender", refuses, "reflected", reflect},
	{"a ghost sender, who is no member", refuses, "unknown_sender", func(h *hostile) {
		h.inject(h.forge(h.eveSession, h.eve.Public(), h.attest(h.eve, h.eveSession.Public()), wire.ModeDM, forgedText))
	}},
	{"a forged attestation on a message", refuses, "bad_attestation", func(h *hostile) {
		h.inject(h.forge(h.eveSession, h.am.MemberKey(), h.attest(h.eve, h.eveSession.Public()), wire.ModeDM, forgedText))
	}},
	{"a borrowed attestation on a message", refuses, "bad_attestation", func(h *hostile) {
		h.inject(h.forge(h.eveSession, h.am.MemberKey(), h.attested(), wire.ModeDM, forgedText))
	}},
	{"a member's key as another's session on a message", refuses, "bad_attestation", func(h *hostile) {
		carol := memberKey(h.carol())
		h.inject(h.forge(carol, h.am.MemberKey(), h.attest(memberKey(h.am), carol.Public()), wire.ModeDM, forgedText))
	}},
	{"a version of the membership on a message that is never shown", takesIt, "members_withheld", func(h *hostile) {
		h.pushes(func(p *wire.Push) { p.MembersVersion = 1 << 40 })
		h.arrives(h.say("bob/api"))
	}},
}

// spliced sends two messages and puts parts of the first into the second.
func (h *hostile) spliced(to string, edit func(p, first *wire.Push)) {
	var first *wire.Push
	h.pushes(func(p *wire.Push) { q := *p; first = &q })
	h.arrives(h.say(to))
	h.pushes(func(p *wire.Push) { edit(p, first) })
	send(h.T, h.alice, to, "altered")
}

func othersWrap(h *hostile) {
	cm := h.w.Join(h.alice, "member", "carol")
	cm.Broker = h.relay.URL
	carol := h.w.Dial(cm, "ops", nil)
	carols := make(chan wire.Blob, 1)
	h.pushes(func(p *wire.Push) {
		if p.To == carol.Key() {
			carols <- p.Wrap
		}
	})
	h.arrives(h.say("*"))
	wrap := <-carols
	h.pushes(func(p *wire.Push) {
		if p.To == h.bob.Key() {
			p.Wrap = wrap
		}
	})
	send(h.T, h.alice, "*", "altered")
}

func reflect(h *hostile) {
	var sent *wire.Send
	h.relay.Hook(func(_ bool, f wire.Frame) []wire.Frame {
		switch f := f.(type) {
		case *wire.Send:
			sent = f
		case *wire.ClientNack:
			h.nacks <- f.Code
		case *wire.Ack:
			return []wire.Frame{f, &wire.Push{
				Delivery: 9, ID: sent.ID, Mode: sent.Mode, To: h.bob.Key(), SenderPubkey: sent.To, SenderMember: h.am.MemberKey(),
				Priority: sent.Priority, Expires: sent.Expires, Nonce: sent.Nonce, Ciphertext: sent.Ciphertext,
			}}
		}
		return []wire.Frame{f}
	})
	send(h.T, h.bob, "alice/web", "yours")
}
