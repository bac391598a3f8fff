package trust

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/claudemesh/claudemesh/internal/vectors"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// published returns the cases of a part of the published set.
func published(t testing.TB, part string) []vectors.Case {
	t.Helper()
	f := must[vectors.File](t)(vectors.Read(part))
	if len(f.Cases) == 0 {
		t.Fatalf("%s has no cases", part)
	}
	return f.Cases
}

func input[T any](t testing.TB, c vectors.Case) (in T) {
	t.Helper()
	if err := json.Unmarshal(c.In, &in); err != nil {
		t.Fatal(c.Name, err)
	}
	return in
}

// statements of a case of that kind.
func statements(t testing.TB, c vectors.Case) wire.Certificate {
	t.Helper()
	return input[struct{ Statements wire.Certificate }](t, c).Statements
}

// TestStatements gives each published statement to what verifies it, in the
// mesh of everyone. Package vectors makes them.
func TestStatements(t *testing.T) {
	t.Parallel()
	for _, c := range published(t, "statements") {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			r, s := roster(t, everyone...), statements(t, c)
			var err error
			switch c.Kind {
			case "genesis":
				_, err = NewRoster(pub("owner"), s[0])
			case "certificate":
				_, err = r.Add(s)
			case "capability":
				_, err = r.VerifyCapability(s[0])
			case "close":
				_, err = r.VerifyClose(s[0])
			case "removal":
				_, err = r.VerifyRemoval(s[0])
			case "role":
				_, err = r.VerifyRole(s[0])
			case "pause":
				_, err = r.VerifyPause(s[0])
			default:
				t.Fatalf("unknown kind %q", c.Kind)
			}
			wantCode(t, err, wire.Code(c.Class))
		})
	}
}

func TestParsedFields(t *testing.T) {
	t.Parallel()
	g := must[Genesis](t)(VerifyGenesis(genesis()))
	if g != (Genesis{Mesh: mesh, Owner: pub("owner"), Name: "home", Created: now}) {
		t.Errorf("genesis %+v", g)
	}
	c := must[Capability](t)(ParseCapability(capability("admin", "side", RoleMember, 9)))
	want := Capability{mesh, inviteID("side"), inviteOf("side").Public(), RoleMember, now + 1000, 9, pub("broker"), pub("admin")}
	if c != want {
		t.Errorf("capability %+v", c)
	}
	cl := must[Close](t)(ParseClose(SignClose(key("owner"), mesh, inviteID("side"), keys("bob", "carol"))))
	if cl.Mesh != mesh || cl.Invite != inviteID("side") || cl.Signer != pub("owner") || !slices.Equal(cl.Admitted, keys("bob", "carol")) {
		t.Errorf("close %+v", cl)
	}
	h := KeyHash(mesh, 3, seed("k"))
	m := must[Removal](t)(ParseRemoval(removal("owner", "admin", Removal{Kept: keys("bob", "carol"), MembersVersion: 12, Generation: 3, KeyHash: h})))
	if m.Mesh != mesh || m.Member != pub("admin") || m.Signer != pub("owner") || m.Revoked != now || m.Reason != ReasonRemoved ||
		!slices.Equal(m.Kept, keys("bob", "carol")) || m.MembersVersion != 12 || m.Generation != 3 || m.KeyHash != h {
		t.Errorf("removal %+v", m)
	}
	a := must[Member](t)(roster(t, "admin").Add(certificates()["bob"]))
	if a.Key != pub("bob") || a.Name != "bob" || a.Role != RoleMember || a.Issuer != pub("admin") || a.Joined != now || a.Invite != inviteID("side") {
		t.Errorf("member %+v", a)
	}
	f := must[Member](t)(roster(t).Add(certificates()["founder"]))
	if f.Role != RoleOwner || f.Issuer != pub("owner") || !f.Invite.IsZero() {
		t.Errorf("founder %+v", f)
	}
}
