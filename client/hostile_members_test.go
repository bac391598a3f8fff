package client_test

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/meshtest"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// members changes what bob is shown of the membership.
func (h *hostile) members(edit func(l *wire.MembersList)) {
	h.lie(func(f wire.Frame) []wire.Frame {
		if l, ok := f.(*wire.MembersList); ok {
			edit(l)
		}
		return []wire.Frame{f}
	})
}

// changed has somebody join, and bob be shown more than that.
func (h *hostile) changed(edit func(l *wire.MembersList)) {
	h.members(edit)
	name := fmt.Sprintf("dave%d", len(h.bob.Members()))
	h.w.Join(h.alice, "member", name)
	meshtest.Eventually(h, "bob knows "+name, func() bool {
		return h.bob.State().Final || slices.ContainsFunc(h.bob.Members(), func(m client.Member) bool { return m.Name == name })
	})
}

// certify adds a ghost's certificate by an invite.
func (h *hostile) certify(secret trust.Secret, capability wire.Signed) {
	cert := trust.SignJoin(secret.InviteKey(), h.eve, capability, "eve", time.Now().UnixMilli())
	h.changed(func(l *wire.MembersList) { l.Certificates = append(l.Certificates, cert) })
}

// capability is an invite that an issuer makes without the broker's knowledge.
func (h *hostile) capability(issuer trust.SecretKey, secret trust.Secret, edit func(c *trust.Capability)) wire.Signed {
	key := secret.InviteKey().Public()
	c := trust.Capability{
		Mesh: h.am.MeshID, Invite: trust.InviteID(key), Key: key, Role: trust.RoleMember, MaxUses: 1,
		Expires: time.Now().Add(time.Hour).UnixMilli(), Broker: h.am.BrokerKey,
	}
	if edit != nil {
		edit(&c)
	}
	return trust.SignCapability(issuer, c)
}

// invited is a member that came by an invite of so many uses, with the invite.
func (h *hostile) invited(uses int) (cm client.Membership, invite *client.Invite, secret trust.Secret) {
	invite, err := h.alice.NewInvite(h.Context(), trust.RoleMember, uses, time.Hour)
	if err != nil {
		h.Fatal(err)
	}
	link, err := trust.ParseLink(invite.Link)
	if err != nil {
		h.Fatal(err)
	}
	look, err := client.LookUp(h.Context(), invite.Link, false)
	if err != nil {
		h.Fatal(err)
	}
	if cm, err = look.Join(h.Context(), "carol"); err != nil {
		h.Fatal(err)
	}
	return cm, invite, link.Secret
}

// remove has alice take a member out, and bob know of it.
func (h *hostile) remove(cm client.Membership) {
	if _, err := h.alice.Remove(h.Context(), cm.MemberKey(), trust.ReasonRemoved); err != nil {
		h.Fatal(err)
	}
	h.isOut(cm)
}

func (h *hostile) isOut(cm client.Membership) {
	meshtest.Eventually(h, "bob knows of the removal", func() bool {
		return !slices.ContainsFunc(h.bob.Members(), func(m client.Member) bool { return m.Key == cm.MemberKey() })
	})
}

// owner is the mesh's, whose key no broker has.
func (h *hostile) owner() trust.SecretKey { return trust.SecretKeyFromSeed(h.am.OwnerSeed) }

var memberAttacks = []attack{
	{"a ghost member that the owner did not sign", leavesIt, "bad_signature", func(h *hostile) {
		cert := wire.Certificate{trust.SignFounder(h.eve, h.eve.Public(), "eve", 1)}
		body := trust.SignFounder(h.owner(), h.eve.Public(), "eve", 1).Body
		cert[0].Body = body // as the owner would have said it
		h.changed(func(l *wire.MembersList) { l.Certificates = append(l.Certificates, cert) })
	}},
	{"a ghost member by an invite that a plain member made", leavesIt, "bad_certificate", func(h *hostile) {
		secret := trust.NewSecret()
		h.certify(secret, h.capability(memberKey(h.carol()), secret, nil))
	}},
	{"an invite past its uses", leavesIt, "invite_overused", func(h *hostile) {
		cm, _, secret := h.invited(1)
		h.certify(secret, cm.Certificate[0])
	}},
	{"a new member by a revoked invite", leavesIt, "invite_closed", func(h *hostile) {
		cm, invite, secret := h.invited(2)
		if err := h.alice.CloseInvite(h.Context(), invite.ID); err != nil {
			h.Fatal(err)
		}
		h.certify(secret, cm.Certificate[0])
	}},
	{"a second owner", stops, "wrong_owner", func(h *hostile) {
		genesis := trust.SignGenesis(h.eve, "acme", 1)
		h.changed(func(l *wire.MembersList) { l.Genesis = genesis })
	}},
	{"an older version of the membership than was asked from", stops, "roster_rollback", func(h *hostile) {
		h.changed(func(l *wire.MembersList) { l.Version = 1 })
	}},
	{"a version of the membership that is never shown", takesIt, "members_withheld", func(h *hostile) {
		h.lie(func(f wire.Frame) []wire.Frame {
			if a, ok := f.(*wire.HelloAck); ok {
				a.MembersVersion = math.MaxInt64
			}
			return []wire.Frame{f}
		})
		h.again()
		h.ready()
	}},
	{"a mesh key's number whose removal is never shown", takesIt, "members_withheld", func(h *hostile) {
		h.changed(func(l *wire.MembersList) { l.Generation = math.MaxUint64 })
	}},
	{"a list without an end", hangsUp, "too_large", func(h *hostile) {
		h.lie(func(f wire.Frame) []wire.Frame {
			l, ok := f.(*wire.MembersList)
			if !ok {
				return []wire.Frame{f}
			}
			l.More = true
			return slices.Repeat([]wire.Frame{l}, 1100)
		})
		h.w.Join(h.alice, "member", "dave")
	}},
	{"the same page of a list again and again", nothing, "", func(h *hostile) {
		h.lie(func(f wire.Frame) []wire.Frame {
			l, ok := f.(*wire.MembersList)
			if !ok {
				return []wire.Frame{f}
			}
			again := *l
			again.More = true
			return append(slices.Repeat([]wire.Frame{&again}, 20), l)
		})
		h.w.Join(h.alice, "member", "dave")
		meshtest.Eventually(h, "bob knows dave", func() bool { return len(h.bob.Members()) == 3 })
	}},
}

var removalAttacks = []attack{
	{"a removed member whose removal is withheld", sendsNo, "removal_withheld", func(h *hostile) {
		cm := h.carol()
		h.members(func(l *wire.MembersList) {
			l.Removals, l.Closes, l.Keys, l.Generation = nil, nil, nil, 1
		})
		if _, err := h.alice.Remove(h.Context(), cm.MemberKey(), trust.ReasonRemoved); err != nil {
			h.Fatal(err)
		}
		send(h.T, h.alice, "bob/api", "altered: carol is gone")
	}},
	{"a removed member that is let in again and sends", refuses, "removed", func(h *hostile) {
		cm, session := h.carol(), trust.NewSecretKey()
		h.remove(cm)
		h.inject(h.forge(session, cm.MemberKey(), h.attest(memberKey(cm), session.Public()), wire.ModeDM, forgedText))
	}},
	{"a removed member that is shown as online", addsNone, "", func(h *hostile) {
		cm := h.carol()
		peer := h.ghost(cm.MemberKey(), h.attest(memberKey(cm), h.eveSession.Public()))
		h.remove(cm)
		h.lists(func(l *wire.PeersList) { l.Peers = append(l.Peers, peer) })
		h.inject(&wire.Presence{Event: wire.PresenceJoined, Peer: peer})
	}},
	{"a removed member's certificate shown as new", leavesIt, "removed", func(h *hostile) {
		cm := h.carol()
		h.remove(cm)
		h.changed(func(l *wire.MembersList) { l.Certificates = append(l.Certificates, cm.Certificate) })
		h.isOut(cm)
	}},
	{"a removed member that comes again by its old invite", leavesIt, "invite_closed", func(h *hostile) {
		cm, _, secret := h.invited(2)
		h.remove(cm)
		h.certify(secret, cm.Certificate[0])
	}},
	{"a removal by who may not", leavesIt, "forbidden", func(h *hostile) {
		s := trust.SignRemoval(memberKey(h.carol()), trust.Removal{
			Mesh: h.am.MeshID, Member: h.am.MemberKey(), Reason: trust.ReasonRemoved, Revoked: 1,
		})
		h.changed(func(l *wire.MembersList) { l.Removals = append(l.Removals, s) })
	}},
	{"the end of an invite by who may not", leavesIt, "forbidden", func(h *hostile) {
		bobs, err := trust.ParseCapability(h.bm.Certificate[0])
		if err != nil {
			h.Fatal(err)
		}
		s := trust.SignClose(memberKey(h.carol()), h.am.MeshID, bobs.Invite, nil)
		h.changed(func(l *wire.MembersList) { l.Closes = append(l.Closes, s) })
	}},
	{"a removal shown, then rolled back", stops, "roster_rollback", func(h *hostile) {
		h.remove(h.carol())
		h.rollsBack(func(l *wire.MembersList) { l.Removals = nil })
	}},
	{"the end of an invite shown, then rolled back", stops, "roster_rollback", func(h *hostile) {
		_, invite, _ := h.invited(2)
		if err := h.alice.CloseInvite(h.Context(), invite.ID); err != nil {
			h.Fatal(err)
		}
		h.changed(func(*wire.MembersList) {})
		h.rollsBack(func(l *wire.MembersList) { l.Closes = nil })
	}},
	{"a demotion shown, then rolled back", stops, "roster_rollback", func(h *hostile) {
		role := h.role(h.carol(), trust.RoleMember, 7)
		h.changed(func(l *wire.MembersList) { l.Roles = []wire.Signed{role} })
		h.rollsBack(func(l *wire.MembersList) { l.Roles = nil })
	}},
	{"an older membership that has lost nothing, as after a restore", nothing, "", func(h *hostile) {
		h.remove(h.carol())
		h.rollsBack(func(*wire.MembersList) {})
		h.ready()
	}},
}

// rollsBack shows bob's next connection an older membership.
func (h *hostile) rollsBack(edit func(l *wire.MembersList)) {
	h.lie(func(f wire.Frame) []wire.Frame {
		switch f := f.(type) {
		case *wire.HelloAck:
			f.MembersVersion = 1
		case *wire.MembersList:
			edit(f)
		}
		return []wire.Frame{f}
	})
	h.again()
}
