package seal

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// frozen is testdata/envelope.json: what is deterministic in an envelope, byte
// by byte, and sealed instances, which must open and never change.
type frozen struct {
	Comment string              `json:"_comment"`
	Seeds   map[string]hexBytes `json:"seeds"`
	Inner   []innerVector       `json:"inner"`
	Sealed  []sealedVector      `json:"sealed"` // only -update makes them anew
	MeshKey []keyVector         `json:"meshKeys"`
}

type innerVector struct {
	Name      string   `json:"name"`
	Header    hexBytes `json:"header"`
	Signed    hexBytes `json:"signed"`
	Signature hexBytes `json:"signature"`
	Inner     hexBytes `json:"inner"` // before padding
	Padded    int      `json:"padded"`
}

type sealedVector struct {
	Name string    `json:"name"`
	Own  string    `json:"own"`
	Code wire.Code `json:"code,omitempty"`
	Push string    `json:"push"`
	Seq  uint64    `json:"seq,omitempty"`
}

type keyVector struct {
	Name       string    `json:"name"` // secret, box or card
	Code       wire.Code `json:"code,omitempty"`
	Generation uint64    `json:"generation"`
	Key        hexBytes  `json:"key"`
	Sealed     hexBytes  `json:"sealed"`
}

const frozenFile = "testdata/envelope.json"

func innerVectors() (out []innerVector) {
	reply := header(wire.ModeDM, "alice/1", "bob/1")
	reply.ReplyTo, reply.Replaces, reply.Priority = wire.ID{4}, wire.ID{5}, wire.PriorityNow
	for _, v := range []struct {
		name, from string
		kind       byte
		h          Header
	}{
		{"dm", "alice/1", kindDirect, header(wire.ModeDM, "alice/1", "bob/1")},
		{"dm that answers and replaces", "alice/1", kindDirect, reply},
		{"dm of a member", "alice", kindDirect, header(wire.ModeDM, "alice", "bob")},
		{"group", "alice/1", kindGroup, header(wire.ModeGroup, "alice/1", "@all")},
		{"broadcast", "alice/1", kindGroup, header(wire.ModeBroadcast, "alice/1", "*")},
		{"receipt", "alice/1", kindDirect, header(wire.ModeReceipt, "alice/1", "bob/1")},
	} {
		s, _ := sender(v.from)
		enc := v.h.encode()
		body := envelopeSignature(enc, text)
		sig := s.Session.Sign(body)
		plain := raw(v.kind, enc, text, s)
		out = append(out, innerVector{v.name, enc, body, sig[:], plain, Padded(len(plain))})
	}
	return out
}

func makeSealed(t *testing.T) (out []sealedVector) {
	t.Helper()
	add := func(name, own string, code wire.Code, p *wire.Push, seq uint64) {
		b, err := wire.Append(nil, p)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, sealedVector{name, own, code, string(b), seq})
	}
	h := header(wire.ModeDM, "alice/1", "bob/1")
	dm := direct(t, h, text, "alice/1", "bob/1")
	add("dm", "bob/1", "", dm, 9)
	add("dm of a member", "bob", "", direct(t, header(wire.ModeDM, "alice", "bob"), text, "alice", "bob"), 9)
	add("receipt", "bob/1", "", direct(t, header(wire.ModeReceipt, "alice/1", "bob/1"), text, "alice/1", "bob/1"), 9)
	gh := header(wire.ModeGroup, "alice/1", "@all")
	g := group(t, gh, text, "alice/1", "bob/1", "carol/1")
	add("group, first", "bob/1", "", g[0], 20)
	add("group, second", "carol/1", "", g[1], 21)
	add("broadcast", "bob/1", "", group(t, header(wire.ModeBroadcast, "alice/1", "*"), text, "alice/1", "bob/1")[0], 20)
	bad := func(name string, code wire.Code, from *wire.Push, own string, edit func(p *wire.Push)) {
		p := clonePush(from)
		edit(p)
		add(name, own, code, p, 0)
	}
	s, _ := sender("alice/1")
	plain := raw(kindDirect, h.encode(), text, s)
	dirty := pad(bytes.Clone(plain))
	dirty[len(dirty)-1] = 1
	unsigned := bytes.Clone(plain)
	unsigned[len(unsigned)-1] ^= 1
	with := func(edit func(h *Header)) []byte { x := h; edit(&x); return pad(raw(kindDirect, x.encode(), text, s)) }
	same := func(*wire.Push) {}
	bad("tampered", wire.CodeBadBox, dm, "bob/1", func(p *wire.Push) { p.Ciphertext[0] ^= 1 })
	bad("body swapped", wire.CodeBodyHash, g[0], "bob/1", func(p *wire.Push) { p.Ciphertext[0] ^= 1 })
	bad("relabelled", wire.CodeHeaderMismatch, dm, "bob/1", func(p *wire.Push) { p.Priority = wire.PriorityLow })
	bad("reflected", wire.CodeReflected, dm, "alice/1", func(p *wire.Push) { p.SenderPubkey, p.SenderMember = pub("bob/1"), pub("bob") })
	bad("padding", wire.CodeBadPadding, seal(t, h, dirty), "bob/1", same)
	bad("malformed", wire.CodeBadEnvelope, seal(t, h, plain[:40]), "bob/1", same)
	bad("unsigned", wire.CodeBadSignature, seal(t, h, pad(unsigned)), "bob/1", same)
	bad("another mesh", wire.CodeWrongMesh, seal(t, h, with(func(h *Header) { h.Mesh[0] ^= 1 })), "bob/1", same)
	bad("another recipient", wire.CodeWrongRecipient, seal(t, h, with(func(h *Header) { h.Recipient = pub("carol/1") })), "bob/1", same)
	bad("lifetime", wire.CodeBadLifetime, seal(t, h, with(func(h *Header) { h.Sent = h.Expires })), "bob/1", same)
	bad("no attestation", wire.CodeBadAttestation, seal(t, h, pad(raw(kindDirect, h.encode(), text, Sender{Session: key("alice/1")}))), "bob/1", same)
	return out
}

func makeKeys(t *testing.T) []keyVector {
	t.Helper()
	k := MeshKey{Generation: 2, Key: seed("mesh key 2")}
	return []keyVector{
		{"secret", "", 2, k.Key[:], k.Secret(mesh, seed("blob key"))},
		{"box", "", 2, k.Key[:], k.Box(mesh, shared(t, "alice", "bob"))},
		{"card", "", 2, k.Key[:], Card(k, []byte(`{"label":"checkout"}`))},
		{"secret", wire.CodeWrongMesh, 2, k.Key[:], k.Secret(wire.ID{1}, seed("blob key"))},
		{"secret", wire.CodeBadBox, 2, k.Key[:], k.Secret(mesh, seed("another blob key"))},
		{"card", wire.CodeBadBox, 2, k.Key[:], Card(NewMeshKey(2), []byte("{}"))},
	}
}

func TestFrozen(t *testing.T) {
	want := frozen{
		Comment: "Envelopes of the claudemesh protocol, version 2; hex, pushes as frames. Content: text/plain \"hello, peer\". " +
			"A vector with a code must fail with exactly that one.",
		Seeds: map[string]hexBytes{}, Inner: innerVectors(),
	}
	for _, n := range []string{"owner", "alice", "bob", "alice/1", "bob/1", "carol/1", "blob key", "mesh key 2"} {
		s := seed(n)
		want.Seeds[n] = s[:]
	}
	if *update {
		want.Sealed, want.MeshKey = makeSealed(t), makeKeys(t)
		b, err := json.MarshalIndent(want, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(frozenFile, append(b, '\n'), 0o644); err != nil { // testdata
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(frozenFile)
	if err != nil {
		t.Fatal(err)
	}
	var v frozen
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	for i, in := range v.Inner {
		a, err1 := json.Marshal(in)
		b, err2 := json.Marshal(want.Inner[i])
		if err1 != nil || err2 != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: the bytes changed; signed bytes are forever", in.Name)
		}
	}
	if len(v.Inner) != len(want.Inner) || len(v.Sealed) == 0 || len(v.MeshKey) == 0 {
		t.Error("the file is incomplete")
	}
	for _, s := range v.Sealed {
		t.Run(s.Name, func(t *testing.T) {
			f, err := wire.Decode([]byte(s.Push))
			if err != nil {
				t.Fatal(err)
			}
			o, err := openAs(s.Own, f.(*wire.Push))
			wantCode(t, err, s.Code)
			if err == nil && (o.Content.Type != text.Type || !bytes.Equal(o.Content.Body, text.Body) || o.Header.Seq != s.Seq) {
				t.Errorf("opened as %q, seq %d", o.Content.Body, o.Header.Seq)
			}
		})
	}
	for _, k := range v.MeshKey {
		t.Run(k.Name+string(k.Code), func(t *testing.T) { k.check(t) })
	}
}

func (v keyVector) check(t *testing.T) {
	t.Helper()
	want := MeshKey{v.Generation, [32]byte(v.Key)}
	var got MeshKey
	var err error
	switch v.Name {
	case "secret":
		got, err = OpenMeshKey(mesh, v.Sealed, seed("blob key"))
	case "box":
		got, err = OpenMeshKeyBox(mesh, v.Sealed, shared(t, "bob", "alice"))
	case "card":
		var c []byte
		if c, err = OpenCard(want, v.Sealed); string(c) == `{"label":"checkout"}` {
			got = want
		}
	}
	wantCode(t, err, v.Code)
	if err == nil && got != want {
		t.Errorf("%+v", got)
	}
}
