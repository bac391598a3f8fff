package trust

import (
	"errors"
	"slices"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// VerifyRemoval checks a removal without applying it. It is signed by the
// owner, by an admin for a plain member, or by a member for itself. Two keys
// that claim one generation are wire.CodeGenerationFork.
func (r *Roster) VerifyRemoval(s wire.Signed) (Removal, error) {
	m, err := ParseRemoval(s)
	if err != nil {
		return m, err
	}
	if m.Mesh != r.Genesis.Mesh {
		return m, fault(wire.CodeBadCertificate, "another mesh")
	}
	if !r.mayRemove(m) {
		return m, fault(wire.CodeForbidden, "the removal's signer may not remove this member")
	}
	if m.Generation != 0 {
		if k, ok := r.keys[m.Generation]; ok && k.hash != m.KeyHash {
			return m, fault(wire.CodeGenerationFork, "")
		}
	}
	return m, nil
}

// AddRemoval verifies a removal and applies it. On wire.CodeGenerationFork the
// member is out all the same; only the key is not taken.
func (r *Roster) AddRemoval(s wire.Signed) (Removal, error) {
	m, err := r.VerifyRemoval(s)
	fork := errors.Is(err, fault(wire.CodeGenerationFork, ""))
	if err != nil && !fork {
		return m, err
	}
	if k := r.keys[m.Generation]; !fork && m.Generation != 0 && !slices.Contains(k.signers, m.Signer) {
		r.keys[m.Generation] = keyIssue{m.KeyHash, append(k.signers, m.Signer)}
	}
	for _, old := range r.removals[m.Member] {
		if old.Signer == m.Signer && old.Generation == m.Generation && old.Revoked == m.Revoked && slices.Equal(old.Kept, m.Kept) {
			return m, err
		}
	}
	r.removals[m.Member] = append(r.removals[m.Member], m)
	return m, err
}

func (r *Roster) mayRemove(m Removal) bool {
	if m.Signer == r.Genesis.Owner {
		return true
	}
	if m.Signer == m.Member {
		me := r.members[m.Member] // an admin that leaves says who of those it admitted stay
		return me != nil && m.Generation == 0 && (len(m.Kept) == 0 || r.wasAdmin(m.Member))
	}
	target := r.members[m.Member]
	return target != nil && r.wasAdmin(m.Signer) && r.role(target) == RoleMember
}

// Removed reports whether a removal of this key is known.
func (r *Roster) Removed(k wire.Key) bool { return len(r.removals[k]) > 0 }

// Standing returns nil for a current member, and otherwise a *wire.Fault that
// says why it is none: unknown_member, removed or invite_closed.
func (r *Roster) Standing(k wire.Key) error {
	m := r.members[k]
	if m == nil {
		return fault(wire.CodeUnknownMember, "")
	}
	return r.standing(m)
}

// closed reports whether m came by an invite that was closed without it.
func (r *Roster) closed(m *Member, kept bool) bool {
	for _, c := range r.closes[m.Invite] {
		if kept && c.Signer == m.Issuer {
			continue // a removed admin cannot undo the owner's word
		}
		if r.mayClose(c, m) && !slices.Contains(c.Admitted, m.Key) {
			return true
		}
	}
	return false
}

func (r *Roster) removedByOwner(k wire.Key) bool {
	return slices.ContainsFunc(r.removals[k], func(m Removal) bool { return m.Signer == r.Genesis.Owner })
}

// mayClose: the owner closes any invite, an admin its own.
func (r *Roster) mayClose(c Close, m *Member) bool {
	return c.Signer == r.Genesis.Owner || c.Signer == m.Issuer
}

// Generation returns the highest mesh key generation that may be sealed to:
// 1 from the founding, or the newest that a removal issued whose signer is the
// owner or still a member.
func (r *Roster) Generation() uint64 {
	gen := uint64(1)
	for g, k := range r.keys {
		if g > gen && slices.ContainsFunc(k.signers, r.mayKey) {
			gen = g
		}
	}
	return gen
}

func (r *Roster) mayKey(signer wire.Key) bool {
	return signer == r.Genesis.Owner || r.Standing(signer) == nil
}

// LatestGeneration returns the highest generation that was ever issued, usable
// or not: the next one is above it.
func (r *Roster) LatestGeneration() uint64 {
	gen := uint64(1)
	for g := range r.keys {
		gen = max(gen, g)
	}
	return gen
}

// KeyHash returns the hash that a removal gave for a generation.
func (r *Roster) KeyHash(generation uint64) ([32]byte, bool) {
	k, ok := r.keys[generation]
	return k.hash, ok
}

// Unkeyed returns the removed members after whose removal no new mesh key was
// issued: those that left by themselves. The next admin issues one.
func (r *Roster) Unkeyed() []wire.Key {
	var out []wire.Key
	for k, rms := range r.removals {
		if !slices.ContainsFunc(rms, func(m Removal) bool { return m.Generation != 0 }) && r.members[k] != nil {
			out = append(out, k)
		}
	}
	return sortKeys(out)
}

// MayRemove reports whether signer (the owner key or a member key) may remove
// another member now; a removal that one signed as an admin outlives that.
func (r *Roster) MayRemove(signer, member wire.Key) bool {
	target := r.members[member]
	if target == nil {
		return false
	}
	return signer == r.Genesis.Owner || (r.Governs(signer) && r.role(target) == RoleMember)
}
