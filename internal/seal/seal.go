// Package seal makes and opens what the broker cannot read: envelopes of
// messages, presence cards and mesh keys. It is pure: no clock, no network, no
// disk; randomness comes from crypto/rand. The broker never imports it. The
// source is docs/protocol.md, sections 6 and 7; boxes and secretboxes are
// NaCl's, as in libsodium's crypto_box_easy and crypto_secretbox_easy.
package seal

import (
	"crypto/ecdh"
	"crypto/rand"
	"fmt"

	"golang.org/x/crypto/nacl/box"
	"golang.org/x/crypto/nacl/secretbox"

	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

const (
	nonceSize = 24
	overhead  = secretbox.Overhead // box.Overhead is the same
)

// Shared is the key that two peers' boxes are made with. It costs a curve
// multiplication: keep it per peer.
type Shared [32]byte

// NewShared derives the box key of a secret and a public key, as
// crypto_box_beforenm does, refusing the low-order points that
// nacl/box.Precompute accepts.
func NewShared(own trust.SecretKey, peer wire.Key) (*Shared, error) {
	mont, err := trust.Montgomery(peer)
	if err != nil {
		return nil, wire.Faultf(wire.CodeBadSignature, "peer key")
	}
	pub, err := ecdh.X25519().NewPublicKey(mont[:])
	if err != nil {
		return nil, err
	}
	scalar := own.Scalar()
	priv, err := ecdh.X25519().NewPrivateKey(scalar[:])
	if err != nil {
		return nil, err
	}
	if _, err := priv.ECDH(pub); err != nil {
		return nil, wire.Faultf(wire.CodeBadSignature, "peer key of low order")
	}
	var out Shared
	box.Precompute((*[32]byte)(&out), &mont, &scalar)
	return &out, nil
}

func newNonce() *[nonceSize]byte {
	var n [nonceSize]byte
	rand.Read(n[:]) // crypto/rand.Read never fails
	return &n
}

// sealBox returns nonce then ciphertext.
func sealBox(plain []byte, k *Shared) []byte {
	n := newNonce()
	return box.SealAfterPrecomputation(n[:], plain, n, (*[32]byte)(k))
}

// openBox is the inverse of sealBox.
func openBox(b []byte, k *Shared) ([]byte, bool) {
	if len(b) < nonceSize+overhead {
		return nil, false
	}
	return box.OpenAfterPrecomputation(nil, b[nonceSize:], (*[nonceSize]byte)(b), (*[32]byte)(k))
}

// sealSecret returns nonce then ciphertext.
func sealSecret(plain []byte, k *[32]byte) []byte {
	n := newNonce()
	return secretbox.Seal(n[:], plain, n, k)
}

// openSecret is the inverse of sealSecret.
func openSecret(b []byte, k *[32]byte) ([]byte, bool) {
	if len(b) < nonceSize+overhead {
		return nil, false
	}
	return secretbox.Open(nil, b[nonceSize:], (*[nonceSize]byte)(b), k)
}

// Padded returns the length that n bytes are padded to: 256, 512, then steps
// of one eighth of the power of two below.
func Padded(n int) int {
	if n <= 256 {
		return 256
	}
	if n <= 512 {
		return 512
	}
	p := 512
	for p*2 < n {
		p *= 2
	}
	step := p / 8
	return (n + step - 1) / step * step
}

func pad(b []byte) []byte { return append(b, make([]byte, Padded(len(b))-len(b))...) }

// zeroPadding reports whether rest is exactly the padding of a content whose
// whole padded length is total.
func zeroPadding(rest []byte, total int) bool {
	if Padded(total-len(rest)) != total {
		return false
	}
	for _, c := range rest {
		if c != 0 {
			return false
		}
	}
	return true
}

// MeshKey is one generation of the key that members share and the broker never has.
type MeshKey struct {
	Generation uint64
	Key        [32]byte
}

// Format hides the key from every verb.
func (k MeshKey) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "mesh key %d [redacted]", k.Generation) }

// NewMeshKey draws a key of a generation.
func NewMeshKey(generation uint64) MeshKey {
	k := MeshKey{Generation: generation}
	rand.Read(k.Key[:]) // crypto/rand.Read never fails
	return k
}

func (k MeshKey) statement(mesh wire.ID) []byte {
	return trust.T("mesh-key", mesh[:], trust.U64(k.Generation), k.Key[:])
}

func parseMeshKey(mesh wire.ID, plain []byte) (MeshKey, error) {
	f, err := trust.Fields("mesh-key", plain)
	if err != nil || len(f) != 3 || len(f[0]) != len(mesh) || len(f[1]) != 8 || len(f[2]) != 32 {
		return MeshKey{}, wire.Faultf(wire.CodeBadEnvelope, "mesh key")
	}
	if wire.ID(f[0]) != mesh {
		return MeshKey{}, wire.Faultf(wire.CodeWrongMesh, "mesh key")
	}
	k := MeshKey{Key: [32]byte(f[2])}
	for _, c := range f[1] {
		k.Generation = k.Generation<<8 | uint64(c)
	}
	return k, nil
}

// Secret seals a mesh key under a symmetric key: an invite's blob key, or the
// one that trust.PreviousKey derives from the next generation.
func (k MeshKey) Secret(mesh wire.ID, under [32]byte) []byte {
	return sealSecret(k.statement(mesh), &under)
}

// OpenMeshKey opens what Secret sealed.
func OpenMeshKey(mesh wire.ID, blob []byte, under [32]byte) (MeshKey, error) {
	plain, ok := openSecret(blob, &under)
	if !ok {
		return MeshKey{}, wire.Faultf(wire.CodeBadBox, "mesh key")
	}
	return parseMeshKey(mesh, plain)
}

// Box seals a mesh key to one member.
func (k MeshKey) Box(mesh wire.ID, shared *Shared) []byte {
	return sealBox(k.statement(mesh), shared)
}

// OpenMeshKeyBox opens what Box sealed.
func OpenMeshKeyBox(mesh wire.ID, b []byte, shared *Shared) (MeshKey, error) {
	plain, ok := openBox(b, shared)
	if !ok {
		return MeshKey{}, wire.Faultf(wire.CodeBadBox, "mesh key")
	}
	return parseMeshKey(mesh, plain)
}

// Card seals a presence card: LP(content), zero padded, under the mesh key.
func Card(k MeshKey, content []byte) []byte {
	return sealSecret(pad(trust.AppendLP(nil, content)), &k.Key)
}

// OpenCard opens what Card sealed.
func OpenCard(k MeshKey, blob []byte) ([]byte, error) {
	plain, ok := openSecret(blob, &k.Key)
	if !ok {
		return nil, wire.Faultf(wire.CodeBadBox, "card")
	}
	content, rest, ok := trust.CutLP(plain)
	if !ok || !zeroPadding(rest, len(plain)) {
		return nil, wire.Faultf(wire.CodeBadPadding, "card")
	}
	return content, nil
}
