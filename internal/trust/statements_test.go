package trust

import (
	"crypto/sha256"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// vector is one statement or certificate and what becomes of it.
type vector struct {
	Name string      `json:"name"`
	Kind string      `json:"kind"`
	Code wire.Code   `json:"code,omitempty"` // "" when it must verify
	Of   []statement `json:"statements"`
}

type statement struct {
	Body hexBytes `json:"body"`
	Sig  hexBytes `json:"sig"`
}

func (v vector) signed() (out []wire.Signed) {
	for _, s := range v.Of {
		out = append(out, wire.Signed{Body: wire.Blob(s.Body), Sig: wire.Sig(s.Sig)})
	}
	return out
}

func newVector(name, kind string, code wire.Code, of ...wire.Signed) vector {
	v := vector{Name: name, Kind: kind, Code: code}
	for _, s := range of {
		v.Of = append(v.Of, statement{hexBytes(s.Body), s.Sig[:]})
	}
	return v
}

// apply gives the vector's statements to whatever verifies that kind, in the
// mesh of everyone.
func (v vector) apply(t testing.TB) error {
	t.Helper()
	s := v.signed()
	var err error
	switch v.Kind {
	case "genesis":
		_, err = NewRoster(pub("owner"), s[0])
	case "certificate":
		_, err = roster(t, everyone...).Add(wire.Certificate(s))
	case "capability":
		_, err = roster(t, everyone...).VerifyCapability(s[0])
	case "close":
		_, err = roster(t, everyone...).AddClose(s[0])
	case "removal":
		_, err = roster(t, everyone...).AddRemoval(s[0])
	case "role":
		_, err = roster(t, everyone...).AddRole(s[0])
	case "pause":
		_, err = roster(t, everyone...).AddPause(s[0])
	default:
		t.Fatalf("unknown kind %q", v.Kind)
	}
	return err
}

// shape is a valid statement by its parts, from which damaged ones are made.
type shape struct {
	kind, ds, signer string
	fields           [][]byte
	mesh             int   // the index of the mesh id, -1 for none
	names            []int // the indices of names and enums
	times            []int
	invite           bool // the invite key signs, not signer
	// whole makes of the statement what kind wants.
	whole func(wire.Signed) []wire.Signed
}

func (s shape) sign(name string, code wire.Code, k SecretKey, body []byte) vector {
	return newVector(s.ds+": "+name, s.kind, code, s.whole(sign(k, body))...)
}

func (s shape) with(i int, f []byte) [][]byte {
	out := slices.Clone(s.fields)
	out[i] = f
	return out
}

func shapes() []shape {
	o, b := pub("owner"), pub("broker")
	one := func(s wire.Signed) []wire.Signed { return []wire.Signed{s} }
	open, ik, iid := capability("owner", "open", RoleMember, 3), inviteOf("open").Public(), inviteID("open")
	dave, admin, alice := pub("dave"), pub("admin"), pub("alice")
	h := sha256.Sum256(open.Body)
	hash := KeyHash(mesh, 2, seed("mesh key 2"))
	return []shape{
		{kind: "genesis", ds: "genesis", signer: "owner", mesh: 0, names: []int{2}, times: []int{3}, whole: one,
			fields: [][]byte{mesh[:], o[:], []byte("home"), U64(now)}},
		{kind: "certificate", ds: "member", signer: "owner", mesh: 0, names: []int{2, 3}, times: []int{4}, whole: one,
			fields: [][]byte{mesh[:], dave[:], []byte("dave"), []byte("owner"), U64(now)}},
		{kind: "capability", ds: "invite", signer: "owner", mesh: 0, names: []int{3}, times: []int{4}, whole: one,
			fields: [][]byte{mesh[:], iid[:], ik[:], []byte("member"), U64(now), U64(1), b[:], o[:]}},
		{kind: "certificate", ds: "join", invite: true, mesh: -1, names: []int{2}, times: []int{3},
			fields: [][]byte{h[:], dave[:], []byte("dave"), U64(now)},
			whole: func(s wire.Signed) []wire.Signed {
				return []wire.Signed{open, s, sign(key("dave"), possession(s.Body))}
			}},
		{kind: "close", ds: "invite-close", signer: "owner", mesh: 0, whole: one,
			fields: [][]byte{mesh[:], iid[:], o[:], alice[:]}},
		{kind: "removal", ds: "revoke", signer: "owner", mesh: 0, names: []int{4}, times: []int{3, 6}, whole: one,
			fields: [][]byte{mesh[:], admin[:], o[:], U64(now), []byte("removed"), alice[:], U64(7), U64(2), hash[:]}},
		{kind: "role", ds: "role", signer: "owner", mesh: 0, names: []int{2}, times: []int{3}, whole: one,
			fields: [][]byte{mesh[:], admin[:], []byte("member"), U64(now), alice[:]}},
		{kind: "pause", ds: "pause", signer: "owner", mesh: 0, times: []int{2}, whole: one,
			fields: [][]byte{mesh[:], o[:], U64(now)}},
		{kind: "pause", ds: "resume", signer: "owner", mesh: 0, whole: one,
			fields: [][]byte{mesh[:], o[:], h[:]}},
	}
}

// vectors makes the positive and negative vectors of every statement.
func vectors() (out []vector) {
	badNames := map[string]string{"an empty name": "", "an uppercase name": "Bob", "a name with a space": "b b", "a name that starts with a dot": ".b",
		"a long name": strings.Repeat("b", 33), "a name with a line break": "bob\n", "a name with a slash": "bob/x", "a name beyond ASCII": "böb"}
	for _, s := range shapes() {
		k := key(s.signer)
		if s.invite {
			k = inviteOf("open")
		}
		add := func(name string, code wire.Code, k SecretKey, body []byte) {
			out = append(out, s.sign(name, code, k, body))
		}
		body := T(s.ds, s.fields...)
		add("valid", "", k, body)
		add("another domain", wire.CodeBadCertificate, k, T(s.ds+"x", s.fields...))
		add("another version", wire.CodeBadCertificate, k, append([]byte("claudemesh/v3/"), body[len(domain):]...))
		add("cut short by a byte", wire.CodeBadCertificate, k, body[:len(body)-1])
		add("only the domain", wire.CodeBadCertificate, k, T(s.ds))
		add("empty", wire.CodeBadCertificate, k, nil)
		add("bytes left over", wire.CodeBadCertificate, k, append(slices.Clone(body), 0))
		add("an extra field", wire.CodeBadCertificate, k, T(s.ds, append(slices.Clone(s.fields), []byte("x"))...))
		add("a field that claims 4 GiB", wire.CodeBadCertificate, k, append(slices.Clone(body), 255, 255, 255, 255, 0))
		for i, f := range s.fields {
			if !slices.Contains(s.names, i) {
				add("field "+string(rune('0'+i))+" a byte short", wire.CodeBadCertificate, k, T(s.ds, s.with(i, f[1:])...))
			}
		}
		for _, i := range s.times {
			add("field "+string(rune('0'+i))+" beyond all time", wire.CodeBadCertificate, k, T(s.ds, s.with(i, U64(1<<63+now))...))
		}
		for _, i := range s.names {
			for _, what := range slices.Sorted(maps.Keys(badNames)) {
				add("field "+string(rune('0'+i))+" "+what, wire.CodeBadCertificate, k, T(s.ds, s.with(i, []byte(badNames[what]))...))
			}
		}
		if s.mesh >= 0 {
			other := MeshID(pub("other owner"))
			add("another mesh", wire.CodeBadCertificate, k, T(s.ds, s.with(s.mesh, other[:])...))
		}
		add("signed by another", wire.CodeBadSignature, key("mallory"), body)
		tampered := sign(k, body)
		tampered.Sig[5] ^= 1
		out = append(out, newVector(s.ds+": signature damaged", s.kind, wire.CodeBadSignature, s.whole(tampered)...))
	}
	return append(out, rights()...)
}

// rights are vectors whose bytes are right and whose signer or links are not.
func rights() []vector {
	open := capability("owner", "open", RoleMember, 3)
	dave := join(open, "open", "dave")
	at := func(i int, s wire.Signed) wire.Certificate {
		c := slices.Clone(dave)
		c[i] = s
		return c
	}
	cert := func(name string, code wire.Code, c wire.Certificate) vector {
		return newVector("certificate: "+name, "certificate", code, c...)
	}
	capa := func(name string, code wire.Code, s wire.Signed) vector {
		return newVector("invite: "+name, "capability", code, s)
	}
	wrongID := Capability{Mesh: mesh, Invite: inviteID("side"), Key: inviteOf("open").Public(), Role: RoleMember, Expires: now, MaxUses: 1}
	noUses := Capability{Mesh: mesh, Invite: inviteID("open"), Key: inviteOf("open").Public(), Role: RoleMember, Expires: now}
	weak := wire.Key{1}
	weakInvite := Capability{Mesh: mesh, Invite: InviteID(weak), Key: weak, Role: RoleMember, Expires: now, MaxUses: 1}
	byMallory, adminByAdmin := capability("mallory", "side", RoleMember, 1), capability("admin", "side", RoleAdmin, 1)
	return []vector{
		newVector("genesis: another owner's", "genesis", wire.CodeBadCertificate, SignGenesis(key("mallory"), "home", now)),
		cert("by the owner's invite", "", dave),
		cert("by an admin's invite", "", join(capability("admin", "new", RoleMember, 1), "new", "dave")),
		cert("no statements", wire.CodeBadCertificate, nil),
		cert("two statements", wire.CodeBadCertificate, dave[:2]),
		cert("four statements", wire.CodeBadCertificate, append(slices.Clone(dave), dave[2])),
		cert("order changed", wire.CodeBadCertificate, wire.Certificate{dave[1], dave[0], dave[2]}),
		cert("the join is for another invite", wire.CodeBadCertificate, at(0, capability("owner", "open", RoleMember, 2))),
		cert("the join is by another invite's key", wire.CodeBadSignature, join(open, "side", "dave")),
		cert("the possession is for another join", wire.CodeBadCertificate, at(2, join(open, "open", "erin")[2])),
		cert("the possession is by another key", wire.CodeBadSignature, at(2, sign(key("mallory"), dave[2].Body))),
		cert("the possession is by the invite key", wire.CodeBadSignature, at(2, sign(inviteOf("open"), dave[2].Body))),
		cert("the issuer is unknown", wire.CodeBadCertificate, join(byMallory, "side", "dave")),
		cert("an admin makes admins", wire.CodeBadCertificate, join(adminByAdmin, "side", "dave")),
		cert("a member issues", wire.CodeBadCertificate, join(capability("alice", "side", RoleMember, 1), "side", "dave")),
		cert("the founder's member key issues", wire.CodeBadCertificate, join(capability("founder", "side", RoleMember, 1), "side", "dave")),
		cert("the member key is the owner key", wire.CodeBadCertificate, SignJoin(inviteOf("open"), key("owner"), open, "dave", now)),
		cert("a founder of small order", wire.CodeBadCertificate, wire.Certificate{SignFounder(key("owner"), weak, "dave", now)}),
		cert("a second one for a key", wire.CodeMemberConflict, join(capability("owner", "new", RoleMember, 1), "new", "alice")),
		cert("the first again", "", certificates()["alice"]),
		cert("an invite used up", wire.CodeInviteOverused, join(capability("owner", "admins", RoleAdmin, 2), "admins", "dave")),
		capa("by an admin", "", capability("admin", "new", RoleMember, 1)),
		capa("an admin makes admins", wire.CodeBadCertificate, adminByAdmin),
		capa("the issuer is unknown", wire.CodeBadCertificate, byMallory),
		capa("the id does not name the key", wire.CodeBadCertificate, SignCapability(key("owner"), wrongID)),
		capa("no uses", wire.CodeBadCertificate, SignCapability(key("owner"), noUses)),
		capa("an invite key of small order", wire.CodeBadSignature, SignCapability(key("owner"), weakInvite)),
		newVector("close: by an admin", "close", "", SignClose(key("admin"), mesh, inviteID("side"), keys("bob"))),
		newVector("close: by a member", "close", wire.CodeForbidden, SignClose(key("alice"), mesh, inviteID("side"), nil)),
		newVector("close: by a stranger", "close", wire.CodeForbidden, SignClose(key("mallory"), mesh, inviteID("side"), nil)),
		newVector("removal: of a member by an admin", "removal", "", removal("admin", "alice", Removal{})),
		newVector("removal: of itself", "removal", "", removal("alice", "alice", Removal{Reason: ReasonLeft})),
		newVector("removal: of itself with a mesh key", "removal", wire.CodeForbidden, removal("alice", "alice", Removal{Generation: 2})),
		newVector("removal: of itself with a kept list", "removal", wire.CodeForbidden, removal("alice", "alice", Removal{Kept: keys("bob")})),
		newVector("removal: an admin leaves and says who stays", "removal", "", removal("admin", "admin", Removal{Kept: keys("bob")})),
		newVector("removal: of an admin by an admin", "removal", wire.CodeForbidden, removal("admin", "admin2", Removal{})),
		newVector("removal: of the founder by an admin", "removal", wire.CodeForbidden, removal("admin", "founder", Removal{})),
		newVector("removal: of a member by a member", "removal", wire.CodeForbidden, removal("alice", "bob", Removal{})),
		newVector("removal: by a stranger", "removal", wire.CodeForbidden, removal("mallory", "bob", Removal{})),
		newVector("removal: of a stranger by itself", "removal", wire.CodeForbidden, removal("mallory", "mallory", Removal{})),
		newVector("removal: for a lost machine", "removal", "", removal("owner", "alice", Removal{Reason: ReasonLost})),
		newVector("role: a promotion", "role", "", role("owner", "alice", RoleAdmin, now)),
		newVector("role: of somebody not known yet", "role", "", role("owner", "dave", RoleAdmin, now)),
		newVector("role: a promotion with a kept list", "role", wire.CodeBadCertificate, role("owner", "alice", RoleAdmin, now, "bob")),
		newVector("role: owner", "role", wire.CodeBadCertificate, role("owner", "alice", RoleOwner, now)),
		newVector("role: by an admin", "role", wire.CodeBadSignature, role("admin", "alice", RoleAdmin, now)),
		newVector("role: of itself", "role", wire.CodeBadSignature, role("alice", "alice", RoleAdmin, now)),
		newVector("role: of the founder", "role", wire.CodeForbidden, role("owner", "founder", RoleMember, now)),
		newVector("role: of the owner key", "role", wire.CodeForbidden, role("owner", "owner", RoleMember, now)),
		newVector("pause: by an admin", "pause", "", SignPause(key("admin"), mesh, now)),
		newVector("pause: by a member", "pause", wire.CodeForbidden, SignPause(key("alice"), mesh, now)),
		newVector("pause: by the founder's member key", "pause", wire.CodeForbidden, SignPause(key("founder"), mesh, now)),
		newVector("pause: by a stranger", "pause", wire.CodeForbidden, SignPause(key("mallory"), mesh, now)),
		newVector("resume: by an admin", "pause", "", SignResume(key("admin"), mesh, sum("pause"))),
		newVector("resume: by a member", "pause", wire.CodeForbidden, SignResume(key("alice"), mesh, sum("pause"))),
		newVector("resume: of nothing", "pause", wire.CodeBadCertificate, SignResume(key("owner"), mesh, [32]byte{})),
	}
}

func TestStatements(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, v := range vectors() {
		if seen[v.Kind+v.Name] {
			t.Errorf("two vectors are named %q", v.Name)
		}
		seen[v.Kind+v.Name] = true
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			wantCode(t, v.apply(t), v.Code)
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
