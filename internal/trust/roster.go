package trust

import (
	"cmp"
	"crypto/sha256"
	"slices"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// Member is one certified member of a roster.
type Member struct {
	Key         wire.Key
	Name        string
	Role        string   // now: what the certificate or the newest role statement says
	Invite      wire.ID  // zero for the founder
	Issuer      wire.Key // the owner key, or the admin that signed the invite
	Joined      int64    // Unix ms
	Certificate wire.Certificate
}

// Roster is a mesh's membership as its statements prove it. It holds whatever
// is validly signed and answers who is a member now; it forgets nothing, so
// that the order in which statements arrive does not matter, but that an
// admin's certificate and role come before those of the members it admitted, and
// before what it pauses.
// A Roster is not safe for concurrent use.
type Roster struct {
	Genesis   Genesis
	Statement wire.Signed // the genesis

	members  map[wire.Key]*Member
	removals map[wire.Key][]Removal
	closes   map[wire.ID][]Close
	uses     map[wire.ID]uint64
	keys     map[uint64]keyIssue
	roles    map[wire.Key][]Role
	pauses   map[[32]byte]Pause      // by SHA-256 of the statement
	lifted   map[[32]byte][]wire.Key // who has ended a pause
}

type keyIssue struct {
	hash    [32]byte
	signers []wire.Key // all that vouch for the hash: one's removal does not undo another's word
}

// NewRoster starts the roster of owner's mesh.
func NewRoster(owner wire.Key, genesis wire.Signed) (*Roster, error) {
	g, err := VerifyGenesis(genesis)
	if err != nil {
		return nil, err
	}
	if g.Owner != owner {
		return nil, fault(wire.CodeBadCertificate, "the genesis is another owner's")
	}
	return &Roster{
		Genesis: g, Statement: genesis,
		members: map[wire.Key]*Member{}, removals: map[wire.Key][]Removal{}, closes: map[wire.ID][]Close{},
		uses: map[wire.ID]uint64{}, keys: map[uint64]keyIssue{}, roles: map[wire.Key][]Role{},
		pauses: map[[32]byte]Pause{}, lifted: map[[32]byte][]wire.Key{},
	}, nil
}

// Add verifies a certificate and admits its member. The same certificate again
// is no error; another one for the same key is wire.CodeMemberConflict (the
// first wins). A capability's expiry is not looked at.
func (r *Roster) Add(c wire.Certificate) (Member, error) {
	m, err := r.certified(c)
	if err != nil {
		return Member{}, err
	}
	if old, ok := r.members[m.Key]; ok {
		if !equal(old.Certificate, c) {
			return Member{}, fault(wire.CodeMemberConflict, "")
		}
		return *old, nil
	}
	if len(c) == 3 {
		capability, err := ParseCapability(c[0])
		if err != nil {
			return Member{}, err
		}
		if r.uses[m.Invite] >= capability.MaxUses {
			return Member{}, fault(wire.CodeInviteOverused, "")
		}
		r.uses[m.Invite]++
	}
	r.members[m.Key] = &m
	return m, nil
}

// Verify checks a certificate against the roster without admitting anybody.
func (r *Roster) Verify(c wire.Certificate) (Member, error) { return r.certified(c) }

func equal(a, b wire.Certificate) bool {
	return slices.EqualFunc(a, b, func(x, y wire.Signed) bool { return x.Sig == y.Sig && slices.Equal(x.Body, y.Body) })
}

func (r *Roster) certified(c wire.Certificate) (Member, error) {
	switch len(c) {
	case 1:
		return r.founder(c)
	case 3:
		return r.invited(c)
	}
	return Member{}, fault(wire.CodeBadCertificate, "a certificate has one or three statements")
}

func (r *Roster) founder(c wire.Certificate) (Member, error) {
	f, err := open("member", c[0].Body)
	if err != nil {
		return Member{}, err
	}
	mesh := f.id()
	m := Member{Key: f.key(), Name: f.name(), Role: f.oneOf(RoleOwner), Joined: f.time(), Issuer: r.Genesis.Owner, Certificate: c}
	if err := f.done(); err != nil {
		return Member{}, err
	}
	if err := check(r.Genesis.Owner, c[0], "founder"); err != nil {
		return Member{}, err
	}
	return m, r.admissible(mesh, m)
}

func (r *Roster) invited(c wire.Certificate) (Member, error) {
	capability, err := ParseCapability(c[0])
	if err != nil {
		return Member{}, err
	}
	if err := r.mayIssue(capability, r.wasAdmin); err != nil {
		return Member{}, err
	}
	f, err := open("join", c[1].Body)
	if err != nil {
		return Member{}, err
	}
	h := f.hash()
	m := Member{
		Key: f.key(), Name: f.name(), Joined: f.time(), Role: capability.Role,
		Invite: capability.Invite, Issuer: capability.Issuer, Certificate: c,
	}
	if err := f.done(); err != nil {
		return Member{}, err
	}
	if h != sha256.Sum256(c[0].Body) {
		return Member{}, fault(wire.CodeBadCertificate, "the join names another invite")
	}
	if err := check(capability.Key, c[1], "join"); err != nil {
		return Member{}, err
	}
	if !slices.Equal(c[2].Body, possession(c[1].Body)) {
		return Member{}, fault(wire.CodeBadCertificate, "the proof of possession is for another join")
	}
	if err := check(m.Key, c[2], "possession"); err != nil {
		return Member{}, err
	}
	return m, r.admissible(capability.Mesh, m)
}

// VerifyCapability checks that its issuer may admit that role to this mesh, now.
func (r *Roster) VerifyCapability(s wire.Signed) (Capability, error) {
	c, err := ParseCapability(s)
	if err != nil {
		return c, err
	}
	if c.Mesh != r.Genesis.Mesh {
		return c, fault(wire.CodeBadCertificate, "another mesh")
	}
	return c, r.mayIssue(c, r.isAdmin)
}

// mayIssue: the owner issues any role; an admin that the roster knows issues
// members. Whether a member that one admitted stands is for Standing.
func (r *Roster) mayIssue(c Capability, admin func(wire.Key) bool) error {
	if c.Issuer == r.Genesis.Owner || (admin(c.Issuer) && c.Role == RoleMember) {
		return nil
	}
	return fault(wire.CodeBadCertificate, "the invite's issuer may not issue it")
}

func (r *Roster) admissible(mesh wire.ID, m Member) error {
	if mesh != r.Genesis.Mesh {
		return fault(wire.CodeBadCertificate, "another mesh")
	}
	if m.Key == r.Genesis.Owner || CheckKey(m.Key) != nil {
		return fault(wire.CodeBadCertificate, "unfit member key")
	}
	return nil
}

// VerifyClose checks an invite close without applying it.
func (r *Roster) VerifyClose(s wire.Signed) (Close, error) {
	c, err := ParseClose(s)
	if err != nil {
		return c, err
	}
	if c.Mesh != r.Genesis.Mesh {
		return c, fault(wire.CodeBadCertificate, "another mesh")
	}
	if c.Signer != r.Genesis.Owner && !r.wasAdmin(c.Signer) {
		return c, fault(wire.CodeForbidden, "only the owner or an admin closes invites")
	}
	return c, nil
}

// AddClose verifies an invite close and applies it.
func (r *Roster) AddClose(s wire.Signed) (Close, error) {
	c, err := r.VerifyClose(s)
	if err != nil {
		return c, err
	}
	for _, old := range r.closes[c.Invite] {
		if old.Signer == c.Signer && slices.Equal(old.Admitted, c.Admitted) {
			return c, nil
		}
	}
	r.closes[c.Invite] = append(r.closes[c.Invite], c)
	return c, nil
}

// Barred says why who has this certificate is no member, added or not, by what is
// known here, as Standing does. It is nil for one that may stand or does not verify.
func (r *Roster) Barred(c wire.Certificate) error {
	m, err := r.Verify(c)
	if err != nil {
		return nil
	}
	return r.standing(&m)
}

func (r *Roster) standing(m *Member) error {
	k := m.Key
	if r.Removed(k) {
		return fault(wire.CodeRemoved, "")
	}
	kept := false // by the owner, when the admin that admitted it was removed
	for _, rm := range r.removals[m.Issuer] {
		if rm.Signer == m.Issuer && r.removedByOwner(m.Issuer) {
			continue // leaving does not undo the owner's word either
		}
		if !slices.Contains(rm.Kept, k) {
			return fault(wire.CodeRemoved, "the admin that admitted it was removed")
		}
		kept = true
	}
	if dropped, stays := r.droppedBy(m.Issuer, k); dropped {
		return fault(wire.CodeInviteClosed, "the admin that admitted it is none any more")
	} else if stays {
		kept = true
	}
	if issuer := r.members[m.Issuer]; issuer != nil && !kept && r.closed(issuer, false) {
		return fault(wire.CodeInviteClosed, "the admin that admitted it came by a closed invite")
	}
	if r.closed(m, kept) {
		return fault(wire.CodeInviteClosed, "")
	}
	return nil
}

// Member returns a current member.
func (r *Roster) Member(k wire.Key) (Member, bool) {
	if r.Standing(k) != nil {
		return Member{}, false
	}
	return r.described(r.members[k]), true
}

// Known returns a member that has a certificate here, removed or not.
func (r *Roster) Known(k wire.Key) (Member, bool) {
	m := r.members[k]
	if m == nil {
		return Member{}, false
	}
	return r.described(m), true
}

// described is a member with its role of now.
func (r *Roster) described(m *Member) Member {
	out := *m
	out.Role = r.role(m)
	return out
}

// Members returns the current members, by name.
func (r *Roster) Members() []Member {
	var out []Member
	for k, m := range r.members {
		if r.Standing(k) == nil {
			out = append(out, r.described(m))
		}
	}
	slices.SortFunc(out, func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), slices.Compare(a.Key[:], b.Key[:]))
	})
	return out
}

// AdmittedBy returns the keys that came by an invite and stand, sorted: what a
// close of it lists.
func (r *Roster) AdmittedBy(invite wire.ID) []wire.Key {
	var out []wire.Key
	for _, m := range r.Members() {
		if m.Invite == invite {
			out = append(out, m.Key)
		}
	}
	return sortKeys(out)
}

// AdmittedUnder returns the current members that an admin admitted, sorted:
// what a removal of it may keep.
func (r *Roster) AdmittedUnder(admin wire.Key) []wire.Key {
	var out []wire.Key
	for _, m := range r.Members() {
		if m.Issuer == admin {
			out = append(out, m.Key)
		}
	}
	return sortKeys(out)
}

func sortKeys(k []wire.Key) []wire.Key {
	slices.SortFunc(k, func(a, b wire.Key) int { return slices.Compare(a[:], b[:]) })
	return k
}
