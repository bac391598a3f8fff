package broker

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/claudemesh/claudemesh/internal/audit"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// listMembers answers with what changed after a version, in pages.
func (c *conn) listMembers(ctx context.Context, f *wire.Members) error {
	ch, err := c.b.store.Changes(ctx, c.mesh.id, f.Since, c.member)
	if err != nil {
		return err
	}
	certs := make([]wire.Certificate, len(ch.Members))
	for i, m := range ch.Members {
		certs[i] = m.Certificate
	}
	left := func() bool {
		return len(ch.Roles)+len(certs)+len(ch.Removals)+len(ch.Closes)+len(ch.Keys)+len(ch.Pauses) > 0
	}
	for first := true; first || left(); first = false {
		c.out.Wait() // a long list is no reason to be too slow
		page := &wire.MembersList{Req: f.Req, Genesis: c.mesh.roster.Statement, Version: ch.Version, Generation: ch.Gen}
		room := wire.PageBytes
		page.Roles = cut(&ch.Roles, &room, signedSize)
		page.Certificates = cut(&certs, &room, certificateSize)
		page.Removals = cut(&ch.Removals, &room, signedSize)
		page.Closes = cut(&ch.Closes, &room, signedSize)
		page.Keys = cut(&ch.Keys, &room, func(k wire.KeyBox) int { return 2 * (len(k.Box) + len(k.Previous)) })
		page.Pauses = cut(&ch.Pauses, &room, signedSize)
		page.More = left()
		c.send(page)
	}
	return nil
}

// entryBytes is what an entry of a list takes on the wire besides its binary fields.
const entryBytes = 512

func signedSize(s wire.Signed) int { return entryBytes + 2*len(s.Body) }

func certificateSize(c wire.Certificate) (n int) {
	for _, s := range c {
		n += signedSize(s)
	}
	return n
}

// cut takes entries off a list as long as there is room, in bytes, and the
// first one in any case when the page is empty.
func cut[T any](list *[]T, room *int, size func(T) int) []T {
	n := 0
	for n < len(*list) {
		need := size((*list)[n])
		if need > *room && *room < wire.PageBytes {
			break
		}
		*room -= need
		n++
	}
	out := (*list)[:n:n]
	*list = (*list)[n:]
	if out == nil {
		out = []T{}
	}
	return out
}

// invitePut stores an invite whose capability the roster allows.
func (c *conn) invitePut(ctx context.Context, f *wire.InvitePut) error {
	m := c.mesh
	m.mu.Lock()
	capability, err := m.roster.VerifyCapability(f.Capability)
	own := capability.Issuer == c.member
	if me, ok := m.roster.Member(c.member); ok && me.Role == trust.RoleOwner && capability.Issuer == m.roster.Genesis.Owner {
		own = true
	}
	m.mu.Unlock()
	switch {
	case err != nil:
		return err
	case !own:
		return wire.Faultf(wire.CodeForbidden, "an invite is stored by its issuer")
	case capability.Broker != c.b.PublicKey():
		return wire.Faultf(wire.CodeWrongBroker, "")
	case len(f.Blob) == 0 || len(f.Blob) > 512:
		return wire.Faultf(wire.CodeBadFrame, "blob")
	}
	err = c.b.store.PutInvite(ctx, Invite{
		Mesh: m.id, ID: capability.Invite, Capability: f.Capability, Blob: f.Blob, Generation: f.Generation,
		MaxUses: int(min(capability.MaxUses, 1<<31)), Expires: msTime(capability.Expires), Created: c.b.cfg.Now(),
	})
	if err != nil {
		return err
	}
	c.send(&wire.OK{Req: f.Req})
	return nil
}

// inviteList answers with the mesh's invites, newest first and at most as many
// as one message holds.
func (c *conn) inviteList(ctx context.Context, f *wire.InviteList) error {
	rows, err := c.b.store.Invites(ctx, c.mesh.id)
	if err != nil {
		return err
	}
	reply := &wire.Invites{Req: f.Req, Invites: []wire.InviteInfo{}}
	for _, in := range rows[:min(len(rows), wire.MaxInvites)] {
		reply.Invites = append(reply.Invites, wire.InviteInfo{
			Capability: in.Capability, Uses: in.Uses, Closed: in.Closed, Voided: in.Voided, Created: in.Created.UnixMilli(),
		})
	}
	c.send(reply)
	return nil
}

// inviteClose revokes an invite: by the owner, or by its issuer.
func (c *conn) inviteClose(ctx context.Context, f *wire.InviteClose) error {
	row, err := c.mayClose(ctx, f.Close)
	if err != nil {
		return err
	}
	version, err := c.b.store.CloseInvite(ctx, c.mesh.id, row)
	if err != nil {
		return err
	}
	c.mesh.mu.Lock()
	_, err = c.mesh.roster.AddClose(f.Close)
	c.mesh.mu.Unlock()
	if err != nil {
		return err
	}
	c.mesh.changed(version)
	c.send(&wire.OK{Req: f.Req, Version: version})
	c.mesh.dropOutcasts(c) // whom the close does not list is no member any more
	return nil
}

func (c *conn) mayClose(ctx context.Context, s wire.Signed) (InviteClose, error) {
	c.mesh.mu.Lock()
	cl, err := c.mesh.roster.VerifyClose(s)
	owner := c.mesh.roster.Genesis.Owner
	c.mesh.mu.Unlock()
	if err != nil {
		return InviteClose{}, err
	}
	in, err := c.b.store.Invite(ctx, cl.Invite)
	if err != nil || in.Mesh != c.mesh.id {
		return InviteClose{}, wire.Faultf(wire.CodeInviteUnknown, "")
	}
	capability, err := trust.ParseCapability(in.Capability)
	if err != nil || (cl.Signer != owner && cl.Signer != capability.Issuer) {
		return InviteClose{}, wire.Faultf(wire.CodeForbidden, "an invite is closed by the owner or its issuer")
	}
	return InviteClose{Invite: cl.Invite, Statement: s}, nil
}

// remove takes a member out of the mesh.
func (c *conn) remove(ctx context.Context, f *wire.Remove) error {
	m := c.mesh
	if err := m.fresh(ctx); err != nil {
		return err
	}
	rm, err := m.beginRemoval(f)
	if err != nil {
		return err
	}
	defer m.endRemoval(rm.Member)
	row := Removal{Mesh: m.id, Member: rm.Member, Statement: f.Removal, Version: rm.MembersVersion, Now: c.b.cfg.Now()}
	for _, s := range f.Closes {
		cl, err := c.mayClose(ctx, s)
		if err != nil {
			return err
		}
		row.Closes = append(row.Closes, cl)
	}
	if rm.Generation != 0 {
		row.NextKey = &NextKey{Generation: rm.Generation, Issuer: f.Issuer, Boxes: f.Boxes, Previous: f.Previous}
	}
	done, err := c.b.store.Remove(ctx, row)
	if err != nil {
		return err
	}
	m.removed(rm, f, done)
	if rm.Signer == rm.Member {
		c.record(audit.Left, rm.Member, rm.Reason)
	} else {
		c.record(audit.Removed, rm.Member, rm.Reason)
	}
	c.send(&wire.OK{Req: f.Req, Version: done.Version, Voided: done.Voided})
	m.dropOutcasts(c)
	return nil
}

// beginRemoval checks a removal. Until endRemoval nothing is taken from the
// member: it would be stored after the removal.
func (m *mesh) beginRemoval(f *wire.Remove) (trust.Removal, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	rm, err := m.roster.VerifyRemoval(f.Removal)
	if errors.Is(err, wire.Faultf(wire.CodeGenerationFork, "")) {
		return rm, ErrStaleMembers // another was quicker with this generation: no fork as long as it is not stored
	}
	if err != nil {
		return rm, err
	}
	_, known := m.roster.Known(rm.Member)
	switch {
	case rm.MembersVersion > m.version: // who may remove now is not known here yet
		return rm, ErrStaleMembers
	case known && rm.Signer != rm.Member && !m.roster.MayRemove(rm.Signer, rm.Member):
		return rm, wire.Faultf(wire.CodeForbidden, "the removal's signer may not remove this member now")
	}
	if err := m.checkBoxes(rm, f); err != nil {
		return rm, err
	}
	m.leaving[rm.Member]++
	return rm, nil
}

func (m *mesh) endRemoval(member wire.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leaving[member]--; m.leaving[member] == 0 {
		delete(m.leaving, member)
	}
}

// checkBoxes: a removal with a next key boxes it to every member that stays.
// mesh.mu is held.
func (m *mesh) checkBoxes(rm trust.Removal, f *wire.Remove) error {
	if rm.Generation == 0 {
		if len(f.Boxes) > 0 {
			return wire.Faultf(wire.CodeBadFrame, "key boxes without a key")
		}
		return nil
	}
	if f.Issuer != rm.Signer && !m.isMemberKey(f.Issuer) {
		return wire.Faultf(wire.CodeBadFrame, "key issuer")
	}
	boxed := map[wire.Key]bool{}
	for _, b := range f.Boxes {
		boxed[b.To] = true
	}
	for _, mem := range m.roster.Members() {
		stays := mem.Key != rm.Member && (mem.Issuer != rm.Member || slices.Contains(rm.Kept, mem.Key))
		if stays && !boxed[mem.Key] {
			return wire.Faultf(wire.CodeStaleMembers, "a member has no box of the new key")
		}
	}
	return nil
}

// removed brings a stored removal into memory and tells everyone.
func (m *mesh) removed(rm trust.Removal, f *wire.Remove, done Removed) {
	m.mu.Lock()
	_, err := m.roster.AddRemoval(f.Removal)
	for _, s := range f.Closes {
		if _, e := m.roster.AddClose(s); e != nil {
			err = e
		}
	}
	if rm.Generation > m.generation {
		m.generation = rm.Generation
	}
	m.mu.Unlock()
	if err != nil {
		m.b.log.Error("removal stored but not applied", "error", err)
	}
	m.bounced(done.Bounced)
	m.changed(done.Version)
}

// dropOutcasts closes the connections of members that stand no more; the one
// that asked for it hears its answer first.
func (m *mesh) dropOutcasts(asking *conn) {
	m.mu.Lock()
	var out []*conn
	for c := range m.conns {
		if m.roster.Standing(c.member) != nil {
			out = append(out, c)
			delete(m.conns, c)
		}
	}
	for _, c := range out {
		m.detach(c) // nothing moves: none of theirs is left
	}
	gone := map[*peer]bool{}
	for _, c := range out {
		if c.role != wire.RoleObserver && !gone[c.self] {
			gone[c.self] = true
			m.tell(c.self, wire.PresenceLeft, nil)
		}
	}
	for _, p := range m.peers {
		if !p.grace.IsZero() && m.roster.Standing(p.member) != nil {
			p.grace = time.Time{}
			m.tell(p, wire.PresenceLeft, nil)
		}
	}
	m.mu.Unlock()
	for _, c := range out {
		c.dismiss(wire.CloseRemoved, asking)
	}
}

// changed notes a new members version and tells every connection, and the other
// nodes. One that does not follow on what is known here comes after other
// changes, theirs or ones that are on their way into memory.
func (m *mesh) changed(version int64) {
	if m.b.cluster != nil {
		m.b.cluster.hints.all(hintMembers, m.id)
	}
	m.mu.Lock()
	gap := version > m.version+1
	if version > m.version && !gap {
		m.version = version
	}
	m.mu.Unlock()
	if gap {
		if err := m.refresh(m.b.ctx); err != nil {
			m.b.logUnlessStopping("members are not read", err)
			m.b.cluster.lookSoon()
		}
		return
	}
	m.broadcast(&wire.MembersChanged{Version: version})
}

// joined brings a newly admitted member into memory.
func (m *mesh) joined(cert wire.Certificate, version int64) error {
	m.mu.Lock()
	_, err := m.roster.Add(cert)
	m.mu.Unlock()
	m.changed(version)
	return err
}
