package broker

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// In a cluster a mailbox is served by the node that holds it in the store. A
// session's goes to the node to which it connected last; a member's own stays where it
// is while a connection of the member is there, but that it yields to a person elsewhere.

const (
	// movedAfter is how long a session that came from another node stays before
	// its connection there is closed for good: a client that has given this one
	// up meanwhile would lose both.
	movedAfter = 2 * time.Second
	// doubtFor is how long a connection stays open whose session another node holds,
	// when no word comes of it.
	doubtFor = 30 * time.Second
	// yieldFor is how long a mailbox is left to a person at another node.
	yieldFor = 5 * time.Second
)

// newcomer reports whether a session cannot have been at another node so lately that
// something it sent there may be unknown here.
func (m *mesh) newcomer(ctx context.Context, h *wire.Hello, now time.Time) (bool, error) {
	if m.b.cluster == nil || h.Role != wire.RoleSession {
		return false, nil
	}
	l, err := m.b.cluster.store.LocateKey(ctx, m.id, h.SessionPubkey)
	if errors.Is(err, ErrNotFound) {
		return true, nil
	}
	// Stored at each hello, and once a minute while it is connected.
	return l.Holder.Epoch == 0 && now.Sub(l.LastSeen) > 2*time.Minute+4*m.b.cluster.cfg.Poll, err
}

// hold asks for the mailboxes that a new connection is to serve: its own
// session's in any case, the member's own if nobody else has it. It says whether that was had.
func (c *conn) hold(ctx context.Context, m *mesh, role wire.Role, p, own *peer) (hadOwn bool, err error) {
	if m.b.cluster == nil {
		return true, nil
	}
	if role == wire.RoleObserver {
		return false, nil
	}
	person := role == wire.RolePerson
	var holds []Hold
	if role == wire.RoleSession {
		holds = append(holds, Hold{Peer: p.id, Conn: c.number, Take: true})
	}
	m.mu.Lock()
	here := own.conn != nil && !(person && own.conn.role != wire.RolePerson)
	m.mu.Unlock()
	if !here {
		holds = append(holds, Hold{Peer: own.id, Conn: c.number, Person: person})
	}
	held, err := m.b.cluster.store.Hold(ctx, holds)
	if err != nil {
		return false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, h := range held {
		q := m.byID[holds[i].Peer]
		if q == nil {
			continue // forgotten meanwhile
		}
		if !h.Had {
			m.setHolder(q, h.Before)
			continue // a person has it yielded: see tend
		}
		hadOwn = hadOwn || q == own
		if q != own || q == p {
			c.from = h.Before
		}
		if h.Since >= q.since {
			q.holder, q.row, q.since, q.lostAt = Holder{}, holds[i], h.Since, time.Time{}
		}
	}
	return hadOwn || here, nil
}

// wants returns the connection here that should serve a mailbox, or nil. mesh.mu is held.
func (m *mesh) wants(p *peer, now time.Time) *conn {
	if p.key == p.member {
		if now.Before(p.yields) {
			return nil
		}
		return m.taker(p.member)
	}
	if p.conn != nil {
		return p.conn
	}
	for c := range m.conns {
		if c.self == p && c.role == wire.RoleSession {
			return c
		}
	}
	return nil
}

// syncHolds brings what this node holds in the store in line with its connections:
// it takes what nobody has and a connection here waits for, says which
// connection it is, and lets go of what none here serves any more.
func (m *mesh) syncHolds(ctx context.Context, ids []PeerID) error {
	if m.b.cluster == nil || m.b.stopping.Load() || !m.b.cluster.holds() {
		return nil
	}
	m.holding.Lock()
	defer m.holding.Unlock()
	now := m.b.cfg.Now()
	var ask, drop []Hold
	m.mu.Lock()
	for _, id := range ids {
		p := m.byID[id]
		if p == nil || p.holder.Epoch != 0 {
			continue
		}
		c := m.wants(p, now)
		switch {
		case c != nil:
			want := Hold{Peer: id, Conn: c.number, Person: c.role == wire.RolePerson}
			if p.row != want || p.conn == nil {
				ask = append(ask, want)
			}
		case p.row != (Hold{}) && p.grace.IsZero() && !m.leased(p):
			drop = append(drop, p.row)
		}
	}
	m.mu.Unlock()
	if len(ask) > 0 {
		held, err := m.b.cluster.store.Hold(ctx, ask)
		if err != nil {
			return err
		}
		m.gotHolds(ask, held)
	}
	if len(drop) > 0 {
		if err := m.b.cluster.store.LetGo(ctx, drop); err != nil {
			return err
		}
		m.mu.Lock()
		for _, h := range drop {
			if p := m.byID[h.Peer]; p != nil && p.row == h {
				p.row = Hold{}
			}
		}
		m.mu.Unlock()
	}
	m.hintPeers(append(ask, drop...))
	return nil
}

// gotHolds attaches mailboxes that were had to the connections that want them.
func (m *mesh) gotHolds(ask []Hold, held []Held) {
	conns, now := map[*conn]bool{}, m.b.cfg.Now()
	m.mu.Lock()
	for i, h := range held {
		p := m.byID[ask[i].Peer]
		if p == nil {
			continue
		}
		if !h.Had {
			m.setHolder(p, h.Before)
			continue
		}
		if h.Since < p.since {
			continue
		}
		p.row, p.since, p.holder, p.lostAt = ask[i], h.Since, Holder{}, time.Time{}
		if c := m.wants(p, now); c != nil && p.conn == nil {
			m.attach(p, c)
			conns[c] = true
		}
	}
	m.mu.Unlock()
	m.pumpAll(conns)
}

// syncOrLater is syncHolds where nobody waits for its end.
func (m *mesh) syncOrLater(ids []PeerID) {
	if err := m.syncHolds(m.b.ctx, ids); err != nil {
		m.b.logUnlessStopping("mailboxes are not held as they should be", err)
		m.b.cluster.lookSoon()
	}
}

// hintPeers tells the other nodes of changes.
func (m *mesh) hintPeers(holds []Hold) {
	if m.b.cluster == nil || len(holds) == 0 {
		return
	}
	numbers := make([]int64, len(holds))
	for i, h := range holds {
		numbers[i] = int64(h.Peer)
	}
	m.b.cluster.hints.all(hintPeers, m.id, numbers...)
}

// leased reports whether deliveries of a mailbox are in flight. mesh.mu is held.
func (m *mesh) leased(p *peer) bool {
	for c := range m.conns {
		for _, l := range c.leases {
			if l.peer == p {
				return true
			}
		}
	}
	return false
}

// yield stops serving members' own mailboxes for which a person waits elsewhere.
func (m *mesh) yield(ids []PeerID) {
	m.mu.Lock()
	var left []PeerID
	for _, id := range ids {
		p := m.byID[id]
		if p == nil || p.key != p.member || p.row == (Hold{}) || m.person(p.member) != nil {
			continue
		}
		if p.conn != nil {
			p.serve(nil)
		}
		p.yields = m.b.cfg.Now().Add(yieldFor)
		left = append(left, id)
	}
	m.mu.Unlock()
	if len(left) > 0 {
		m.syncOrLater(left)
	}
}

// tend does what time brings to the mailboxes of a mesh in a cluster.
func (m *mesh) tend(now time.Time) {
	if m.b.cluster == nil {
		return
	}
	moved := map[string][]int64{}
	var sync []PeerID
	m.mu.Lock()
	for c := range m.conns {
		if from := c.from; from.Epoch != 0 && now.Sub(c.joined) >= movedAfter {
			c.from = Holder{}
			if c.role == wire.RoleSession {
				moved[from.Name] = append(moved[from.Name], int64(c.self.id))
			}
		}
		if p := c.self; c.role == wire.RoleSession && p.holder.Epoch != 0 && !p.lostAt.IsZero() && now.Sub(p.lostAt) >= doubtFor {
			c.closeSoon(wire.CloseReplaced)
		}
		own := m.peers[c.member]
		if h := own.remoteHolder(); c.role == wire.RolePerson && h.Epoch != 0 && !h.Person {
			m.b.cluster.hints.tell(h.Name, hintYield, m.id, int64(own.id))
		}
		for _, p := range []*peer{c.self, own} {
			if p != nil && p.conn == nil && p.holder.Epoch == 0 && c.role != wire.RoleObserver && !now.Before(p.yields) {
				sync = append(sync, p.id)
			}
		}
	}
	for _, p := range m.peers {
		if p.row != (Hold{}) && p.conn == nil {
			sync = append(sync, p.id)
		}
	}
	m.mu.Unlock()
	for node, numbers := range moved {
		slices.Sort(numbers)
		m.b.cluster.hints.tell(node, hintMoved, m.id, numbers...)
	}
	if slices.Sort(sync); len(sync) > 0 {
		sync = slices.Compact(sync)
		m.b.routines.run(func() { m.syncOrLater(sync) })
	}
}
