package trust

import (
	"bytes"
	"crypto/ecdh"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/claudemesh/claudemesh/internal/wire"
)

type hexBytes []byte

func (h hexBytes) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }

func (h *hexBytes) UnmarshalText(t []byte) (err error) {
	*h, err = hex.DecodeString(string(t))
	return err
}

type sodiumSignature struct {
	Name      string   `json:"name"`
	Why       string   `json:"why"`
	Signer    string   `json:"signer"`
	Message   string   `json:"message_text"`
	Signature hexBytes `json:"signature"`
}

type sodium struct {
	Identities []struct {
		Name    string   `json:"name"`
		Seed    hexBytes `json:"ed25519_seed"`
		Public  hexBytes `json:"ed25519_public"`
		XPublic hexBytes `json:"x25519_public"`
		XSecret hexBytes `json:"x25519_secret_clamped"`
	} `json:"identities"`
	Edges []struct {
		Name    string   `json:"name"`
		Public  hexBytes `json:"ed25519_public"`
		Accepts bool     `json:"libsodium_accepts"`
		XPublic hexBytes `json:"x25519_public"`
	} `json:"ed25519_pk_to_curve25519_edge"`
	Signatures         []sodiumSignature `json:"signatures"`
	SignaturesMustFail []sodiumSignature `json:"signatures_must_fail"`
	SmallOrder         struct {
		Public    hexBytes `json:"public"`
		Signature hexBytes `json:"signature"`
		Message   string   `json:"message_text"`
		Accepts   bool     `json:"libsodium_accepts"`
	} `json:"signature_small_order"`
}

func loadSodium(t *testing.T) (v sodium, ids map[string]SecretKey) {
	t.Helper()
	b, err := os.ReadFile("testdata/libsodium.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Identities) == 0 || len(v.Edges) == 0 || len(v.Signatures) == 0 || len(v.SignaturesMustFail) == 0 {
		t.Fatal("the vectors are incomplete")
	}
	ids = map[string]SecretKey{}
	for _, id := range v.Identities {
		ids[id.Name] = SecretKeyFromSeed([32]byte(id.Seed))
	}
	return v, ids
}

func TestSodiumIdentities(t *testing.T) {
	t.Parallel()
	v, ids := loadSodium(t)
	for _, id := range v.Identities {
		k := ids[id.Name]
		if k.Public() != wire.Key(id.Public) || k.Seed() != [32]byte(id.Seed) {
			t.Errorf("%s: public %s", id.Name, k.Public())
		}
		if k.Scalar() != [32]byte(id.XSecret) {
			t.Errorf("%s: scalar %x", id.Name, k.Scalar())
		}
		if err := CheckKey(k.Public()); err != nil {
			t.Errorf("%s: %v", id.Name, err)
		}
		x, err := Montgomery(k.Public())
		if err != nil || x != [32]byte(id.XPublic) {
			t.Errorf("%s: montgomery %x, %v", id.Name, x, err)
		}
		s := k.Scalar()
		priv, err := ecdh.X25519().NewPrivateKey(s[:])
		if err != nil || !bytes.Equal(priv.PublicKey().Bytes(), id.XPublic) {
			t.Errorf("%s: scalar and public key do not belong together: %v", id.Name, err)
		}
	}
}

func TestSodiumKeyEdges(t *testing.T) {
	t.Parallel()
	v, _ := loadSodium(t)
	for _, e := range v.Edges {
		x, err := Montgomery(wire.Key(e.Public))
		if (err == nil) != e.Accepts || (CheckKey(wire.Key(e.Public)) == nil) != e.Accepts {
			t.Errorf("%s: %v, libsodium accepts: %v", e.Name, err, e.Accepts)
		}
		if e.Accepts && x != [32]byte(e.XPublic) {
			t.Errorf("%s: %x", e.Name, x)
		}
	}
}

func TestSodiumSignatures(t *testing.T) {
	t.Parallel()
	v, ids := loadSodium(t)
	for _, s := range v.Signatures {
		k := ids[s.Signer]
		if got := k.Sign([]byte(s.Message)); got != wire.Sig(s.Signature) {
			t.Errorf("%s: %x", s.Name, got)
		}
		if !Verify(k.Public(), []byte(s.Message), wire.Sig(s.Signature)) {
			t.Errorf("%s does not verify", s.Name)
		}
	}
	for _, s := range v.SignaturesMustFail {
		if Verify(ids[s.Signer].Public(), []byte(s.Message), wire.Sig(s.Signature)) {
			t.Errorf("verified: %s", s.Why)
		}
	}
}

// Go's verifier takes a signature that anybody can make for a small-order key;
// so CheckKey and everything that verifies must refuse the key.
func TestSodiumSmallOrder(t *testing.T) {
	t.Parallel()
	v, _ := loadSodium(t)
	k, sig := wire.Key(v.SmallOrder.Public), wire.Sig(v.SmallOrder.Signature)
	if !Verify(k, []byte(v.SmallOrder.Message), sig) {
		t.Log("Go refuses it by now: CheckKey is a second line")
	}
	if v.SmallOrder.Accepts || CheckKey(k) == nil {
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
