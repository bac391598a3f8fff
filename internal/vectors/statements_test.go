package vectors_test

import (
	"crypto/sha256"
	"maps"
	"slices"
	"strings"

	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/vectors"
	"github.com/claudemesh/claudemesh/internal/wire"
)

const (
	badCertificate = string(wire.CodeBadCertificate)
	badSignature   = string(wire.CodeBadSignature)
	forbidden      = string(wire.CodeForbidden)
)

// statementsIn is the input of the kinds that are statements.
type statementsIn struct {
	Statements wire.Certificate `json:"statements"`
}

func statement(kind, name, class string, of ...wire.Signed) vectors.Case {
	return newCase(kind, name, class, statementsIn{of}, nil)
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
	whole func(wire.Signed) wire.Certificate
}

func (s shape) with(i int, f []byte) [][]byte {
	out := slices.Clone(s.fields)
	out[i] = f
	return out
}

func shapes() []shape {
	o, b := pub("owner"), pub("broker")
	one := func(s wire.Signed) wire.Certificate { return wire.Certificate{s} }
	open, ik, iid := capability("owner", "open", trust.RoleMember, 3), inviteOf("open").Public(), inviteID("open")
	dave, admin, alice := pub("dave"), pub("admin"), pub("alice")
	h := sha256.Sum256(open.Body)
	hash := trust.KeyHash(mesh, 2, seed("mesh key 2"))
	return []shape{
		{kind: "genesis", ds: "genesis", signer: "owner", mesh: 0, names: []int{2}, times: []int{3}, whole: one,
			fields: [][]byte{mesh[:], o[:], []byte("home"), trust.U64(now)}},
		{kind: "certificate", ds: "member", signer: "owner", mesh: 0, names: []int{2, 3}, times: []int{4}, whole: one,
			fields: [][]byte{mesh[:], dave[:], []byte("dave"), []byte("owner"), trust.U64(now)}},
		{kind: "capability", ds: "invite", signer: "owner", mesh: 0, names: []int{3}, times: []int{4}, whole: one,
			fields: [][]byte{mesh[:], iid[:], ik[:], []byte("member"), trust.U64(now), trust.U64(1), b[:], o[:]}},
		{kind: "certificate", ds: "join", invite: true, mesh: -1, names: []int{2}, times: []int{3},
			fields: [][]byte{h[:], dave[:], []byte("dave"), trust.U64(now)},
			whole: func(s wire.Signed) wire.Certificate {
				return wire.Certificate{open, s, sign(key("dave"), possession(s.Body))}
			}},
		{kind: "close", ds: "invite-close", signer: "owner", mesh: 0, whole: one,
			fields: [][]byte{mesh[:], iid[:], o[:], alice[:]}},
		{kind: "removal", ds: "revoke", signer: "owner", mesh: 0, names: []int{4}, times: []int{3, 6}, whole: one,
			fields: [][]byte{mesh[:], admin[:], o[:], trust.U64(now), []byte("removed"), alice[:], trust.U64(7), trust.U64(2), hash[:]}},
		{kind: "role", ds: "role", signer: "owner", mesh: 0, names: []int{2}, times: []int{3}, whole: one,
			fields: [][]byte{mesh[:], admin[:], []byte("member"), trust.U64(now), alice[:]}},
		{kind: "pause", ds: "pause", signer: "owner", mesh: 0, times: []int{2}, whole: one,
			fields: [][]byte{mesh[:], o[:], trust.U64(now)}},
		{kind: "pause", ds: "resume", signer: "owner", mesh: 0, whole: one,
			fields: [][]byte{mesh[:], o[:], h[:]}},
	}
}

// vectors makes the positive and negative vectors of every statement.
func statements() (out []vectors.Case) {
	badNames := map[string]string{"an empty name": "", "an uppercase name": "Bob", "a name with a space": "b b", "a name that starts with a dot": ".b",
		"a long name": strings.Repeat("b", 33), "a name with a line break": "bob\n", "a name with a slash": "bob/x", "a name beyond ASCII": "böb"}
	for _, s := range shapes() {
		k := key(s.signer)
		if s.invite {
			k = inviteOf("open")
		}
		add := func(name string, class string, k trust.SecretKey, body []byte) {
			out = append(out, statement(s.kind, s.ds+": "+name, class, s.whole(sign(k, body))...))
		}
		body := trust.T(s.ds, s.fields...)
		add("valid", "", k, body)
		add("another domain", badCertificate, k, trust.T(s.ds+"x", s.fields...))
		add("another version", badCertificate, k, append([]byte("claudemesh/v3/"), body[len("claudemesh/v2/"):]...))
		add("cut short by a byte", badCertificate, k, body[:len(body)-1])
		add("only the domain", badCertificate, k, trust.T(s.ds))
		add("empty", badCertificate, k, nil)
		add("bytes left over", badCertificate, k, append(slices.Clone(body), 0))
		add("an extra field", badCertificate, k, trust.T(s.ds, append(slices.Clone(s.fields), []byte("x"))...))
		add("a field that claims 4 GiB", badCertificate, k, append(slices.Clone(body), 255, 255, 255, 255, 0))
		for i, f := range s.fields {
			if !slices.Contains(s.names, i) {
				add("field "+string(rune('0'+i))+" a byte short", badCertificate, k, trust.T(s.ds, s.with(i, f[1:])...))
			}
		}
		for _, i := range s.times {
			add("field "+string(rune('0'+i))+" beyond all time", badCertificate, k, trust.T(s.ds, s.with(i, trust.U64(1<<63+now))...))
		}
		for _, i := range s.names {
			for _, what := range slices.Sorted(maps.Keys(badNames)) {
				add("field "+string(rune('0'+i))+" "+what, badCertificate, k, trust.T(s.ds, s.with(i, []byte(badNames[what]))...))
			}
		}
		if s.mesh >= 0 {
			other := trust.MeshID(pub("other owner"))
			add("another mesh", badCertificate, k, trust.T(s.ds, s.with(s.mesh, other[:])...))
		}
		add("signed by another", badSignature, key("mallory"), body)
		tampered := sign(k, body)
		tampered.Sig[5] ^= 1
		out = append(out, statement(s.kind, s.ds+": signature damaged", badSignature, s.whole(tampered)...))
	}
	return append(out, rights()...)
}

// rights are vectors whose bytes are right and whose signer or links are not.
func rights() []vectors.Case {
	open := capability("owner", "open", trust.RoleMember, 3)
	dave := join(open, "open", "dave")
	at := func(i int, s wire.Signed) wire.Certificate {
		c := slices.Clone(dave)
		c[i] = s
		return c
	}
	cert := func(name string, class string, c wire.Certificate) vectors.Case {
		return statement("certificate", "certificate: "+name, class, c...)
	}
	capa := func(name string, class string, s wire.Signed) vectors.Case {
		return statement("capability", "invite: "+name, class, s)
	}
	wrongID := trust.Capability{Mesh: mesh, Invite: inviteID("side"), Key: inviteOf("open").Public(), Role: trust.RoleMember, Expires: now, MaxUses: 1}
	noUses := trust.Capability{Mesh: mesh, Invite: inviteID("open"), Key: inviteOf("open").Public(), Role: trust.RoleMember, Expires: now}
	weakInvite := trust.Capability{Mesh: mesh, Invite: trust.InviteID(weak), Key: weak, Role: trust.RoleMember, Expires: now, MaxUses: 1}
	byMallory, adminByAdmin := capability("mallory", "side", trust.RoleMember, 1), capability("admin", "side", trust.RoleAdmin, 1)
	return []vectors.Case{
		statement("genesis", "genesis: another owner's", badCertificate, trust.SignGenesis(key("mallory"), "home", now)),
		cert("by the owner's invite", "", dave),
		cert("by an admin's invite", "", join(capability("admin", "new", trust.RoleMember, 1), "new", "dave")),
		cert("no statements", badCertificate, nil),
		cert("two statements", badCertificate, dave[:2]),
		cert("four statements", badCertificate, append(slices.Clone(dave), dave[2])),
		cert("order changed", badCertificate, wire.Certificate{dave[1], dave[0], dave[2]}),
		cert("the join is for another invite", badCertificate, at(0, capability("owner", "open", trust.RoleMember, 2))),
		cert("the join is by another invite's key", badSignature, join(open, "side", "dave")),
		cert("the possession is for another join", badCertificate, at(2, join(open, "open", "erin")[2])),
		cert("the possession is by another key", badSignature, at(2, sign(key("mallory"), dave[2].Body))),
		cert("the possession is by the invite key", badSignature, at(2, sign(inviteOf("open"), dave[2].Body))),
		cert("the issuer is unknown", badCertificate, join(byMallory, "side", "dave")),
		cert("an admin makes admins", badCertificate, join(adminByAdmin, "side", "dave")),
		cert("a member issues", badCertificate, join(capability("alice", "side", trust.RoleMember, 1), "side", "dave")),
		cert("the founder's member key issues", badCertificate, join(capability("founder", "side", trust.RoleMember, 1), "side", "dave")),
		cert("the member key is the owner key", badCertificate, trust.SignJoin(inviteOf("open"), key("owner"), open, "dave", now)),
		cert("a founder of small order", badCertificate, wire.Certificate{trust.SignFounder(key("owner"), weak, "dave", now)}),
		cert("a second one for a key", string(wire.CodeMemberConflict), join(capability("owner", "new", trust.RoleMember, 1), "new", "alice")),
		cert("the first again", "", certificates()["alice"]),
		cert("an invite used up", string(wire.CodeInviteOverused), join(capability("owner", "admins", trust.RoleAdmin, 2), "admins", "dave")),
		capa("by an admin", "", capability("admin", "new", trust.RoleMember, 1)),
		capa("an admin makes admins", badCertificate, adminByAdmin),
		capa("the issuer is unknown", badCertificate, byMallory),
		capa("the id does not name the key", badCertificate, trust.SignCapability(key("owner"), wrongID)),
		capa("no uses", badCertificate, trust.SignCapability(key("owner"), noUses)),
		capa("an invite key of small order", badSignature, trust.SignCapability(key("owner"), weakInvite)),
		statement("close", "close: by an admin", "", trust.SignClose(key("admin"), mesh, inviteID("side"), keys("bob"))),
		statement("close", "close: by a member", forbidden, trust.SignClose(key("alice"), mesh, inviteID("side"), nil)),
		statement("close", "close: by a stranger", forbidden, trust.SignClose(key("mallory"), mesh, inviteID("side"), nil)),
		statement("removal", "removal: of a member by an admin", "", removal("admin", "alice", trust.Removal{})),
		statement("removal", "removal: of itself", "", removal("alice", "alice", trust.Removal{Reason: trust.ReasonLeft})),
		statement("removal", "removal: of itself with a mesh key", forbidden, removal("alice", "alice", trust.Removal{Generation: 2})),
		statement("removal", "removal: of itself with a kept list", forbidden, removal("alice", "alice", trust.Removal{Kept: keys("bob")})),
		statement("removal", "removal: an admin leaves and says who stays", "", removal("admin", "admin", trust.Removal{Kept: keys("bob")})),
		statement("removal", "removal: of an admin by an admin", forbidden, removal("admin", "admin2", trust.Removal{})),
		statement("removal", "removal: of the founder by an admin", forbidden, removal("admin", "founder", trust.Removal{})),
		statement("removal", "removal: of a member by a member", forbidden, removal("alice", "bob", trust.Removal{})),
		statement("removal", "removal: by a stranger", forbidden, removal("mallory", "bob", trust.Removal{})),
		statement("removal", "removal: of a stranger by itself", forbidden, removal("mallory", "mallory", trust.Removal{})),
		statement("removal", "removal: for a lost machine", "", removal("owner", "alice", trust.Removal{Reason: trust.ReasonLost})),
		statement("role", "role: a promotion", "", role("owner", "alice", trust.RoleAdmin, now)),
		statement("role", "role: of somebody not known yet", "", role("owner", "dave", trust.RoleAdmin, now)),
		statement("role", "role: a promotion with a kept list", badCertificate, role("owner", "alice", trust.RoleAdmin, now, "bob")),
		statement("role", "role: owner", badCertificate, role("owner", "alice", trust.RoleOwner, now)),
		statement("role", "role: by an admin", badSignature, role("admin", "alice", trust.RoleAdmin, now)),
		statement("role", "role: of itself", badSignature, role("alice", "alice", trust.RoleAdmin, now)),
		statement("role", "role: of the founder", forbidden, role("owner", "founder", trust.RoleMember, now)),
		statement("role", "role: of the owner key", forbidden, role("owner", "owner", trust.RoleMember, now)),
		statement("pause", "pause: by an admin", "", trust.SignPause(key("admin"), mesh, now)),
		statement("pause", "pause: by a member", forbidden, trust.SignPause(key("alice"), mesh, now)),
		statement("pause", "pause: by the founder's member key", forbidden, trust.SignPause(key("founder"), mesh, now)),
		statement("pause", "pause: by a stranger", forbidden, trust.SignPause(key("mallory"), mesh, now)),
		statement("pause", "resume: by an admin", "", trust.SignResume(key("admin"), mesh, sum("pause"))),
		statement("pause", "resume: by a member", forbidden, trust.SignResume(key("alice"), mesh, sum("pause"))),
		statement("pause", "resume: of nothing", badCertificate, trust.SignResume(key("owner"), mesh, [32]byte{})),
	}
}
