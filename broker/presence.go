package broker

import (
	"context"
	"slices"
	"time"

	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// maxCard bounds a sealed card, so that a page of peers fits into a message.
const maxCard = 4 << 10

// describe is a peer as list_peers and presence show it. mesh.mu is held.
func (m *mesh) describe(p *peer, now time.Time) wire.Peer {
	w := wire.Peer{
		SessionPubkey: p.key, Pubkey: p.member, Role: wire.RoleSession,
		Attestation: p.attestation, Card: p.card, Online: m.online(p, now), LastSeen: p.lastSeen.UnixMilli(),
	}
	if p.key == p.member {
		w.Role, w.Online = wire.RolePerson, m.personOnline(p)
	}
	if w.Online {
		w.LastSeen = now.UnixMilli()
	}
	return w
}

// person returns a connection of a member at which a human waits. mesh.mu is held.
func (m *mesh) person(member wire.Key) *conn {
	for c := range m.conns {
		if c.role == wire.RolePerson && c.member == member {
			return c
		}
	}
	return nil
}

// personOnline reports whether a human waits at a connection of a member, here or at
// another node. p is the member's own mailbox. mesh.mu is held.
func (m *mesh) personOnline(p *peer) bool {
	return p.holder.Person || m.person(p.member) != nil
}

// shown reports whether a peer belongs in a list. mesh.mu is held.
func (m *mesh) shown(p *peer, now time.Time, offline bool) bool {
	if m.roster.Standing(p.member) != nil {
		return false
	}
	if p.key == p.member {
		return m.personOnline(p)
	}
	return m.online(p, now) || (offline && p.card != nil && now.Sub(p.lastSeen) < m.b.cfg.Limits.ForgetAfter)
}

func peerSize(p wire.Peer) int {
	n := 2 * entryBytes
	if p.Card != nil {
		n += 2 * len(p.Card.Blob)
	}
	return n
}

// listPeers answers with the sessions and persons of the mesh, in pages.
func (c *conn) listPeers(_ context.Context, f *wire.ListPeers) error {
	m, now := c.mesh, c.b.cfg.Now()
	m.mu.Lock()
	list := []wire.Peer{}
	for _, p := range m.peers {
		if m.shown(p, now, f.Offline) {
			list = append(list, m.describe(p, now))
		}
	}
	c.watches = c.watches || f.Watch
	c.listing = true // what changes from here on is told after the pages
	m.mu.Unlock()
	slices.SortFunc(list, func(a, b wire.Peer) int { return slices.Compare(a.SessionPubkey[:], b.SessionPubkey[:]) })
	for first := true; first || len(list) > 0; first = false {
		c.out.Wait() // a long list is no reason to be too slow
		room := wire.PageBytes
		page := cut(&list, &room, peerSize)
		c.send(&wire.PeersList{Req: f.Req, Peers: page, More: len(list) > 0})
	}
	m.mu.Lock()
	c.listing = false
	m.sendNews(c)
	m.mu.Unlock()
	return nil
}

// tell notes a presence event for every connection that watches, but one. Each
// writer sends what has gathered when its queue has room, one event per peer.
// mesh.mu is held.
func (m *mesh) tell(p *peer, e wire.PresenceEvent, except *conn) {
	for c := range m.conns {
		if c == except || !c.watches {
			continue
		}
		if c.news == nil {
			c.news = map[*peer]wire.PresenceEvent{}
		}
		if old, ok := c.news[p]; !ok || old != wire.PresenceJoined || e == wire.PresenceLeft {
			c.news[p] = e
		}
		m.sendNews(c)
	}
}

// sendNews queues c's gathered presence events while there is room. mesh.mu is held.
func (m *mesh) sendNews(c *conn) {
	now := m.b.cfg.Now()
	for p, e := range c.news {
		if c.listing || !c.out.Roomy() {
			return // listPeers, or the writer, calls again
		}
		delete(c.news, p)
		c.send(&wire.Presence{Event: e, Peer: m.describe(p, now)})
	}
}

func (c *conn) flushNews() {
	c.mesh.mu.Lock()
	defer c.mesh.mu.Unlock()
	c.mesh.sendNews(c)
}

// setCard replaces this connection's card. A card that is not newer than the
// stored one is refused.
func (c *conn) setCard(ctx context.Context, f *wire.SetCard) error {
	if len(f.Card.Blob) > maxCard {
		return wire.Faultf(wire.CodeTooLarge, "card")
	}
	if err := trust.VerifyCard(c.mesh.id, c.member, c.key, &f.Card); err != nil {
		return err
	}
	c.mesh.mu.Lock()
	stale := c.self.card != nil && f.Card.Seq <= c.self.card.Seq
	c.mesh.mu.Unlock()
	if stale {
		return wire.Faultf(wire.CodeBadCard, "a newer card is known")
	}
	p, err := c.mesh.putPeer(ctx, Peer{Mesh: c.mesh.id, Key: c.key, Member: c.member, Card: &f.Card, LastSeen: c.b.cfg.Now()})
	if err != nil {
		return err
	}
	c.mesh.mu.Lock()
	c.mesh.tell(p, wire.PresenceChanged, c)
	c.mesh.mu.Unlock()
	c.mesh.hintPeers([]Hold{{Peer: p.id}})
	c.send(&wire.OK{Req: f.Req})
	return nil
}
