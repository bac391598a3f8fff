package trust

import (
	"crypto/sha256"
	"errors"
	"sync"
	"testing"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// now is the fixed time of every test, Unix ms.
const now = 1_760_000_000_000

func seed(name string) [32]byte      { return sha256.Sum256([]byte("claudemesh test " + name)) }
func key(name string) SecretKey      { return SecretKeyFromSeed(seed(name)) }
func pub(name string) wire.Key       { return key(name).Public() }
func secret(name string) Secret      { return Secret(seed("invite " + name)) }
func inviteOf(name string) SecretKey { return secret(name).InviteKey() }
func inviteID(name string) wire.ID   { return InviteID(inviteOf(name).Public()) }

var mesh = MeshID(pub("owner"))

func codeOf(err error) wire.Code {
	var f *wire.Fault
	if errors.As(err, &f) {
		return f.Code
	}
	return ""
}

// wantCode checks that err is a Fault of this code, or nil for "".
func wantCode(t testing.TB, err error, code wire.Code) {
	t.Helper()
	if got := codeOf(err); got != code || (err != nil) != (code != "") {
		t.Errorf("got %q (%v), want %q", got, err, code)
	}
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// capability is issuer's invite of that name.
func capability(issuer, invite, role string, uses uint64) wire.Signed {
	return SignCapability(key(issuer), Capability{
		Mesh: mesh, Invite: inviteID(invite), Key: inviteOf(invite).Public(), Role: role,
		Expires: now + 1000, MaxUses: uses, Broker: pub("broker"),
	})
}

func join(c wire.Signed, invite, member string) wire.Certificate {
	return SignJoin(inviteOf(invite), key(member), c, member, now)
}

// The certificates of the tests' mesh. admin and admin2 came by the owner's
// invite "admins", alice by the owner's "open", bob by admin's "side".
var certificates = sync.OnceValue(func() map[string]wire.Certificate {
	admins, open, side := capability("owner", "admins", RoleAdmin, 2), capability("owner", "open", RoleMember, 3),
		capability("admin", "side", RoleMember, 2)
	return map[string]wire.Certificate{
		"founder": {SignFounder(key("owner"), pub("founder"), "founder", now)},
		"admin":   join(admins, "admins", "admin"),
		"admin2":  join(admins, "admins", "admin2"),
		"alice":   join(open, "open", "alice"),
		"bob":     join(side, "side", "bob"),
		"carol":   join(side, "side", "carol"),
	}
})

func genesis() wire.Signed { return SignGenesis(key("owner"), "home", now) }

// roster returns the roster of the tests' mesh with the named members.
func roster(t testing.TB, names ...string) *Roster {
	t.Helper()
	r := must[*Roster](t)(NewRoster(pub("owner"), genesis()))
	certs := certificates()
	for _, n := range names {
		must[Member](t)(r.Add(certs[n]))
	}
	return r
}

var everyone = []string{"founder", "admin", "admin2", "alice", "bob", "carol"}

// removal is signer's removal of member.
func removal(signer, member string, m Removal) wire.Signed {
	m.Mesh, m.Member = mesh, pub(member)
	if m.Revoked == 0 {
		m.Revoked = now
	}
	if m.Reason == "" {
		m.Reason = ReasonRemoved
	}
	return SignRemoval(key(signer), m)
}

func keys(names ...string) (out []wire.Key) {
	for _, n := range names {
		out = append(out, pub(n))
	}
	return out
}
