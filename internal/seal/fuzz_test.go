package seal

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/vectors"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// FuzzOpenDirect: no bytes but a seed's open.
func FuzzOpenDirect(f *testing.F) {
	p := pushes(f, "envelope: dm")[0].push
	f.Add([]byte(p.Nonce), []byte(p.Ciphertext), string(p.Mode))
	f.Add([]byte(p.Nonce), []byte(p.Ciphertext), "receipt")
	f.Add([]byte(p.Nonce), []byte{}, "dm")
	sh := shared(f, "bob/1", "alice/1")
	f.Fuzz(func(t *testing.T, nonce, ciphertext []byte, mode string) {
		q := *p
		q.Nonce, q.Ciphertext, q.Mode = nonce, ciphertext, wire.Mode(mode)
		checkRefused(t, &q, p, sh)
	})
}

// FuzzOpenWrap: no wrap and no body but a seed's open.
func FuzzOpenWrap(f *testing.F) {
	p := pushes(f, "envelope: group, first")[0].push
	f.Add([]byte(p.Nonce), []byte(p.Ciphertext), []byte(p.Wrap))
	f.Add([]byte(p.Nonce), []byte(p.Ciphertext), []byte{})
	sh := shared(f, "bob/1", "alice/1")
	f.Fuzz(func(t *testing.T, nonce, ciphertext, wrap []byte) {
		q := *p
		q.Nonce, q.Ciphertext, q.Wrap = nonce, ciphertext, wrap
		checkRefused(t, &q, p, sh)
	})
}

func checkRefused(t *testing.T, q, p *wire.Push, sh *Shared) {
	t.Helper()
	_, err := Open(q, pub("bob/1"), mesh, sh)
	same := bytes.Equal(q.Nonce, p.Nonce) && bytes.Equal(q.Ciphertext, p.Ciphertext) && bytes.Equal(q.Wrap, p.Wrap) && q.Mode == p.Mode
	if (err == nil) != same || (err != nil && codeOf(err) == "") {
		t.Fatalf("the same: %v, got %v", same, err)
	}
}

// FuzzParseInner: what a peer seals, whatever it is, is refused by a code or
// is what an honest peer would have sealed, padding and all.
func FuzzParseInner(f *testing.F) {
	s, _ := sender("alice/1")
	for _, mode := range []wire.Mode{wire.ModeDM, wire.ModeReceipt, wire.ModeGroup} {
		h, kind := header(mode, "alice/1", "bob/1"), byte(kindDirect)
		if !mode.Direct() {
			kind = kindGroup
		}
		f.Add(string(mode), pad(raw(kind, h.encode(), text, s)))
	}
	f.Add("dm", make([]byte, 256))
	f.Fuzz(func(t *testing.T, mode string, plain []byte) {
		o, head, sig, err := parseInner(wire.Mode(mode), plain)
		if err != nil {
			if codeOf(err) == "" {
				t.Fatalf("an error without a code: %v", err)
			}
			return
		}
		if !bytes.Equal(o.Header.encode(), head) {
			t.Fatalf("the header %x comes back as %x", head, o.Header.encode())
		}
		again := raw(plain[0], head, o.Content, Sender{Session: key("x"), Attestation: o.Attestation})
		copy(again[len(again)-len(sig):], sig[:])
		if !bytes.Equal(pad(again), plain) {
			t.Fatalf("%x comes back as %x", plain, again)
		}
	})
}

// FuzzHeader: a header has one encoding.
func FuzzHeader(f *testing.F) {
	for _, p := range pushes(f, "envelope: ") {
		var out struct{ Header vectors.Hex }
		if err := json.Unmarshal(p.Out, &out); err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(out.Header))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHeader(b)
		if err != nil {
			wantCode(t, err, wire.CodeBadEnvelope)
			return
		}
		if !bytes.Equal(h.encode(), b) {
			t.Fatalf("%x comes back as %x", b, h.encode())
		}
	})
}

// FuzzMeshKey: a mesh key has one encoding.
func FuzzMeshKey(f *testing.F) {
	k := MeshKey{Generation: 7, Key: seed("mesh key 7")}
	f.Add(k.statement(mesh))
	f.Add(k.statement(wire.ID{1}))
	f.Fuzz(func(t *testing.T, plain []byte) {
		k, err := parseMeshKey(mesh, plain)
		if err != nil {
			if c := codeOf(err); c != wire.CodeBadEnvelope && c != wire.CodeWrongMesh {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(k.statement(mesh), plain) {
			t.Fatalf("%x comes back as %x", plain, k.statement(mesh))
		}
	})
}

// FuzzPadding: of all bytes around a content only what pad makes is taken.
func FuzzPadding(f *testing.F) {
	k := MeshKey{Generation: 1, Key: seed("mesh key 1")}
	for _, n := range []int{0, 252, 253, 508, 509, 3 << 10} {
		f.Add(pad(trust.AppendLP(nil, make([]byte, n))))
	}
	f.Add(make([]byte, 512)) // more than an empty content is padded to
	f.Add(append(make([]byte, 255), 1))
	f.Add([]byte("\x00\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, plain []byte) {
		content, err := OpenCard(k, sealSecret(plain, &k.Key))
		if err != nil {
			wantCode(t, err, wire.CodeBadPadding)
			return
		}
		if again := pad(trust.AppendLP(nil, content)); !bytes.Equal(again, plain) {
			t.Fatalf("%x comes back as %x", plain, again)
		}
	})
}

// FuzzOpenSealed: no bytes open as what was sealed to a key, but those that were.
func FuzzOpenSealed(f *testing.F) {
	k := MeshKey{Generation: 7, Key: seed("mesh key 7")}
	sh := shared(f, "bob/1", "alice/1")
	f.Add(make([]byte, nonceSize+overhead))
	f.Add(bytes.Repeat([]byte{7}, 200))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, one := OpenMeshKey(mesh, b, seed("invite"))
		_, two := OpenMeshKeyBox(mesh, b, sh)
		_, three := OpenCard(k, b)
		for _, err := range []error{one, two, three} {
			wantCode(t, err, wire.CodeBadBox)
		}
	})
}
