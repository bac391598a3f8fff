package client

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// SetRole makes a member an admin, or an admin a plain member. Only the owner
// may. Whom a demoted admin had admitted stays; its open invites are closed.
// ErrNotOwner, ErrGone.
func (c *Client) SetRole(ctx context.Context, member Key, role string) error {
	k, err := c.online()
	if err != nil {
		return err
	}
	if c.m.OwnerSeed.IsZero() {
		return ErrNotOwner
	}
	for try := 0; ; try++ {
		err := c.setRoleOnce(ctx, k, member, role)
		if !errors.Is(err, wire.Faultf(wire.CodeStaleMembers, "")) || try == 5 {
			return err
		}
		if err := c.refreshMembers(ctx, k); err != nil {
			return err
		}
	}
}

func (c *Client) setRoleOnce(ctx context.Context, k *conn, member Key, role string) error {
	owner := trust.SecretKeyFromSeed(c.m.OwnerSeed)
	r := trust.Role{Mesh: c.m.MeshID, Member: member, Role: role}
	var open []ID
	if role == trust.RoleMember {
		err := c.eachInvite(ctx, k, func(capability trust.Capability, in wire.InviteInfo) {
			if capability.Issuer == member && !in.Closed {
				open = append(open, capability.Invite)
			}
		})
		if err != nil {
			return err
		}
	}
	c.mu.Lock()
	if _, ok := c.roster.Member(member); !ok {
		c.mu.Unlock()
		return ErrGone
	}
	if role == trust.RoleMember {
		r.Kept = c.roster.AdmittedUnder(member)
	}
	r.Issued = max(c.clock(), c.roster.RoleIssued(member)+1)
	req := &wire.SetRole{Role: trust.SignRole(owner, r), MembersVersion: c.version}
	for _, id := range open {
		req.Closes = append(req.Closes, trust.SignClose(owner, c.m.MeshID, id, c.roster.AdmittedBy(id)))
	}
	c.mu.Unlock()
	if _, err := k.ask(ctx, req); err != nil {
		return err
	}
	return c.refreshMembers(ctx, k)
}

// Kick closes a member's connections. It stays a member and may connect again.
func (c *Client) Kick(ctx context.Context, member Key) error {
	k, err := c.online()
	if err != nil {
		return err
	}
	_, err = k.ask(ctx, &wire.Kick{Member: member})
	return err
}

// Block tells the broker whether it may take a member's messages to this one.
// What decides is the mailbox: this spares the sender the wait.
func (c *Client) Block(ctx context.Context, member Key, blocked bool) error {
	k, err := c.online()
	if err != nil {
		return err
	}
	_, err = k.ask(ctx, &wire.Block{Member: member, Blocked: blocked})
	return err
}

// tellBlocks brings the broker's blocks in line with this machine's: one may have
// been made, or ended, while the broker was away.
func (c *Client) tellBlocks(ctx context.Context, k *conn) error {
	trusts, err := c.box.Trusts(ctx, c.m.MeshID)
	if err != nil {
		return err
	}
	for _, t := range trusts {
		if t.Blocked == slices.Contains(k.hello.Blocked, t.Member) {
			continue
		}
		if _, err := k.ask(ctx, &wire.Block{Member: t.Member, Blocked: t.Blocked}); err != nil {
			return err
		}
	}
	return nil
}

// MaxPause bounds how long a mesh is paused at once.
const MaxPause = 30 * 24 * time.Hour

// Pause stops the mesh's messages for a while: nothing is sent, and nothing that
// has come enters an agent. Only the owner or an admin may. It returns until when.
func (c *Client) Pause(ctx context.Context, span time.Duration) (until time.Time, err error) {
	k, err := c.online()
	if err != nil {
		return until, err
	}
	signer, err := c.signer()
	if err != nil {
		return until, err
	}
	until = time.UnixMilli(c.clock() + min(span, MaxPause).Milliseconds())
	c.mu.Lock()
	s := trust.SignPause(signer, c.m.MeshID, until.UnixMilli())
	for c.roster.Lifted(s) { // one that ends at the same instant was lifted
		until = until.Add(time.Millisecond)
		s = trust.SignPause(signer, c.m.MeshID, until.UnixMilli())
	}
	c.mu.Unlock()
	if _, err := k.ask(ctx, &wire.Pause{Pause: s}); err != nil {
		return until, err
	}
	return until, c.refreshMembers(ctx, k)
}

// Resume ends every pause in force, and reports whether there was one.
func (c *Client) Resume(ctx context.Context) (was bool, err error) {
	k, err := c.online()
	if err != nil {
		return false, err
	}
	signer, err := c.signer()
	if err != nil {
		return false, err
	}
	c.mu.Lock()
	pauses, _ := c.roster.Pauses(c.now().UnixMilli())
	c.mu.Unlock()
	for _, p := range pauses {
		if _, err := k.ask(ctx, &wire.Pause{Pause: trust.SignResume(signer, c.m.MeshID, p)}); err != nil {
			return false, err
		}
	}
	if len(pauses) == 0 {
		return false, nil
	}
	return true, c.refreshMembers(ctx, k)
}

// PausedUntil is until when the mesh is paused, by this machine's clock, which no
// broker can set; zero when it is not.
func (c *Client) PausedUntil() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, until := c.roster.Pauses(c.now().UnixMilli()); until > 0 {
		return time.UnixMilli(until)
	}
	return time.Time{}
}

// RemovedError says that this member was removed from its mesh.
type RemovedError struct {
	Mesh string
	err  error
}

func (e *RemovedError) Error() string { return "removed from " + e.Mesh }

// Unwrap returns the refusal.
func (e *RemovedError) Unwrap() error { return e.err }

// refusal is why this member may not send: it was removed, the broker refuses it
// for good or hides a removal, or the mesh is paused.
func (c *Client) refusal() error {
	if err := c.withheldNow(); err != nil {
		return err
	}
	c.mu.Lock()
	state, standing := c.state, c.roster.Standing(c.member.Public())
	c.mu.Unlock()
	switch {
	case errors.Is(standing, wire.Faultf(wire.CodeRemoved, "")):
		return &RemovedError{c.m.Mesh, standing}
	case state.Final:
		return state.Err
	}
	if until := c.PausedUntil(); !until.IsZero() {
		return wire.Faultf(wire.CodePaused, "until "+until.Local().Format("2006-01-02 15:04"))
	}
	return nil
}

// reasonOK reports whether others may give that reason for a removal.
func reasonOK(reason string) bool {
	return reason != trust.ReasonLeft && slices.Contains(trust.Reasons, reason)
}
