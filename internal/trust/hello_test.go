package trust

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// hello returns a valid hello of alice: of her session, or of herself.
func helloOf(role wire.Role) *wire.Hello {
	h := &wire.Hello{ProtocolVersion: wire.Version, Role: role, MeshID: mesh, Pubkey: pub("alice"), Nonce: seed("nonce")}
	k := key("alice")
	if role == wire.RoleSession {
		k = key("session")
		h.Attestation = ptr(SignAttestation(key("alice"), mesh, k.Public(), now))
	}
	if role != wire.RoleObserver {
		h.Card = &wire.Card{Generation: 1, Seq: 7, Blob: wire.Blob("sealed")}
		SignCard(k, mesh, h.Pubkey, h.Card)
	}
	h.SessionPubkey = k.Public()
	SignHello(k, pub("broker"), h)
	return h
}

func TestHelloFlipped(t *testing.T) {
	t.Parallel()
	const sig, frame, att, card = wire.CodeBadSignature, wire.CodeBadFrame, wire.CodeBadAttestation, wire.CodeBadCard
	broker := pub("broker")
	for _, role := range []wire.Role{wire.RoleSession, wire.RolePerson, wire.RoleObserver} {
		wantCode(t, VerifyHello(broker, helloOf(role)), "")
	}
	for _, tt := range []struct {
		name string
		role wire.Role
		edit func(h *wire.Hello)
		code wire.Code
	}{
		{"version", wire.RoleSession, func(h *wire.Hello) { h.ProtocolVersion++ }, sig},
		{"an unknown role", wire.RoleSession, func(h *wire.Hello) { h.Role = "admin" }, frame},
		{"no role", wire.RolePerson, func(h *wire.Hello) { h.Role = "" }, frame},
		{"person as observer", wire.RolePerson, func(h *wire.Hello) { h.Role = wire.RoleObserver }, sig},
		{"observer as person", wire.RoleObserver, func(h *wire.Hello) { h.Role = wire.RolePerson }, sig},
		{"session as person", wire.RoleSession, func(h *wire.Hello) { h.Role = wire.RolePerson }, frame},
		{"mesh of a session", wire.RoleSession, func(h *wire.Hello) { h.MeshID[0] ^= 1 }, att},
		{"mesh of a person", wire.RolePerson, func(h *wire.Hello) { h.MeshID[0] ^= 1 }, sig},
		{"member of a session", wire.RoleSession, func(h *wire.Hello) { h.Pubkey = pub("bob") }, att},
		{"member and session of a person", wire.RolePerson, func(h *wire.Hello) { h.Pubkey, h.SessionPubkey = pub("bob"), pub("bob") }, sig},
		{"member off the curve", wire.RoleSession, func(h *wire.Hello) { h.Pubkey = wire.Key{2} }, sig},
		{"session", wire.RoleSession, func(h *wire.Hello) { h.SessionPubkey = pub("bob") }, att},
		{"session of small order", wire.RoleSession, func(h *wire.Hello) { h.SessionPubkey = wire.Key{1} }, att},
		{"nonce", wire.RoleSession, func(h *wire.Hello) { h.Nonce[31] ^= 1 }, sig},
		{"signature", wire.RoleSession, func(h *wire.Hello) { h.Sig[0] ^= 1 }, sig},
		{"no signature", wire.RoleSession, func(h *wire.Hello) { h.Sig = wire.Sig{} }, sig},
		{"attestation's time", wire.RoleSession, func(h *wire.Hello) { h.Attestation.Issued++ }, att},
		{"attestation's signature", wire.RoleSession, func(h *wire.Hello) { h.Attestation.Sig[0] ^= 1 }, att},
		{"another valid attestation", wire.RoleSession, func(h *wire.Hello) {
			h.Attestation = ptr(SignAttestation(key("alice"), mesh, pub("session"), now+1))
		}, sig},
		{"card's generation", wire.RoleSession, func(h *wire.Hello) { h.Card.Generation++ }, card},
		{"card's seq", wire.RoleSession, func(h *wire.Hello) { h.Card.Seq++ }, card},
		{"card's blob", wire.RoleSession, func(h *wire.Hello) { h.Card.Blob[0] ^= 1 }, card},
		{"card's signature", wire.RolePerson, func(h *wire.Hello) { h.Card.Sig[0] ^= 1 }, card},
		{"another session's card", wire.RoleSession, func(h *wire.Hello) { SignCard(key("bob"), mesh, h.Pubkey, h.Card) }, card},
		{"a card of another mesh", wire.RoleSession, func(h *wire.Hello) { SignCard(key("session"), wire.ID{1}, h.Pubkey, h.Card) }, card},
		{"a card that names another member", wire.RoleSession, func(h *wire.Hello) { SignCard(key("session"), mesh, pub("bob"), h.Card) }, card},
		{"a session without attestation", wire.RoleSession, func(h *wire.Hello) { h.Attestation = nil; SignHello(key("session"), broker, h) }, att},
		{"a session without card", wire.RoleSession, func(h *wire.Hello) { h.Card = nil }, card},
		{"a session with the member key", wire.RoleSession, func(h *wire.Hello) {
			h.SessionPubkey = h.Pubkey
			h.Attestation = ptr(SignAttestation(key("alice"), mesh, h.Pubkey, now))
			SignCard(key("alice"), mesh, h.Pubkey, h.Card)
			SignHello(key("alice"), broker, h)
		}, frame},
		{"an observer with a session key", wire.RoleSession, func(h *wire.Hello) { h.Role = wire.RoleObserver; SignHello(key("session"), broker, h) }, frame},
		{"a person with an attestation", wire.RolePerson, func(h *wire.Hello) {
			h.Attestation = ptr(SignAttestation(key("alice"), mesh, h.Pubkey, now))
			SignHello(key("alice"), broker, h)
		}, att},
		{"signed by the member", wire.RoleSession, func(h *wire.Hello) { SignHello(key("alice"), broker, h) }, sig},
		{"signed for another broker", wire.RoleSession, func(h *wire.Hello) { SignHello(key("session"), pub("mallory"), h) }, sig},
		{"the attestation by another member", wire.RoleSession, func(h *wire.Hello) {
			h.Attestation = ptr(SignAttestation(key("bob"), mesh, pub("session"), now))
			SignHello(key("session"), broker, h)
		}, att},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := helloOf(tt.role)
			tt.edit(h)
			wantCode(t, VerifyHello(broker, h), tt.code)
		})
	}
	wantCode(t, VerifyHello(pub("mallory"), helloOf(wire.RolePerson)), sig)
}

func TestChallengeAndJoined(t *testing.T) {
	t.Parallel()
	b, n := key("broker"), wire.Nonce32(seed("nonce"))
	c := SignChallenge(b, n)
	if !VerifyChallenge(b.Public(), n, c) || VerifyChallenge(pub("mallory"), n, c) || VerifyChallenge(b.Public(), wire.Nonce32{}, c) {
		t.Error("challenge")
	}
	j := SignJoined(b, []byte("request"), []byte("blob"))
	if !VerifyJoined(b.Public(), []byte("request"), []byte("blob"), j) {
		t.Error("joined")
	}
	if VerifyJoined(pub("mallory"), []byte("request"), []byte("blob"), j) || VerifyJoined(b.Public(), []byte("other"), []byte("blob"), j) ||
		VerifyJoined(b.Public(), []byte("request"), []byte("blob2"), j) || VerifyJoined(b.Public(), []byte("request"), []byte("blob"), c) {
		t.Error("a damaged answer verifies")
	}
}

func TestAttestationBytes(t *testing.T) {
	t.Parallel()
	a := SignAttestation(key("alice"), mesh, pub("session"), now)
	got, err := ParseAttestation(AttestationBytes(&a))
	if err != nil || *got != a {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := ParseAttestation(nil); got != nil || err != nil {
		t.Error("nothing is no attestation", got, err)
	}
	b := AttestationBytes(&a)
	for _, bad := range [][]byte{b[1:], append(slices.Clone(b), 0), {0}, append([]byte{0x80 | b[0]}, b[1:]...)} {
		_, err := ParseAttestation(bad)
		wantCode(t, err, wire.CodeBadAttestation)
	}
	wantCode(t, VerifyAttestation(mesh, pub("alice"), pub("alice"), nil), "")
	wantCode(t, VerifyAttestation(mesh, pub("alice"), pub("session"), nil), wire.CodeBadAttestation)
}

// No secret key shows itself, whatever it is printed with.
func TestSecretKeyIsRedacted(t *testing.T) {
	t.Parallel()
	k := key("alice")
	s := k.Seed()
	hexes := []string{fmt.Sprintf("%x", s[:4]), fmt.Sprintf("%X", s[:4]), strings.Trim(fmt.Sprint(s[:4]), "[]"), string(s[:4])}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		for _, v := range []any{k, &k, struct{ K SecretKey }{k}, []SecretKey{k}} {
			out := fmt.Sprintf(verb, v)
			for _, h := range hexes {
				if strings.Contains(out, h) {
					t.Errorf("%s of %T shows the key", verb, v)
				}
			}
		}
	}
	if got := k.LogValue().String(); got != "[redacted]" {
		t.Error(got)
	}
	if (SecretKey{}).IsZero() != true || k.IsZero() {
		t.Error("IsZero")
	}
}
