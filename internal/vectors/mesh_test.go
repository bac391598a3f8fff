package vectors_test

import (
	"crypto/sha256"
	"sync"

	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// capability is issuer's invite of that name.
func capability(issuer, invite, role string, uses uint64) wire.Signed {
	return trust.SignCapability(key(issuer), trust.Capability{
		Mesh: mesh, Invite: inviteID(invite), Key: inviteOf(invite).Public(), Role: role,
		Expires: now + 1000, MaxUses: uses, Broker: pub("broker"),
	})
}

func join(c wire.Signed, invite, member string) wire.Certificate {
	return trust.SignJoin(inviteOf(invite), key(member), c, member, now)
}

// The certificates of the tests' mesh. admin and admin2 came by the owner's
// invite "admins", alice by the owner's "open", bob by admin's "side".
var certificates = sync.OnceValue(func() map[string]wire.Certificate {
	admins, open, side := capability("owner", "admins", trust.RoleAdmin, 2), capability("owner", "open", trust.RoleMember, 3),
		capability("admin", "side", trust.RoleMember, 2)
	return map[string]wire.Certificate{
		"founder": {trust.SignFounder(key("owner"), pub("founder"), "founder", now)},
		"admin":   join(admins, "admins", "admin"),
		"admin2":  join(admins, "admins", "admin2"),
		"alice":   join(open, "open", "alice"),
		"bob":     join(side, "side", "bob"),
		"carol":   join(side, "side", "carol"),
	}
})

func genesis() wire.Signed { return trust.SignGenesis(key("owner"), "home", now) }

// removal is signer's removal of member.
func removal(signer, member string, m trust.Removal) wire.Signed {
	m.Mesh, m.Member = mesh, pub(member)
	if m.Revoked == 0 {
		m.Revoked = now
	}
	if m.Reason == "" {
		m.Reason = trust.ReasonRemoved
	}
	return trust.SignRemoval(key(signer), m)
}

// role is signer's change of a member's role.
func role(signer, member, to string, issued int64, kept ...string) wire.Signed {
	return trust.SignRole(key(signer), trust.Role{Mesh: mesh, Member: pub(member), Role: to, Issued: issued, Kept: keys(kept...)})
}

func possession(join []byte) []byte {
	h := sha256.Sum256(join)
	return trust.T("join-pop", h[:])
}

var everyone = []string{"founder", "admin", "admin2", "alice", "bob", "carol"}
