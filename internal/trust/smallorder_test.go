package trust

import (
	"slices"
	"testing"

	"github.com/claudemesh/claudemesh/internal/vectors"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// Go's verifier takes a signature that anybody can make for a small-order key;
// so CheckKey and everything that verifies must refuse the key.
func TestSodiumSmallOrder(t *testing.T) {
	t.Parallel()
	cases := published(t, "libsodium")
	i := slices.IndexFunc(cases, func(c vectors.Case) bool { return c.Name == "libsodium: signature under a key of small order" })
	v := input[struct {
		Public  wire.Key
		Message vectors.Hex
		Sig     wire.Sig
	}](t, cases[i])
	k, sig := v.Public, v.Sig
	if !Verify(k, v.Message, sig) {
		t.Log("Go refuses it by now: CheckKey is a second line")
	}
	if CheckKey(k) == nil {
		t.Error("a small-order key was accepted")
	}
	if VerifyChallenge(k, wire.Nonce32{}, sig) || VerifyJoined(k, nil, nil, sig) {
		t.Error("a broker of small order was believed")
	}
	id := MeshID(k)
	_, err := NewRoster(k, wire.Signed{Body: T("genesis", id[:], k[:], []byte("home"), U64(now)), Sig: sig})
	wantCode(t, err, wire.CodeBadSignature)
	wantCode(t, VerifyAttestation(mesh, k, pub("session"), &wire.Attestation{Issued: now, Sig: sig}), wire.CodeBadAttestation)
	wantCode(t, VerifyAttestation(mesh, pub("alice"), k, ptr(SignAttestation(key("alice"), mesh, k, now))), wire.CodeBadAttestation)
	wantCode(t, VerifyCard(mesh, pub("alice"), k, &wire.Card{Sig: sig}), wire.CodeBadCard)
	h := &wire.Hello{ProtocolVersion: wire.Version, Role: wire.RolePerson, MeshID: mesh, Pubkey: k, SessionPubkey: k, Sig: sig}
	wantCode(t, VerifyHello(pub("broker"), h), wire.CodeBadSignature)
}

func ptr[T any](v T) *T { return &v }
