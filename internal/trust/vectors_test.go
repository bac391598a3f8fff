package trust

import (
	"encoding/hex"
	"testing"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// frozen is testdata/protocol.json: the protocol's signed bytes, made from
// fixed seeds. Another implementation can be held against it; this one must
// never differ from it.
type frozen struct {
	Comment string              `json:"_comment"`
	Seeds   map[string]hexBytes `json:"seeds"` // ed25519 seeds, and the secrets of invites
	MeshID  string              `json:"meshId"`
	Derived []derived           `json:"invites"`
	KeyHash hexBytes            `json:"meshKeyHash"` // of generation 2, key = seed "mesh key 2"
	Prev    hexBytes            `json:"previousKey"` // from that key
	Link    map[string]string   `json:"link"`
	Signed  []signedT           `json:"signed"` // what is signed outside statements
	Hello   []helloVector       `json:"hello"`  // as frames
	Vectors []vector            `json:"vectors"`
}

type derived struct {
	Name    string   `json:"name"`
	Key     string   `json:"key"`
	ID      string   `json:"id"`
	BlobKey hexBytes `json:"blobKey"`
}

type signedT struct {
	Name   string   `json:"name"`
	Signer string   `json:"signer"`
	T      hexBytes `json:"t"`
	Sig    hexBytes `json:"sig"`
}

type helloVector struct {
	Name  string    `json:"name"`
	Code  wire.Code `json:"code,omitempty"`
	Frame string    `json:"frame"`
}

func makeFrozen(t *testing.T) frozen {
	v := frozen{
		Comment: "Vectors of the claudemesh protocol, version 2; hex. Seeds are SHA-256 of text, see the tests. Mesh: owner's, " +
			"with founder, admin, admin2, alice, bob, carol as members. A vector with a code must fail with exactly that one.",
		Seeds: map[string]hexBytes{}, MeshID: mesh.String(), Vectors: vectors(),
		Link: map[string]string{"ic": testLink().String(), "web": testLink().Web("https://mesh.example")},
	}
	for _, n := range append([]string{"owner", "other owner", "broker", "mallory", "dave", "session"}, everyone...) {
		s := seed(n)
		v.Seeds[n] = s[:]
	}
	for _, n := range []string{"admins", "open", "side", "new"} {
		s, b := secret(n), secret(n).BlobKey()
		v.Seeds["invite "+n] = s[:]
		v.Derived = append(v.Derived, derived{n, inviteOf(n).Public().String(), inviteID(n).String(), b[:]})
	}
	k := seed("mesh key 2")
	h, p := KeyHash(mesh, 2, k), PreviousKey(k)
	v.Seeds["mesh key 2"], v.KeyHash, v.Prev = k[:], h[:], p[:]

	nonce := wire.Nonce32(seed("nonce"))
	put := func(name, signer string, body []byte, sig wire.Sig) {
		v.Signed = append(v.Signed, signedT{name, signer, body, sig[:]})
	}
	put("challenge", "broker", T("challenge", nonce[:]), SignChallenge(key("broker"), nonce))
	ses := helloOf(wire.RoleSession)
	put("session", "alice", attestation(mesh, ses.Pubkey, ses.SessionPubkey, now), ses.Attestation.Sig)
	put("card", "session", card(mesh, ses.Pubkey, ses.SessionPubkey, ses.Card), ses.Card.Sig)
	put("hello", "session", hello(pub("broker"), ses), ses.Sig)
	obs := helloOf(wire.RoleObserver)
	put("hello of an observer", "alice", hello(pub("broker"), obs), obs.Sig)
	req := sum("request")
	put("joined", "broker", T("joined", req[:], []byte("blob")), SignJoined(key("broker"), []byte("request"), []byte("blob")))

	add := func(name string, code wire.Code, h *wire.Hello) {
		b, err := wire.Append(nil, h)
		if err != nil {
			t.Fatal(err)
		}
		v.Hello = append(v.Hello, helloVector{name, code, string(b)})
	}
	for _, r := range []wire.Role{wire.RoleSession, wire.RolePerson, wire.RoleObserver} {
		add(string(r), "", helloOf(r))
	}
	bad := func(name string, code wire.Code, edit func(h *wire.Hello)) {
		h := helloOf(wire.RoleSession)
		edit(h)
		add(name, code, h)
	}
	bad("another nonce", wire.CodeBadSignature, func(h *wire.Hello) { h.Nonce[0] ^= 1 })
	bad("another attestation", wire.CodeBadAttestation, func(h *wire.Hello) { h.Attestation.Issued++ })
	bad("another card", wire.CodeBadCard, func(h *wire.Hello) { h.Card.Seq++ })
	bad("an unknown role", wire.CodeBadFrame, func(h *wire.Hello) { h.Role = "root" })
	return v
}

func TestFrozen(t *testing.T) {
	v := golden(t, "testdata/protocol.json", makeFrozen(t))
	pubOf := func(name string) wire.Key { return SecretKeyFromSeed([32]byte(v.Seeds[name])).Public() }
	if MeshID(pubOf("owner")).String() != v.MeshID {
		t.Error("mesh id")
	}
	for _, d := range v.Derived {
		s := Secret(v.Seeds["invite "+d.Name])
		if b := s.BlobKey(); s.InviteKey().Public().String() != d.Key || InviteID(s.InviteKey().Public()).String() != d.ID || b != [32]byte(d.BlobKey) {
			t.Errorf("invite %s", d.Name)
		}
	}
	if KeyHash(mesh, 2, [32]byte(v.Seeds["mesh key 2"])) != [32]byte(v.KeyHash) || PreviousKey([32]byte(v.Seeds["mesh key 2"])) != [32]byte(v.Prev) {
		t.Error("mesh key hash or previous key")
	}
	for form, s := range v.Link {
		if l, err := ParseLink(s); err != nil || l != testLink() {
			t.Errorf("link %s: %v", form, err)
		}
	}
	for _, s := range v.Signed {
		if !Verify(pubOf(s.Signer), s.T, wire.Sig(s.Sig)) {
			t.Errorf("%s does not verify: %s", s.Name, hex.EncodeToString(s.T))
		}
	}
	for _, h := range v.Hello {
		f, err := wire.Decode([]byte(h.Frame))
		if err != nil {
			t.Fatal(h.Name, err)
		}
		t.Run("hello "+h.Name, func(t *testing.T) { wantCode(t, VerifyHello(pubOf("broker"), f.(*wire.Hello)), h.Code) })
	}
	for _, c := range v.Vectors {
		t.Run(c.Name, func(t *testing.T) { wantCode(t, c.apply(t), c.Code) })
	}
}

// T's layout, spelled out once by hand.
func TestEncoding(t *testing.T) {
	t.Parallel()
	got := string(T("ds", []byte("ab"), nil, U64(258)))
	want := "claudemesh/v2/ds\x00" + "\x00\x00\x00\x02ab" + "\x00\x00\x00\x00" + "\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x01\x02"
	if got != want {
		t.Errorf("%q", got)
	}
	if H("ds") != sum("claudemesh/v2/ds\x00") {
		t.Error("H")
	}
}
