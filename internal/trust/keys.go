package trust

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha512"
	"errors"
	"fmt"
	"log/slog"

	"filippo.io/edwards25519"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// ErrBadKey says that 32 bytes are no acceptable ed25519 public key.
var ErrBadKey = errors.New("not a canonical ed25519 key of prime order")

// SecretKey is an ed25519 secret key. It cannot be compared with == and prints
// as [redacted].
type SecretKey struct {
	_    [0]func()
	priv ed25519.PrivateKey
}

// NewSecretKey draws a fresh key.
func NewSecretKey() SecretKey {
	var seed [32]byte
	rand.Read(seed[:]) // crypto/rand.Read never fails
	return SecretKeyFromSeed(seed)
}

// SecretKeyFromSeed derives the key of a 32-byte seed (RFC 8032).
func SecretKeyFromSeed(seed [32]byte) SecretKey {
	return SecretKey{priv: ed25519.NewKeyFromSeed(seed[:])}
}

// IsZero reports whether the key is absent.
func (k SecretKey) IsZero() bool { return k.priv == nil }

// Seed returns the 32-byte seed: what is stored.
func (k SecretKey) Seed() [32]byte { return [32]byte(k.priv.Seed()) }

// Public returns the public key.
func (k SecretKey) Public() wire.Key { return wire.Key(k.priv[32:]) }

// Sign signs a message.
func (k SecretKey) Sign(msg []byte) wire.Sig { return wire.Sig(ed25519.Sign(k.priv, msg)) }

// Scalar returns the clamped X25519 scalar of the key, as libsodium's
// crypto_sign_ed25519_sk_to_curve25519 does.
func (k SecretKey) Scalar() [32]byte {
	h := sha512.Sum512(k.priv.Seed())
	h[0] &= 248
	h[31] &= 127
	h[31] |= 64
	return [32]byte(h[:32])
}

// String hides the key.
func (k SecretKey) String() string { return "[redacted]" }

// Format hides the key from every verb.
func (k SecretKey) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[redacted]")) }

// LogValue hides the key.
func (k SecretKey) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// CheckKey accepts a canonical encoding of a point of prime order and nothing
// else. Every key from outside passes it: Go's verifier accepts forged
// signatures under small-order keys, which libsodium refuses.
func CheckKey(k wire.Key) error {
	_, err := point(k)
	return err
}

// Montgomery returns the X25519 public key of an ed25519 one, as libsodium's
// crypto_sign_ed25519_pk_to_curve25519 does, refusing the same keys.
func Montgomery(k wire.Key) ([32]byte, error) {
	p, err := point(k)
	if err != nil {
		return [32]byte{}, err
	}
	return [32]byte(p.BytesMontgomery()), nil
}

// minusOne is L-1, the scalar that maps a point of prime order to its negative.
var minusOne = func() *edwards25519.Scalar {
	one, err := edwards25519.NewScalar().SetCanonicalBytes(append([]byte{1}, make([]byte, 31)...))
	if err != nil {
		panic(err)
	}
	return edwards25519.NewScalar().Negate(one)
}()

func point(k wire.Key) (*edwards25519.Point, error) {
	p, err := new(edwards25519.Point).SetBytes(k[:])
	if err != nil || wire.Key(p.Bytes()) != k { // SetBytes takes non-canonical encodings
		return nil, ErrBadKey
	}
	if new(edwards25519.Point).MultByCofactor(p).Equal(edwards25519.NewIdentityPoint()) == 1 {
		return nil, ErrBadKey
	}
	q := new(edwards25519.Point).ScalarMult(minusOne, p)
	if q.Equal(new(edwards25519.Point).Negate(p)) != 1 {
		return nil, ErrBadKey
	}
	return p, nil
}

// Verify reports whether sig is k's signature of msg. k must have passed CheckKey.
func Verify(k wire.Key, msg []byte, sig wire.Sig) bool {
	return ed25519.Verify(k[:], msg, sig[:])
}
