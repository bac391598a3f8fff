package client

import (
	"context"
	"errors"
	"time"

	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// Invite is one invite of the mesh. Link and Web are set by NewInvite alone:
// nobody, the broker included, can show them again.
type Invite struct {
	ID      ID
	Link    string // ic://join/...
	Web     string // https://HOST/i/ID#...
	Role    string
	MaxUses int
	Uses    int
	Expires time.Time
	Created time.Time
	Issuer  string // a member's name, or "the owner"
	State   string // open, used up, expired, revoked or void
}

// NewInvite issues an invite for a role (member, or by the owner admin), for
// a number of uses, and stores it at the broker.
func (c *Client) NewInvite(ctx context.Context, role string, uses int, age time.Duration) (*Invite, error) {
	k, err := c.online()
	if err != nil {
		return nil, err
	}
	signer, err := c.signer()
	if err != nil {
		return nil, err
	}
	if role == trust.RoleAdmin && c.m.OwnerSeed.IsZero() {
		return nil, ErrForbidden
	}
	for try := 0; ; try++ {
		inv, err := c.inviteOnce(ctx, k, signer, role, uses, age)
		if !errors.Is(err, wire.Faultf(wire.CodeStaleMembers, "")) || try == 5 {
			return inv, err
		}
		if err := c.refreshMembers(ctx, k); err != nil {
			return nil, err
		}
	}
}

func (c *Client) inviteOnce(ctx context.Context, k *conn, signer trust.SecretKey, role string, uses int, age time.Duration) (*Invite, error) {
	link := trust.Link{Broker: c.m.Broker, BrokerKey: c.m.BrokerKey, Owner: c.m.Owner, Secret: trust.NewSecret()}
	key := link.Secret.InviteKey().Public()
	expires := c.clock() + age.Milliseconds()
	capability := trust.Capability{
		Mesh: c.m.MeshID, Invite: trust.InviteID(key), Key: key, Role: role, Expires: expires,
		MaxUses: uint64(max(uses, 1)), Broker: c.m.BrokerKey,
	}
	c.mu.Lock()
	meshKey := c.sealingKey()
	c.mu.Unlock()
	if meshKey.Generation == 0 {
		return nil, errNoKey
	}
	put := &wire.InvitePut{
		Capability: trust.SignCapability(signer, capability),
		Blob:       meshKey.Secret(c.m.MeshID, link.Secret.BlobKey()), Generation: meshKey.Generation,
	}
	if _, err := k.ask(ctx, put); err != nil {
		return nil, err
	}
	base, err := httpBase(c.m.Broker)
	if err != nil {
		return nil, err
	}
	return &Invite{
		ID: capability.Invite, Link: link.String(), Web: link.Web(base), Role: role, MaxUses: int(capability.MaxUses),
		Expires: time.UnixMilli(expires), State: "open",
	}, nil
}

// Invites returns the invites of the mesh, newest first. Those of an issuer that
// may not issue any more are left out: nobody comes by them.
func (c *Client) Invites(ctx context.Context) (out []Invite, err error) {
	k, err := c.online()
	if err != nil {
		return nil, err
	}
	err = c.eachInvite(ctx, k, func(capability trust.Capability, in wire.InviteInfo) {
		out = append(out, c.describeInvite(capability, in))
	})
	return out, err
}

// eachInvite calls do for each invite of the mesh that verifies. c.mu is held meanwhile.
func (c *Client) eachInvite(ctx context.Context, k *conn, do func(trust.Capability, wire.InviteInfo)) error {
	reply, err := k.ask(ctx, &wire.InviteList{})
	if err != nil {
		return err
	}
	list, ok := reply.(*wire.Invites)
	if !ok {
		return wire.Faultf(wire.CodeBadFrame, "")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, in := range list.Invites {
		capability, err := c.roster.VerifyCapability(in.Capability)
		if err != nil {
			c.log.Warn("an invite does not verify", "error", err)
			continue
		}
		do(capability, in)
	}
	return nil
}

// describeInvite puts an invite's state into a word. c.mu is held.
func (c *Client) describeInvite(capability trust.Capability, in wire.InviteInfo) Invite {
	v := Invite{
		ID: capability.Invite, Role: capability.Role, MaxUses: int(min(capability.MaxUses, 1<<31)), Uses: in.Uses,
		Expires: time.UnixMilli(capability.Expires), Created: time.UnixMilli(in.Created), State: "open",
		Issuer: c.issuerName(capability.Issuer),
	}
	switch {
	case in.Closed:
		v.State = "revoked"
	case in.Voided:
		v.State = "void"
	case v.Uses >= v.MaxUses:
		v.State = "used up"
	case c.clock() >= capability.Expires:
		v.State = "expired"
	}
	return v
}

// CloseInvite revokes an invite: no one else comes by it, whoever keeps the
// link; who came by it stays.
func (c *Client) CloseInvite(ctx context.Context, id ID) error {
	k, err := c.online()
	if err != nil {
		return err
	}
	signer, err := c.signer()
	if err != nil {
		return err
	}
	if err := c.refreshMembers(ctx, k); err != nil {
		return err
	}
	c.mu.Lock()
	admitted := c.roster.AdmittedBy(id)
	c.mu.Unlock()
	if _, err := k.ask(ctx, &wire.InviteClose{Close: trust.SignClose(signer, c.m.MeshID, id, admitted)}); err != nil {
		return err
	}
	return c.refreshMembers(ctx, k)
}
