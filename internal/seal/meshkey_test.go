package seal

import (
	"bytes"
	"slices"
	"testing"

	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

func TestMeshKeys(t *testing.T) {
	t.Parallel()
	k, blob, sh := NewMeshKey(7), seed("blob key"), shared(t, "alice", "bob")
	if NewMeshKey(7) == k {
		t.Error("two draws are the same")
	}
	secret, boxed := k.Secret(mesh, blob), k.Box(mesh, sh)
	if got, err := OpenMeshKey(mesh, secret, blob); err != nil || got != k {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := OpenMeshKeyBox(mesh, boxed, shared(t, "bob", "alice")); err != nil || got != k {
		t.Errorf("%v, %v", got, err)
	}
	id, g := mesh[:], trust.U64(7)
	for _, tt := range []struct {
		name  string
		plain []byte
		code  wire.Code
	}{
		{"good", trust.T("mesh-key", id, g, k.Key[:]), ""},
		{"another mesh", trust.T("mesh-key", make([]byte, 16), g, k.Key[:]), wire.CodeWrongMesh},
		{"a mesh id cut short", trust.T("mesh-key", id[1:], g, k.Key[:]), wire.CodeBadEnvelope},
		{"a mesh id too long", trust.T("mesh-key", append(slices.Clone(id), 0), g, k.Key[:]), wire.CodeBadEnvelope},
		{"no mesh id", trust.T("mesh-key", nil, g, k.Key[:]), wire.CodeBadEnvelope},
		{"a short generation", trust.T("mesh-key", id, g[1:], k.Key[:]), wire.CodeBadEnvelope},
		{"a short key", trust.T("mesh-key", id, g, k.Key[1:]), wire.CodeBadEnvelope},
		{"a field more", trust.T("mesh-key", id, g, k.Key[:], nil), wire.CodeBadEnvelope},
		{"a field less", trust.T("mesh-key", id, g), wire.CodeBadEnvelope},
		{"another domain", trust.T("mesh-kee", id, g, k.Key[:]), wire.CodeBadEnvelope},
		{"nothing", nil, wire.CodeBadEnvelope},
	} {
		_, err := OpenMeshKey(mesh, sealSecret(tt.plain, &blob), blob)
		_, errBox := OpenMeshKeyBox(mesh, sealBox(tt.plain, sh), sh)
		t.Run(tt.name, func(t *testing.T) { wantCode(t, err, tt.code); wantCode(t, errBox, tt.code) })
	}
	for i := range secret {
		_, err := OpenMeshKey(mesh, flip(secret, i), blob)
		_, errBox := OpenMeshKeyBox(mesh, flip(boxed, i), sh)
		if codeOf(err) != wire.CodeBadBox || codeOf(errBox) != wire.CodeBadBox {
			t.Fatalf("byte %d flipped: %v, %v", i, err, errBox)
		}
	}
	for n := range nonceSize + overhead {
		_, err := OpenMeshKey(mesh, secret[:n], blob)
		wantCode(t, err, wire.CodeBadBox)
	}
	_, err := OpenMeshKey(mesh, secret, seed("another blob key"))
	wantCode(t, err, wire.CodeBadBox)
	_, err = OpenMeshKeyBox(mesh, boxed, shared(t, "carol", "alice"))
	wantCode(t, err, wire.CodeBadBox)
	// A generation seals the one before it.
	next := NewMeshKey(8)
	prev := k.Secret(mesh, trust.PreviousKey(next.Key))
	if got, err := OpenMeshKey(mesh, prev, trust.PreviousKey(next.Key)); err != nil || got != k {
		t.Errorf("%v, %v", got, err)
	}
	_, err = OpenMeshKey(mesh, prev, next.Key)
	wantCode(t, err, wire.CodeBadBox)
}

func flip(b []byte, i int) []byte {
	c := slices.Clone(b)
	c[i] ^= 1
	return c
}

func TestCards(t *testing.T) {
	t.Parallel()
	k := NewMeshKey(3)
	for _, n := range []int{0, 1, 251, 252, 253, 508, 509, 4000} {
		content := bytes.Repeat([]byte("c"), n)
		blob := Card(k, content)
		if l := len(blob) - nonceSize - overhead; l != Padded(n+4) {
			t.Errorf("%d bytes are sealed as %d", n, l)
		}
		if got, err := OpenCard(k, blob); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	blob := Card(k, []byte(`{"label":"checkout"}`))
	_, err := OpenCard(NewMeshKey(3), blob)
	wantCode(t, err, wire.CodeBadBox)
	for _, i := range []int{0, 24, 40, len(blob) - 1} {
		_, err := OpenCard(k, flip(blob, i))
		wantCode(t, err, wire.CodeBadBox)
	}
	_, err = OpenCard(k, nil)
	wantCode(t, err, wire.CodeBadBox)
	plain := pad(trust.AppendLP(nil, []byte("{}")))
	for _, bad := range [][]byte{nil, {0, 0}, flip(plain, len(plain)-1), flip(plain, 6), plain[:100], append(slices.Clone(plain), make([]byte, 256)...), {255, 255, 255, 255}} {
		_, err := OpenCard(k, sealSecret(bad, &k.Key))
		wantCode(t, err, wire.CodeBadPadding)
	}
}
