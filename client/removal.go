package client

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/claudemesh/claudemesh/internal/seal"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// Errors of what only some may do.
var (
	ErrForbidden = errors.New("only the owner or an admin may do that")
	ErrNotOwner  = errors.New("only the owner may do that, on the machine that founded the mesh")
	// ErrGone says that a member is out already: another removed it, or it left.
	ErrGone = errors.New("is no member any more")
)

// signer is the key that this client signs invites and removals with: the
// owner's where it is, else an admin's own.
func (c *Client) signer() (trust.SecretKey, error) {
	switch {
	case !c.m.OwnerSeed.IsZero():
		return trust.SecretKeyFromSeed(c.m.OwnerSeed), nil
	case c.MemberRole() == trust.RoleAdmin:
		return c.member, nil
	}
	return trust.SecretKey{}, ErrForbidden
}

// Leave takes this member out of the mesh: it signs its own removal. The next
// admin to connect issues a new mesh key. The caller then forgets the membership.
func (c *Client) Leave(ctx context.Context) error {
	k, err := c.online()
	if err != nil {
		return err
	}
	for try := 0; ; try++ {
		c.mu.Lock()
		rm := trust.Removal{
			Mesh: c.m.MeshID, Member: c.member.Public(), Revoked: c.clock(), Reason: trust.ReasonLeft, MembersVersion: c.version,
			Kept: c.roster.AdmittedUnder(c.member.Public()), // nobody, unless an admin leaves
		}
		c.mu.Unlock()
		_, err := k.ask(ctx, &wire.Remove{Removal: trust.SignRemoval(c.member, rm)})
		if !errors.Is(err, wire.Faultf(wire.CodeStaleMembers, "")) || try == 5 {
			return err
		}
		if err := c.refreshMembers(ctx, k); err != nil {
			return err
		}
	}
}

// Remove takes a member out of the mesh, closes the invites by which it could come
// back, and issues the next mesh key to those who stay. It returns the ids of
// the open invites that this voided: they hold the old key and must be issued again.
// Reason is one of trust.Reasons. Of two who remove at once one wins; the other's is
// built anew on what that left. ErrGone when the member is out already, ErrForbidden.
func (c *Client) Remove(ctx context.Context, member Key, reason string) (voided []ID, err error) {
	if !reasonOK(reason) {
		return nil, fmt.Errorf("%q is no reason for a removal", reason)
	}
	k, err := c.online()
	if err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		if c.gone(member) {
			return nil, ErrGone
		}
		voided, err = c.removeOnce(ctx, k, member, reason)
		stale := errors.Is(err, wire.Faultf(wire.CodeStaleMembers, "")) && try < 5
		unknown := errors.Is(err, ErrForbidden) && try == 0 // it may have joined a moment ago
		if !stale && !unknown {
			return voided, err
		}
		if err := c.refreshMembers(ctx, k); err != nil {
			return nil, err
		}
	}
}

// gone reports whether a removal of a member is known here.
func (c *Client) gone(member Key) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.roster.Removed(member)
}

// refreshMembers reads the membership again, whatever version is known.
func (c *Client) refreshMembers(ctx context.Context, k *conn) error {
	return c.syncMembers(ctx, k, anyVersion)
}

func (c *Client) removeOnce(ctx context.Context, k *conn, member Key, reason string) ([]ID, error) {
	signer, err := c.signer()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	req, key, err := c.buildRemoval(signer, member, reason)
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	reply, err := k.ask(ctx, req)
	if err != nil {
		return nil, err
	}
	if err := c.keepKey(ctx, key); err != nil {
		return nil, err
	}
	if err := c.refreshMembers(ctx, k); err != nil {
		return nil, err
	}
	ok, _ := reply.(*wire.OK)
	if ok == nil {
		return nil, nil
	}
	return ok.Voided, nil
}

// buildRemoval makes a removal with the next mesh key boxed to all who stay. c.mu is held.
func (c *Client) buildRemoval(signer trust.SecretKey, member Key, reason string) (*wire.Remove, seal.MeshKey, error) {
	if !c.roster.MayRemove(signer.Public(), member) {
		return nil, seal.MeshKey{}, ErrForbidden
	}
	target, _ := c.roster.Known(member)
	old := c.sealingKey()
	key := seal.NewMeshKey(c.roster.LatestGeneration() + 1)
	rm := trust.Removal{
		Mesh: c.m.MeshID, Member: member, Revoked: c.clock(), Reason: reason, MembersVersion: c.version,
		Kept: c.roster.AdmittedUnder(member), Generation: key.Generation,
		KeyHash: trust.KeyHash(c.m.MeshID, key.Generation, key.Key),
	}
	req := &wire.Remove{
		Issuer: c.member.Public(), Previous: old.Secret(c.m.MeshID, trust.PreviousKey(key.Key)),
	}
	if !target.Invite.IsZero() && (signer.Public() == c.m.Owner || signer.Public() == target.Issuer) {
		admitted := slices.DeleteFunc(c.roster.AdmittedBy(target.Invite), func(k Key) bool { return k == member })
		req.Closes = append(req.Closes, trust.SignClose(signer, c.m.MeshID, target.Invite, admitted))
	}
	req.Removal = trust.SignRemoval(signer, rm)
	for _, m := range c.roster.Members() {
		if m.Key == member {
			continue
		}
		shared, err := seal.NewShared(c.member, m.Key)
		if err != nil {
			return nil, key, err
		}
		req.Boxes = append(req.Boxes, wire.KeyBoxTo{To: m.Key, Box: key.Box(c.m.MeshID, shared)})
	}
	return req, key, nil
}

// rekey issues the next mesh key after members have left by themselves, when
// this client may: it signs the removal again, with a key.
func (c *Client) rekey(ctx context.Context, k *conn) error {
	if _, err := c.signer(); err != nil || c.role == Observer {
		return nil // a plain member leaves it to the next admin
	}
	c.mu.Lock()
	left := c.roster.Unkeyed()
	c.mu.Unlock()
	for _, member := range left {
		_, err := c.removeOnce(ctx, k, member, trust.ReasonLeft)
		if err != nil && !errors.Is(err, ErrForbidden) && !errors.Is(err, wire.Faultf(wire.CodeStaleMembers, "")) {
			return err
		}
	}
	return nil
}
