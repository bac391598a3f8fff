package client_test

import (
	"crypto/sha256"
	"slices"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/meshtest"
	"github.com/claudemesh/claudemesh/internal/seal"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

var keyAttacks = []attack{
	{"an old mesh key as the new one", leavesIt, "stale_key", func(h *hostile) {
		var old wire.KeyBox
		first, second := h.carol(), h.w.Join(h.alice, "member", "cora")
		h.members(func(l *wire.MembersList) {
			if len(l.Keys) > 0 {
				old = l.Keys[0]
			}
		})
		h.remove(first)
		h.members(func(l *wire.MembersList) {
			for _, k := range l.Keys {
				l.Keys = append(l.Keys, wire.KeyBox{Generation: k.Generation, Issuer: old.Issuer, Box: old.Box, Previous: k.Previous})
			}
		})
		h.remove(second)
	}},
	{"a mesh key of a member's own", stops, "generation_fork", func(h *hostile) {
		carol := memberKey(h.carol())
		shared, err := seal.NewShared(carol, h.bm.MemberKey())
		if err != nil {
			h.Fatal(err)
		}
		box := wire.KeyBox{Generation: 2, Issuer: carol.Public(), Box: seal.NewMeshKey(2).Box(h.am.MeshID, shared), Previous: wire.Blob{1}}
		h.changed(func(l *wire.MembersList) { l.Keys = []wire.KeyBox{box} })
	}},
	{"a new mesh key that is withheld", takesIt, "key_withheld", func(h *hostile) {
		cm := h.carol()
		h.members(func(l *wire.MembersList) { l.Keys = nil })
		h.remove(cm)
	}},
	{"a swapped key of the generation before", nothing, "", func(h *hostile) {
		cm := h.carol()
		h.members(func(l *wire.MembersList) {
			for i := range l.Keys {
				l.Keys[i].Previous = seal.NewMeshKey(1).Secret(h.am.MeshID, [32]byte{1})
			}
		})
		h.remove(cm)
	}},
}

// role is the owner's word on a member's role.
func (h *hostile) role(m client.Membership, role string, issued int64) wire.Signed {
	return trust.SignRole(h.owner(), trust.Role{Mesh: h.am.MeshID, Member: m.MemberKey(), Role: role, Issued: issued})
}

// roleOf is a member's role as bob sees it.
func (h *hostile) roleOf(m client.Membership) string {
	i := slices.IndexFunc(h.bob.Members(), func(v client.Member) bool { return v.Key == m.MemberKey() })
	if i < 0 {
		return ""
	}
	return h.bob.Members()[i].Role
}

func shows(roles ...wire.Signed) func(l *wire.MembersList) {
	return func(l *wire.MembersList) { l.Roles = roles }
}

func showsPause(s wire.Signed) func(l *wire.MembersList) {
	return func(l *wire.MembersList) { l.Pauses = []wire.Signed{s} }
}

// notPaused: bob sees no pause in force.
func (h *hostile) notPaused() {
	h.Helper()
	if until := h.bob.PausedUntil(); !until.IsZero() {
		h.Errorf("paused until %s", until)
	}
}

var governAttacks = []attack{
	{"a promotion that an admin signed", leavesIt, "bad_signature", func(h *hostile) {
		am := h.w.Join(h.alice, trust.RoleAdmin, "ada")
		cm := h.carol()
		s := trust.SignRole(memberKey(am), trust.Role{Mesh: h.am.MeshID, Member: cm.MemberKey(), Role: trust.RoleAdmin, Issued: 7})
		h.changed(shows(s))
		if r := h.roleOf(cm); r != trust.RoleMember {
			h.Errorf("carol is %s", r)
		}
	}},
	{"a promotion shown again after the demotion", leavesIt, "replayed", func(h *hostile) {
		cm := h.carol()
		promotion := h.role(cm, trust.RoleAdmin, 7)
		h.changed(shows(promotion))
		h.changed(shows(h.role(cm, trust.RoleMember, 8)))
		h.changed(shows(promotion))
		if r := h.roleOf(cm); r != trust.RoleMember {
			h.Errorf("carol is %s", r)
		}
	}},
	{"a promotion kept back until after the demotion", leavesIt, "replayed", func(h *hostile) {
		cm := h.carol()
		h.changed(shows(h.role(cm, trust.RoleMember, 8)))
		h.changed(shows(h.role(cm, trust.RoleAdmin, 7)))
		if r := h.roleOf(cm); r != trust.RoleMember {
			h.Errorf("carol is %s", r)
		}
	}},
	{"a demoted admin's new invite", leavesIt, "invite_closed", func(h *hostile) {
		admin := h.w.Join(h.alice, trust.RoleAdmin, "ada")
		h.changed(shows(h.role(admin, trust.RoleMember, 7)))
		secret := trust.NewSecret()
		h.certify(secret, h.capability(memberKey(admin), secret, nil))
	}},
	{"a pause by a plain member", leavesIt, "forbidden", func(h *hostile) {
		h.changed(showsPause(trust.SignPause(memberKey(h.carol()), h.am.MeshID, time.Now().Add(time.Hour).UnixMilli())))
		h.notPaused()
	}},
	{"a pause that was changed", leavesIt, "bad_signature", func(h *hostile) {
		s := trust.SignPause(h.owner(), h.am.MeshID, time.Now().UnixMilli())
		s.Body = trust.SignPause(h.owner(), h.am.MeshID, time.Now().Add(time.Hour).UnixMilli()).Body
		h.changed(showsPause(s))
		h.notPaused()
	}},
	{"a pause shown again after it was lifted", leavesIt, "replayed", func(h *hostile) {
		pause := trust.SignPause(h.owner(), h.am.MeshID, time.Now().Add(time.Hour).UnixMilli())
		h.changed(showsPause(pause))
		meshtest.Eventually(h, "bob is paused", func() bool { return !h.bob.PausedUntil().IsZero() })
		h.changed(showsPause(trust.SignResume(h.owner(), h.am.MeshID, sha256.Sum256(pause.Body))))
		h.changed(showsPause(pause))
		h.notPaused()
	}},
}
