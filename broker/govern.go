package broker

import (
	"context"
	"crypto/sha256"
	"slices"
	"time"

	"github.com/claudemesh/claudemesh/internal/audit"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

const (
	// maxPause is the longest pause: the store keeps it until it has passed.
	maxPause = 366 * 24 * time.Hour
	// pauseWait is the longest that a sender is told to wait while the mesh is paused.
	pauseWait = 30 * time.Second
)

// fresh brings the members up to date before something is decided by them: in a
// cluster they may have changed at another node.
func (m *mesh) fresh(ctx context.Context) error {
	if m.b.cluster == nil {
		return nil
	}
	return m.refresh(ctx)
}

// changed brings what this broker has stored into memory, tells everyone, and
// answers. A repeat, whose version was known before, is not recorded again.
func (c *conn) changed(ctx context.Context, req wire.Req, before, version int64, record func()) error {
	m := c.mesh
	if m.b.cluster != nil {
		m.b.cluster.hints.all(hintMembers, m.id)
	}
	if err := m.refresh(ctx); err != nil {
		return err
	}
	if version > before {
		record()
	}
	c.send(&wire.OK{Req: req, Version: version})
	return nil
}

// mayChange bounds how often a member changes how the mesh is run, and returns
// the members version by which it is decided whether it may.
func (c *conn) mayChange(ctx context.Context) (version int64, err error) {
	m := c.mesh
	m.mu.Lock()
	wait := m.pace(c.member).change(c.b.cfg.Now())
	m.mu.Unlock()
	if wait > 0 {
		return 0, &wire.Fault{Code: wire.CodeRateLimited, RetryAfterMs: wait.Milliseconds() + 1}
	}
	if err := m.fresh(ctx); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.version, nil
}

// rules is the key by whose rights a member acts: the owner's for the founder.
// mesh.mu is held.
func (m *mesh) rules(member wire.Key) wire.Key {
	if me, ok := m.roster.Member(member); ok && me.Role == trust.RoleOwner {
		return m.roster.Genesis.Owner
	}
	return member
}

// setRole stores the owner's word on a member's role. Whoever carries it.
func (c *conn) setRole(ctx context.Context, f *wire.SetRole) error {
	m := c.mesh
	before, err := c.mayChange(ctx)
	if err != nil {
		return err
	}
	role, err := m.verifyRole(f)
	if err != nil {
		return err
	}
	row := RoleChange{Mesh: m.id, Statement: f.Role, Version: f.MembersVersion}
	for _, s := range f.Closes {
		cl, err := c.mayClose(ctx, s)
		if err != nil {
			return err
		}
		if v, err := trust.ParseClose(s); err != nil || v.Signer != m.roster.Genesis.Owner || role.Role != trust.RoleMember {
			return wire.Faultf(wire.CodeForbidden, "with a demotion the owner closes invites")
		}
		row.Closes = append(row.Closes, cl)
	}
	version, err := c.b.store.SetRole(ctx, row)
	if err != nil {
		return err
	}
	return c.changed(ctx, f.Req, before, version, func() { c.record(audit.Role, role.Member, role.Role) })
}

// verifyRole checks a role against the roster. A version that is not the
// mesh's is for the store to find.
func (m *mesh) verifyRole(f *wire.SetRole) (trust.Role, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	role, err := m.roster.VerifyRole(f.Role)
	if err != nil || m.hasRole(role.Member, f.Role) {
		return role, err
	}
	if err := m.roster.Standing(role.Member); err != nil {
		return role, err
	}
	if role.Issued <= m.roster.RoleIssued(role.Member) {
		return role, wire.Faultf(wire.CodeStaleMembers, "a later role is known")
	}
	return role, nil
}

// hasRole reports whether a statement is one of a member's. mesh.mu is held.
func (m *mesh) hasRole(member wire.Key, s wire.Signed) bool {
	return slices.ContainsFunc(m.roles[member], s.Equal)
}

// pause stops the mesh's messages, or lets them go on.
func (c *conn) pause(ctx context.Context, f *wire.Pause) error {
	m, now := c.mesh, c.b.cfg.Now()
	before, err := c.mayChange(ctx)
	if err != nil {
		return err
	}
	row, over, err := m.verifyPause(f.Pause, now)
	if err != nil {
		return err
	}
	if over > 0 {
		c.send(&wire.OK{Req: f.Req, Version: over})
		return nil
	}
	version, err := c.b.store.AddPause(ctx, row)
	if err != nil {
		return err
	}
	event := audit.Paused
	if row.Until.IsZero() {
		event = audit.Resumed
	}
	return c.changed(ctx, f.Req, before, version, func() { c.record(event, row.Signer, "") })
}

// verifyPause checks that who signed a pause or a resume governs now. over is
// the members version when there is nothing left to end.
func (m *mesh) verifyPause(s wire.Signed, now time.Time) (row Pause, over int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, err := m.roster.VerifyPause(s)
	if err != nil {
		return row, 0, err
	}
	if !m.roster.Governs(p.Signer) {
		return row, 0, wire.Faultf(wire.CodeForbidden, "only the owner or an admin pauses a mesh")
	}
	row = Pause{Mesh: m.id, Signer: p.Signer, Statement: s, Hash: p.Lifts, Now: now}
	if p.Lifts != [32]byte{} {
		if paused, _ := m.roster.Pauses(now.UnixMilli()); !slices.Contains(paused, p.Lifts) {
			over = m.version
		}
		return row, over, nil
	}
	row.Hash, row.Until = sha256.Sum256(s.Body), msTime(p.Until)
	switch {
	case p.Until <= now.UnixMilli():
		err = wire.Faultf(wire.CodeExpired, "the pause has passed")
	case row.Until.Sub(now) > maxPause:
		err = wire.Faultf(wire.CodeBadLifetime, "a pause lasts a year at most")
	case m.roster.Lifted(s):
		err = wire.Faultf(wire.CodeExpired, "the pause was ended")
	}
	return row, 0, err
}

// unpaused refuses what is sent while the mesh is paused.
func (c *conn) unpaused(f *wire.Send, sender *peer, now time.Time) error {
	m := c.mesh
	m.mu.Lock()
	defer m.mu.Unlock()
	_, until := m.roster.Pauses(now.UnixMilli())
	if until == 0 {
		return nil
	}
	_ = sender.putOff(lane{}, f.ID, wire.CodePaused, now)
	return &wire.Fault{Code: wire.CodePaused, RetryAfterMs: min(until-now.UnixMilli(), pauseWait.Milliseconds())}
}

// kick closes a member's connections, here and at the other nodes.
func (c *conn) kick(ctx context.Context, f *wire.Kick) error {
	m := c.mesh
	if _, err := c.mayChange(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	err := m.roster.Standing(f.Member)
	if err == nil && !m.roster.MayRemove(m.rules(c.member), f.Member) {
		err = wire.Faultf(wire.CodeForbidden, "an admin kicks plain members, the owner anyone")
	}
	m.mu.Unlock()
	if err != nil {
		return err
	}
	if m.b.cluster != nil {
		own, err := m.peerFor(ctx, f.Member)
		if err != nil {
			return err
		}
		m.b.cluster.hints.all(hintKick, m.id, int64(own.id))
	}
	c.record(audit.Kicked, f.Member, "")
	c.send(&wire.OK{Req: f.Req})
	m.kicked(f.Member, c)
	return nil
}

// kicked closes the connections here of a member; the one that asked for it has
// its answer first.
func (m *mesh) kicked(member wire.Key, asking *conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.connsOf(member) {
		c.dismiss(wire.CloseKicked, asking)
	}
}

// block notes whose messages this member does not take.
func (c *conn) block(ctx context.Context, f *wire.Block) error {
	m := c.mesh
	before, err := c.mayChange(ctx)
	if err != nil {
		return err
	}
	m.mu.Lock()
	_, known := m.roster.Known(f.Member)
	m.mu.Unlock()
	switch {
	case f.Member == c.member:
		return wire.Faultf(wire.CodeBadFrame, "a block of oneself")
	case f.Blocked && !known:
		return wire.Faultf(wire.CodeUnknownMember, "")
	}
	version, err := c.b.store.SetBlock(ctx, m.id, Block{Member: c.member, Blocked: f.Member}, f.Blocked)
	if err != nil {
		return err
	}
	event := audit.Unblocked
	if f.Blocked {
		event = audit.Blocked
	}
	return c.changed(ctx, f.Req, before, version, func() { c.record(event, f.Member, "") })
}

// blocked reports whether a member takes no messages of another.
func (m *mesh) blocked(member, sender wire.Key) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, on := m.blocks[Block{Member: member, Blocked: sender}]
	return on
}

// blockedBy lists whose messages a member does not take. mesh.mu is held.
func (m *mesh) blockedBy(member wire.Key) (keys []wire.Key) {
	for b := range m.blocks {
		if b.Member == member {
			keys = append(keys, b.Blocked)
		}
	}
	return keys
}

// followKick closes connections that another node has kicked.
func (m *mesh) followKick(ctx context.Context, own []PeerID) error {
	if err := m.learn(ctx, own); err != nil {
		return err
	}
	var members []wire.Key
	m.mu.Lock()
	for _, id := range own {
		if p := m.byID[id]; p != nil {
			members = append(members, p.member)
		}
	}
	m.mu.Unlock()
	for _, member := range members {
		m.kicked(member, nil)
	}
	return nil
}
