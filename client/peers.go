package client

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// recent is how long ago a session may have been seen to be reached by groups and *.
const recent = 7 * 24 * time.Hour

// Peers returns the sessions and persons of the mesh, this one included, by
// name: the live ones, and with offline also those seen in the last 30 days.
// Online it asks the broker the first time and follows its changes from then
// on; offline it answers from what was last known, with fresh false.
func (c *Client) Peers(ctx context.Context, offline bool) (peers []Peer, fresh bool, err error) {
	fresh = true
	if err := c.refreshPeers(ctx); err != nil {
		fresh = false
		c.log.Debug("peers from memory", "error", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.peers {
		if p.Online || offline && p.Role == Session && c.now().Sub(p.LastSeen) < 30*24*time.Hour {
			shown := *p
			shown.Woken = c.woken(p)
			peers = append(peers, shown)
		}
	}
	slices.SortFunc(peers, func(a, b Peer) int {
		return cmp.Or(cmp.Compare(a.FullName(), b.FullName()), slices.Compare(a.Key[:], b.Key[:]))
	})
	return peers, fresh, nil
}

// woken is when a message last got into a session: not in the time to come.
func (c *Client) woken(p *Peer) time.Time {
	if p.Card.WokenAt <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(min(p.Card.WokenAt, c.clock()) - c.offset.Load())
}

// PeersOnline counts the sessions and persons that are online besides this one,
// as far as the broker has told.
func (c *Client) PeersOnline(ctx context.Context) (n int) {
	if err := c.refreshPeers(ctx); err != nil {
		c.log.Debug("peers from memory", "error", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, p := range c.peers {
		if p.Online && key != c.self {
			n++
		}
	}
	return n
}

// refreshPeers makes the peer table the broker's, unless it already follows it.
func (c *Client) refreshPeers(ctx context.Context) error {
	k, err := c.online()
	if err != nil {
		return err
	}
	return c.fetchPeers(ctx, k)
}

func (c *Client) fetchPeers(ctx context.Context, k *conn) error {
	c.listing.Lock() // who comes meanwhile waits for the list
	defer c.listing.Unlock()
	c.mu.Lock()
	following := c.watching
	c.watching = c.watching || c.role != Observer
	c.mu.Unlock()
	if following {
		return nil
	}
	var list []wire.Peer
	err := k.askPages(ctx, &wire.ListPeers{Offline: true, Watch: c.role != Observer}, func(f wire.Frame) {
		if l, ok := f.(*wire.PeersList); ok {
			list = append(list, l.Peers...)
		}
	})
	if err == nil && c.strangers(list) {
		// They joined a moment ago, and the list came before the news of it.
		err = c.refreshMembers(ctx, k)
	}
	c.mu.Lock()
	if err != nil {
		c.watching = false
		c.mu.Unlock()
		return err
	}
	for _, p := range c.peers {
		p.Online = false
	}
	known := make([]mailbox.KnownPeer, 0, len(list))
	for _, w := range list {
		if p := c.notePeer(w); p != nil && p.worthSaving() {
			known = append(known, toKnown(p))
		}
	}
	c.mu.Unlock()
	return c.box.SavePeers(ctx, c.m.MeshID, known)
}

// strangers reports whether a peer's member is not in the roster.
func (c *Client) strangers(list []wire.Peer) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(list, func(w wire.Peer) bool { _, ok := c.roster.Known(w.Pubkey); return !ok })
}

// notePeer verifies one peer and puts it into the table. c.mu is held.
func (c *Client) notePeer(w wire.Peer) *Peer {
	p, err := c.fromWire(w)
	if err != nil {
		c.log.Debug("a peer is not shown", "peer", w.SessionPubkey.Short(), "error", err)
		if f := new(wire.Fault); errors.As(err, &f) && !slices.Contains(innocent, f.Code) {
			c.caught(f.Code, "a peer: "+f.Detail)
		}
		return nil
	}
	if old := c.peers[p.Key]; old != nil && old.seq == p.seq && sameAttestation(old.attestation, p.attestation) {
		p.saved = old.saved
	}
	c.peers[p.Key] = p
	return p
}

// worthSaving reports whether the mailbox should hear of a peer, and takes it that
// it does. That it was seen again is no news for a minute: after a restart of the
// broker everyone sees everyone again.
func (p *Peer) worthSaving() bool {
	if p.LastSeen.Sub(p.saved).Abs() < time.Minute {
		return false
	}
	p.saved = p.LastSeen
	return true
}

func toKnown(p *Peer) mailbox.KnownPeer {
	raw, err := wire.Marshal(p.Card)
	if err != nil {
		raw = nil
	}
	return mailbox.KnownPeer{
		Key: p.Key, Member: p.Member, Role: p.Role, Attestation: p.attestation,
		CardSeq: p.seq, Card: raw, LastSeen: p.LastSeen.UnixMilli(),
	}
}

// presence applies one change that the broker tells of. The reader calls it and
// may not wait: a peer of a member that is not known yet is looked at after the
// membership was read.
func (c *Client) presence(k *conn, f *wire.Presence) {
	if !c.strangers([]wire.Peer{f.Peer}) {
		c.applyPresence(f)
		return
	}
	c.wg.Go(func() {
		if err := c.refreshMembers(c.ctx, k); err != nil {
			if c.ctx.Err() == nil {
				c.log.Debug("membership is not read", "error", err)
			}
			return
		}
		c.applyPresence(f)
	})
}

func (c *Client) applyPresence(f *wire.Presence) {
	c.mu.Lock()
	p := c.notePeer(f.Peer)
	if p == nil {
		c.mu.Unlock()
		return
	}
	p.Online = p.Online && f.Event != wire.PresenceLeft
	save, known := p.worthSaving(), toKnown(p)
	c.mu.Unlock()
	if !save {
		return
	}
	if err := c.box.SavePeers(c.ctx, c.m.MeshID, []mailbox.KnownPeer{known}); err != nil && c.ctx.Err() == nil {
		c.log.Warn("peer is not remembered", "error", err)
	}
}

// senderName is how a sender is shown: from its certificate and card. c.mu is held.
func (c *Client) senderName(member, session Key) string {
	if p := c.peers[session]; p != nil && p.Member == member {
		return p.FullName()
	}
	m, _ := c.roster.Known(member)
	return m.Name
}
