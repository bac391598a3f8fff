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
}
