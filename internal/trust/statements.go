package trust

import (
	"crypto/sha256"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// The roles of members.
const (
	RoleOwner  = "owner"
	RoleAdmin  = "admin"
	RoleMember = "member"
)

// The reasons of a removal. They are all that is told of it: free text never
// leaves a client in the clear.
const (
	ReasonRemoved     = "removed"
	ReasonLeft        = "left"
	ReasonLost        = "lost"        // the machine or its keys
	ReasonCompromised = "compromised" // somebody else has or had the keys
	ReasonAbuse       = "abuse"
)

// Reasons lists the reasons for which others remove a member.
var Reasons = []string{ReasonRemoved, ReasonLeft, ReasonLost, ReasonCompromised, ReasonAbuse}

// MeshID derives a mesh's id from its owner key.
func MeshID(owner wire.Key) wire.ID {
	h := H("mesh-id", owner[:])
	return wire.ID(h[:16])
}

func sign(k SecretKey, body []byte) wire.Signed {
	return wire.Signed{Body: body, Sig: k.Sign(body)}
}

// check verifies a statement under a key that comes from outside.
func check(k wire.Key, s wire.Signed, what string) error {
	if CheckKey(k) != nil || !Verify(k, s.Body, s.Sig) {
		return fault(wire.CodeBadSignature, what)
	}
	return nil
}

// Genesis names a mesh and its owner. Created is Unix ms.
type Genesis struct {
	Mesh    wire.ID
	Owner   wire.Key
	Name    string
	Created int64
}

// SignGenesis makes the genesis statement of owner's mesh.
func SignGenesis(owner SecretKey, name string, created int64) wire.Signed {
	pk := owner.Public()
	id := MeshID(pk)
	return sign(owner, T("genesis", id[:], pk[:], []byte(name), U64(uint64(created))))
}

// VerifyGenesis checks the signature and that the id names the owner.
func VerifyGenesis(s wire.Signed) (Genesis, error) {
	r, err := open("genesis", s.Body)
	if err != nil {
		return Genesis{}, err
	}
	g := Genesis{Mesh: r.id(), Owner: r.key(), Name: r.name(), Created: r.time()}
	if err := r.done(); err != nil {
		return Genesis{}, err
	}
	if g.Mesh != MeshID(g.Owner) {
		return Genesis{}, fault(wire.CodeBadCertificate, "the mesh id does not name its owner")
	}
	return g, check(g.Owner, s, "genesis")
}

// SignFounder certifies the founder: T("member", mesh, member, name, "owner", issued).
func SignFounder(owner SecretKey, member wire.Key, name string, issued int64) wire.Signed {
	id := MeshID(owner.Public())
	return sign(owner, T("member", id[:], member[:], []byte(name), []byte(RoleOwner), U64(uint64(issued))))
}

// Capability is what an invite grants. Expires is Unix ms.
type Capability struct {
	Mesh    wire.ID
	Invite  wire.ID
	Key     wire.Key // the invite key
	Role    string
	Expires int64
	MaxUses uint64
	Broker  wire.Key
	Issuer  wire.Key // the owner key, or an admin's member key
}

// SignCapability makes the capability of an invite.
func SignCapability(issuer SecretKey, c Capability) wire.Signed {
	c.Issuer = issuer.Public()
	return sign(issuer, T("invite", c.Mesh[:], c.Invite[:], c.Key[:], []byte(c.Role), U64(uint64(c.Expires)),
		U64(c.MaxUses), c.Broker[:], c.Issuer[:]))
}

// ParseCapability checks shape, id and signature, not the issuer's right: see Roster.
func ParseCapability(s wire.Signed) (Capability, error) {
	r, err := open("invite", s.Body)
	if err != nil {
		return Capability{}, err
	}
	c := Capability{
		Mesh: r.id(), Invite: r.id(), Key: r.key(), Role: r.oneOf(RoleAdmin, RoleMember),
		Expires: r.time(), MaxUses: r.u64(), Broker: r.key(), Issuer: r.key(),
	}
	if err := r.done(); err != nil {
		return Capability{}, err
	}
	if c.Invite != InviteID(c.Key) || c.MaxUses == 0 {
		return Capability{}, fault(wire.CodeBadCertificate, "malformed invite statement")
	}
	if CheckKey(c.Key) != nil {
		return Capability{}, fault(wire.CodeBadSignature, "invite key")
	}
	return c, check(c.Issuer, s, "invite")
}

// InviteID derives an invite's id from its public key.
func InviteID(invite wire.Key) wire.ID {
	h := H("invite-id", invite[:])
	return wire.ID(h[:16])
}

// SignJoin makes a new member's certificate: the capability, the invite key's
// word for the member key, and that key's proof of possession.
func SignJoin(invite, member SecretKey, capability wire.Signed, name string, joined int64) wire.Certificate {
	h, pk := sha256.Sum256(capability.Body), member.Public()
	join := sign(invite, T("join", h[:], pk[:], []byte(name), U64(uint64(joined))))
	return wire.Certificate{capability, join, sign(member, possession(join.Body))}
}

func possession(join []byte) []byte {
	h := sha256.Sum256(join)
	return T("join-pop", h[:])
}

// Close ends an invite: no certificate outside Admitted is valid any more.
type Close struct {
	Mesh     wire.ID
	Invite   wire.ID
	Signer   wire.Key
	Admitted []wire.Key
}

// SignClose makes an invite close.
func SignClose(signer SecretKey, mesh, invite wire.ID, admitted []wire.Key) wire.Signed {
	pk := signer.Public()
	f := [][]byte{mesh[:], invite[:], pk[:]}
	for _, k := range admitted {
		f = append(f, k[:])
	}
	return sign(signer, T("invite-close", f...))
}

// ParseClose checks shape and signature, not the signer's right: see Roster.
func ParseClose(s wire.Signed) (Close, error) {
	r, err := open("invite-close", s.Body)
	if err != nil {
		return Close{}, err
	}
	c := Close{Mesh: r.id(), Invite: r.id(), Signer: r.key()}
	for r.left() > 0 {
		c.Admitted = append(c.Admitted, r.key())
	}
	if err := r.done(); err != nil {
		return Close{}, err
	}
	return c, check(c.Signer, s, "invite close")
}

// Removal takes a member out. Generation and KeyHash name the mesh key that it
// issues; both are zero when it issues none (a member that leaves).
type Removal struct {
	Mesh           wire.ID
	Member         wire.Key
	Signer         wire.Key
	Revoked        int64 // Unix ms
	Reason         string
	Kept           []wire.Key // members that a removed admin had admitted and that stay
	MembersVersion int64      // the membership it was built on
	Generation     uint64
	KeyHash        [32]byte
}

// SignRemoval makes a removal.
func SignRemoval(signer SecretKey, m Removal) wire.Signed {
	m.Signer = signer.Public()
	f := [][]byte{m.Mesh[:], m.Member[:], m.Signer[:], U64(uint64(m.Revoked)), []byte(m.Reason)}
	for _, k := range m.Kept {
		f = append(f, k[:])
	}
	f = append(f, U64(uint64(m.MembersVersion)), U64(m.Generation), m.KeyHash[:])
	return sign(signer, T("revoke", f...))
}

// ParseRemoval checks shape and signature, not the signer's right: see Roster.
func ParseRemoval(s wire.Signed) (Removal, error) {
	r, err := open("revoke", s.Body)
	if err != nil {
		return Removal{}, err
	}
	m := Removal{Mesh: r.id(), Member: r.key(), Signer: r.key(), Revoked: r.time(), Reason: r.oneOf(Reasons...)}
	for r.left() > 3 {
		m.Kept = append(m.Kept, r.key())
	}
	m.MembersVersion, m.Generation, m.KeyHash = r.time(), r.u64(), r.hash()
	r.bad = r.bad || m.Generation == 1 || (m.Generation == 0 && m.KeyHash != [32]byte{}) // 1 is the founding's
	if err := r.done(); err != nil {
		return Removal{}, err
	}
	return m, check(m.Signer, s, "removal")
}

// KeyHash is what a removal says of the mesh key that it issues.
func KeyHash(mesh wire.ID, generation uint64, key [32]byte) [32]byte {
	return H("mesh-key", mesh[:], U64(generation), key[:])
}
