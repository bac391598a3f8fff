package trust

import (
	"slices"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// Role changes a member's role from the one that its certificate names. Of
// several for one member that with the latest Issued (Unix ms) counts; of two
// with the same, the lower role. Kept is for a demotion: the members that the
// admin had admitted and that stay.
type Role struct {
	Mesh   wire.ID
	Member wire.Key
	Role   string // admin or member
	Issued int64
	Kept   []wire.Key
}

// SignRole makes a role statement.
func SignRole(owner SecretKey, r Role) wire.Signed {
	f := [][]byte{r.Mesh[:], r.Member[:], []byte(r.Role), U64(uint64(r.Issued))}
	for _, k := range r.Kept {
		f = append(f, k[:])
	}
	return sign(owner, T("role", f...))
}

// ParseRole checks shape and the owner's signature.
func ParseRole(owner wire.Key, s wire.Signed) (Role, error) {
	r, err := open("role", s.Body)
	if err != nil {
		return Role{}, err
	}
	v := Role{Mesh: r.id(), Member: r.key(), Role: r.oneOf(RoleAdmin, RoleMember), Issued: r.time()}
	r.bad = r.bad || (v.Role == RoleAdmin && r.left() > 0)
	for r.left() > 0 {
		v.Kept = append(v.Kept, r.key())
	}
	if err := r.done(); err != nil {
		return Role{}, err
	}
	return v, check(owner, s, "role")
}

// VerifyRole checks a role statement without applying it. The member need not
// be known yet: a promotion comes before the members that it lets in.
func (r *Roster) VerifyRole(s wire.Signed) (Role, error) {
	v, err := ParseRole(r.Genesis.Owner, s)
	if err != nil {
		return v, err
	}
	if v.Mesh != r.Genesis.Mesh {
		return v, fault(wire.CodeBadCertificate, "another mesh")
	}
	if m := r.members[v.Member]; v.Member == r.Genesis.Owner || (m != nil && m.Role == RoleOwner) {
		return v, fault(wire.CodeForbidden, "the owner's role does not change")
	}
	return v, nil
}

// AddRole verifies a role statement and applies it.
func (r *Roster) AddRole(s wire.Signed) (Role, error) {
	v, err := r.VerifyRole(s)
	if err != nil {
		return v, err
	}
	same := func(o Role) bool { return o.Role == v.Role && o.Issued == v.Issued && slices.Equal(o.Kept, v.Kept) }
	if !slices.ContainsFunc(r.roles[v.Member], same) {
		r.roles[v.Member] = append(r.roles[v.Member], v)
	}
	return v, nil
}

// newestRole is the role statement that counts for a member.
func (r *Roster) newestRole(k wire.Key) (newest Role, ok bool) {
	for _, v := range r.roles[k] {
		if !ok || v.Issued > newest.Issued || (v.Issued == newest.Issued && v.Role == RoleMember) {
			newest, ok = v, true
		}
	}
	return newest, ok
}

// RoleIssued is when the newest role statement of a member was issued, 0 when
// there is none: the next one is later.
func (r *Roster) RoleIssued(k wire.Key) int64 {
	v, _ := r.newestRole(k)
	return v.Issued
}

// role is a member's role now.
func (r *Roster) role(m *Member) string {
	if v, ok := r.newestRole(m.Key); ok && m.Role != RoleOwner {
		return v.Role
	}
	return m.Role
}

// isAdmin reports whether a key is an admin now.
func (r *Roster) isAdmin(k wire.Key) bool {
	m := r.members[k]
	return m != nil && r.role(m) == RoleAdmin
}

// wasAdmin reports whether a key is or ever was an admin. What it signed as one
// is not undone by a demotion: nobody can tell when it was signed, and a member
// that it removed must not come back.
func (r *Roster) wasAdmin(k wire.Key) bool {
	m := r.members[k]
	if m == nil {
		return false
	}
	return m.Role == RoleAdmin || slices.ContainsFunc(r.roles[k], func(v Role) bool { return v.Role == RoleAdmin })
}

// droppedBy reports whether a member stands no more because the admin that
// admitted it was demoted and the demotion does not list it; kept, that one does.
func (r *Roster) droppedBy(issuer, member wire.Key) (dropped, kept bool) {
	v, ok := r.newestRole(issuer)
	if !ok || v.Role != RoleMember || !r.wasAdmin(issuer) {
		return false, false
	}
	kept = slices.Contains(v.Kept, member)
	return !kept, kept
}
