package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/seal"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// openPush opens one push and checks everything that makes it a message of a
// current member to this client. Its refusals are *wire.Fault.
func (c *Client) openPush(ctx context.Context, k *conn, p *wire.Push) (seal.Opened, error) {
	own, key := c.session, c.self
	if p.To != c.self {
		if own, key = c.member, c.member.Public(); p.To != key {
			return seal.Opened{}, wire.Faultf(wire.CodeWrongRecipient, "")
		}
	}
	shared, err := c.sharedWith(own, p.SenderPubkey)
	if err != nil {
		return seal.Opened{}, wire.Faultf(wire.CodeBadBox, "sender key")
	}
	o, err := seal.OpenVouched(p, key, c.m.MeshID, shared, c.vouch)
	if err != nil {
		return o, err
	}
	if err := c.standing(ctx, k, p, o.Header.SenderMember); err != nil {
		return o, err
	}
	return o, c.checkGeneration(ctx, k, p, o.Header.Generation)
}

// vouch is trust.VerifyAttestation with a memory of what it has accepted.
func (c *Client) vouch(mesh ID, member, session Key, a *wire.Attestation) error {
	v := vouch(member, session, a)
	c.mu.Lock()
	known := c.vouches[v]
	c.mu.Unlock()
	if known {
		return nil
	}
	if err := trust.VerifyAttestation(mesh, member, session, a); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.vouchFor(v)
	return nil
}

// vouchFor remembers what was verified. c.mu is held.
func (c *Client) vouchFor(v vouched) {
	if len(c.vouches) >= maxShared {
		clear(c.vouches)
	}
	c.vouches[v] = true
}

// standing checks that a sender is a current member, reading the membership
// up to the push's version before it refuses.
func (c *Client) standing(ctx context.Context, k *conn, p *wire.Push, member Key) error {
	c.mu.Lock()
	err, version := c.roster.Standing(member), c.version
	_, clash := c.roster.Known(p.SenderPubkey)
	c.mu.Unlock()
	if clash && p.SenderPubkey != member {
		return wire.Faultf(wire.CodeBadAttestation, "a member key used as a session key")
	}
	if err == nil && version >= p.MembersVersion {
		return nil
	}
	if version < p.MembersVersion {
		if err := c.syncMembers(ctx, k, p.MembersVersion); err != nil {
			return notFault(err)
		}
		c.mu.Lock()
		err = c.roster.Standing(member)
		c.mu.Unlock()
	}
	if errors.Is(err, wire.Faultf(wire.CodeUnknownMember, "")) {
		return wire.Faultf(wire.CodeUnknownSender, "")
	}
	return err
}

// notFault hides a fault of our own request, which is no reason to refuse the message.
func notFault(err error) error {
	return fmt.Errorf("membership: %s", err.Error()) // on purpose not wrapped
}

// checkGeneration: a sender that knows of a newer mesh key than the broker will show
// knows of a removal that the broker withholds. Then nothing more is sent.
func (c *Client) checkGeneration(ctx context.Context, k *conn, p *wire.Push, generation uint64) error {
	c.mu.Lock()
	have := c.roster.Generation()
	c.mu.Unlock()
	if generation <= have {
		return nil
	}
	if err := c.readMembers(ctx, k); err != nil {
		return notFault(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if generation <= c.roster.Generation() {
		return nil
	}
	c.withheld = max(c.withheld, generation)
	return wire.Faultf(wire.CodeRemovalWithheld, "")
}

// introduce asks who is there when a message comes from a session that is not
// known yet, so that it is shown by its full name.
func (c *Client) introduce(ctx context.Context, k *conn, member, session Key) {
	c.mu.Lock()
	known := member == session || c.peers[session] != nil
	c.mu.Unlock()
	if known {
		return
	}
	if err := c.fetchPeers(ctx, k); err != nil && ctx.Err() == nil {
		c.log.Debug("sender stays without a label", "error", err)
	}
}

func (c *Client) incoming(p *wire.Push, o seal.Opened) mailbox.Incoming {
	h := o.Header
	c.mu.Lock()
	name := c.senderName(h.SenderMember, h.SenderSession)
	c.mu.Unlock()
	return mailbox.Incoming{
		Mesh: h.Mesh, Recipient: p.To, SenderMember: h.SenderMember, SenderSession: h.SenderSession, SenderName: name,
		ID: h.ID, Mode: h.Mode, Target: h.Target, Priority: h.Priority, ContentType: o.Content.Type, Text: string(o.Content.Body),
		Hop: h.Hop, Own: h.SenderMember == c.member.Public(), ReplyTo: h.ReplyTo, Replaces: h.Replaces,
		Sent: h.Sent, Expires: h.Expires, Received: c.clock(), Seq: h.Seq,
	}
}
