package trust

import (
	"crypto/sha256"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// SignChallenge makes a broker's word for a connection's nonce.
func SignChallenge(broker SecretKey, nonce wire.Nonce32) wire.Sig {
	return broker.Sign(T("challenge", nonce[:]))
}

// VerifyChallenge checks that the holder of the broker key sent this nonce.
func VerifyChallenge(broker wire.Key, nonce wire.Nonce32, sig wire.Sig) bool {
	return CheckKey(broker) == nil && Verify(broker, T("challenge", nonce[:]), sig)
}

// SignAttestation makes a member's word that session is one of its sessions.
// Issued is Unix ms.
func SignAttestation(member SecretKey, mesh wire.ID, session wire.Key, issued int64) wire.Attestation {
	return wire.Attestation{Issued: issued, Sig: member.Sign(attestation(mesh, member.Public(), session, issued))}
}

func attestation(mesh wire.ID, member, session wire.Key, issued int64) []byte {
	return T("session", mesh[:], member[:], session[:], U64(uint64(issued)))
}

// VerifyAttestation checks that member vouches for session. A nil attestation
// is right only for the member key speaking as itself.
func VerifyAttestation(mesh wire.ID, member, session wire.Key, a *wire.Attestation) error {
	if CheckKey(member) != nil {
		return fault(wire.CodeBadAttestation, "member key")
	}
	if a == nil {
		if member != session {
			return fault(wire.CodeBadAttestation, "a session needs an attestation")
		}
		return nil
	}
	if member == session {
		return fault(wire.CodeBadAttestation, "a member key is no session key")
	}
	if CheckKey(session) != nil || !Verify(member, attestation(mesh, member, session, a.Issued), a.Sig) {
		return fault(wire.CodeBadAttestation, "")
	}
	return nil
}

// AttestationBytes is an attestation as it stands in an envelope and in the
// hash of a hello: issued and signature, nothing for nil.
func AttestationBytes(a *wire.Attestation) []byte {
	if a == nil {
		return nil
	}
	return append(U64(uint64(a.Issued)), a.Sig[:]...)
}

// ParseAttestation is the inverse of AttestationBytes.
func ParseAttestation(b []byte) (*wire.Attestation, error) {
	if len(b) == 0 {
		return nil, nil
	}
	if len(b) != 8+64 {
		return nil, fault(wire.CodeBadAttestation, "")
	}
	r := reader{ds: "session", fields: [][]byte{b[:8]}}
	a := &wire.Attestation{Issued: r.time(), Sig: wire.Sig(b[8:])}
	if r.done() != nil {
		return nil, fault(wire.CodeBadAttestation, "")
	}
	return a, nil
}

// SignCard signs a sealed card in place.
func SignCard(session SecretKey, mesh wire.ID, member wire.Key, c *wire.Card) {
	c.Sig = session.Sign(card(mesh, member, session.Public(), c))
}

func card(mesh wire.ID, member, session wire.Key, c *wire.Card) []byte {
	h := sha256.Sum256(c.Blob)
	return T("card", mesh[:], member[:], session[:], U64(c.Generation), U64(c.Seq), h[:])
}

// VerifyCard checks that session signed the card and named member in it.
func VerifyCard(mesh wire.ID, member, session wire.Key, c *wire.Card) error {
	if CheckKey(session) != nil || !Verify(session, card(mesh, member, session, c), c.Sig) {
		return fault(wire.CodeBadCard, "")
	}
	return nil
}

// SignHello signs a hello in place, for the broker that sent its nonce.
func SignHello(session SecretKey, broker wire.Key, h *wire.Hello) {
	h.Sig = session.Sign(hello(broker, h))
}

func hello(broker wire.Key, h *wire.Hello) []byte {
	at := sha256.Sum256(AttestationBytes(h.Attestation))
	return T("hello", U64(uint64(h.ProtocolVersion)), []byte(h.Role), h.MeshID[:], h.Pubkey[:], h.SessionPubkey[:],
		h.Nonce[:], broker[:], at[:])
}

// VerifyHello checks everything in a hello but the member's right to connect:
// role, attestation, card and signature.
func VerifyHello(broker wire.Key, h *wire.Hello) error {
	if !h.Role.Valid() {
		return fault(wire.CodeBadFrame, "unknown role")
	}
	if (h.Role == wire.RoleSession) == (h.SessionPubkey == h.Pubkey) {
		return fault(wire.CodeBadFrame, "a session speaks with its own key, a person or observer with the member's")
	}
	if CheckKey(h.Pubkey) != nil {
		return fault(wire.CodeBadSignature, "member key")
	}
	if err := VerifyAttestation(h.MeshID, h.Pubkey, h.SessionPubkey, h.Attestation); err != nil {
		return err
	}
	if !Verify(h.SessionPubkey, hello(broker, h), h.Sig) {
		return fault(wire.CodeBadSignature, "hello")
	}
	if h.Card != nil {
		return VerifyCard(h.MeshID, h.Pubkey, h.SessionPubkey, h.Card)
	}
	if h.Role == wire.RoleSession {
		return fault(wire.CodeBadCard, "a session shows a card")
	}
	return nil
}

// SignJoined makes a broker's answer to a join: over the request's bytes and the blob.
func SignJoined(broker SecretKey, request []byte, blob []byte) wire.Sig {
	h := sha256.Sum256(request)
	return broker.Sign(T("joined", h[:], blob))
}

// VerifyJoined checks that the broker answered this very request.
func VerifyJoined(broker wire.Key, request []byte, blob []byte, sig wire.Sig) bool {
	h := sha256.Sum256(request)
	return CheckKey(broker) == nil && Verify(broker, T("joined", h[:], blob), sig)
}
