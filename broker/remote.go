package broker

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// remote is what a mesh knows of its peers at other nodes. It is nothing that
// anything is decided by but where to send hints and who counts as online: who
// holds a mailbox, who is a member and what waits is decided in the store.
//
// mesh.mu guards it.
type remote struct {
	holder Holder    // of another node; zero: this one, or nobody
	row    Hold      // this node's own, as far as it knows; zero: none
	since  int64     // of the holder, or the row: what is older is not believed
	lostAt time.Time // when another node was found to have taken it from a connection here
	yields time.Time // until when it is left to a person at another node
	strays int64     // Unix ms of the last message that was stored here and is not pushed here
}

// straysFor is how long a node may take to hear who holds a mailbox: beyond it, what
// strayed was found by whoever took the mailbox.
const straysFor = 10 * time.Second

// remoteHolder is the other node that holds a peer's mailbox; zero without one, or a peer.
func (p *peer) remoteHolder() Holder {
	if p == nil {
		return Holder{}
	}
	return p.holder
}

// hintedQueue has the mailboxes that a hint names read the store: numbers are
// triples of peer, rank and delivery.
func (m *mesh) hintedQueue(numbers []int64) {
	conns := map[*conn]bool{}
	m.mu.Lock()
	for ; len(numbers) >= 3; numbers = numbers[3:] {
		p, rank := m.byID[PeerID(numbers[0])], numbers[1]
		if p == nil || p.conn == nil || rank < 0 || rank >= int64(len(p.taken)) {
			continue
		}
		switch number := numbers[2]; {
		case number > p.taken[rank]:
			p.fallBehind()
		case m.inHand(p, number) || p.waits(number) >= 0:
			continue
		default:
			p.rewind()
		}
		conns[p.conn] = true
	}
	m.mu.Unlock()
	m.pumpAll(conns)
}

func (m *mesh) pumpAll(conns map[*conn]bool) {
	for c := range conns {
		m.pump(c)
	}
}

// follow looks into the store for what a hint speaks of.
func (m *mesh) follow(ctx context.Context, kind hintKind, numbers []int64) error {
	ids := make([]PeerID, len(numbers))
	for i, n := range numbers {
		ids[i] = PeerID(n)
	}
	switch kind {
	case hintMembers:
		return m.refresh(ctx)
	case hintPeers:
		return m.learn(ctx, ids)
	case hintOutcome:
		outs, err := m.b.cluster.store.Outcomes(ctx, numbers)
		for _, o := range outs {
			m.notify(o)
		}
		return err
	case hintKick:
		return m.followKick(ctx, ids)
	case hintYield:
		m.yield(ids)
	case hintMoved:
		if err := m.learn(ctx, ids); err != nil {
			return err
		}
		m.closeMoved(ids)
	}
	return nil
}

// refresh brings the members up to what is stored.
func (m *mesh) refresh(ctx context.Context) error {
	m.refreshing.Lock()
	defer m.refreshing.Unlock()
	m.mu.Lock()
	since := m.version
	m.mu.Unlock()
	ch, err := m.b.store.Changes(ctx, m.id, since, wire.Key{})
	if err != nil || ch.Version <= since {
		return err
	}
	blocks, err := m.loadBlocks(ctx)
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.apply(ch)
	m.blocks = blocks
	m.version, m.generation = max(m.version, ch.Version), max(m.generation, ch.Gen)
	m.mu.Unlock()
	m.broadcast(&wire.MembersChanged{Version: ch.Version})
	m.dropOutcasts(nil)
	return nil
}

// standing is the roster's Standing, after another look at the store when a
// member may have come at another node.
func (m *mesh) standing(ctx context.Context, member wire.Key) error {
	m.mu.Lock()
	err := m.roster.Standing(member)
	m.mu.Unlock()
	if m.b.cluster == nil || !wire.Faultf(wire.CodeUnknownMember, "").Is(err) {
		return err
	}
	if err := m.refresh(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.roster.Standing(member)
}

// learn reads peers and who holds them.
func (m *mesh) learn(ctx context.Context, ids []PeerID) error {
	found, err := m.b.cluster.store.Locate(ctx, m.id, ids)
	if err != nil {
		return err
	}
	stranger := false
	m.mu.Lock()
	for _, l := range found {
		_, known := m.roster.Known(l.Member)
		stranger = stranger || !known
		m.located(l)
	}
	m.mu.Unlock()
	if stranger {
		if err := m.refresh(ctx); err != nil {
			return err
		}
	}
	return m.syncHolds(ctx, ids)
}

// locate returns the peer of a key that came at another node, or nil.
func (m *mesh) locate(ctx context.Context, key wire.Key) (*peer, error) {
	if m.b.cluster == nil {
		return nil, nil
	}
	l, err := m.b.cluster.store.LocateKey(ctx, m.id, key)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.located(l), nil
}

// located brings what the store says of a peer into memory, and tells watchers.
// mesh.mu is held.
func (m *mesh) located(l Located) *peer {
	p := m.peers[l.Key]
	if l.Forgotten {
		if p != nil && p.conn == nil {
			m.setHolder(p, Holder{})
			delete(m.byID, p.id)
			delete(m.peers, p.key)
		}
		return nil
	}
	if p == nil {
		p = m.addPeer(l.Peer)
	}
	changed := false
	if l.Attestation != nil {
		p.attestation = l.Attestation
	}
	if l.Card != nil && (p.card == nil || l.Card.Seq > p.card.Seq) {
		p.card, changed = l.Card, true
	}
	if l.LastSeen.After(p.lastSeen) {
		p.lastSeen = l.LastSeen
	}
	before := m.describe(p, m.b.cfg.Now()).Online
	m.setHolder(p, l.Holder)
	if changed && before && m.describe(p, m.b.cfg.Now()).Online {
		m.tell(p, wire.PresenceChanged, p.conn)
	}
	return p
}

// setHolder notes who holds a peer's mailbox, by the store's word. mesh.mu is held.
func (m *mesh) setHolder(p *peer, h Holder) {
	me := m.b.cluster.me()
	if h.Epoch != 0 && h.Since < p.since {
		return // it was taken again since
	}
	now := m.b.cfg.Now()
	before := m.describe(p, now).Online
	switch {
	case h.Node == me && h.Epoch != 0:
		p.row, p.since = Hold{Peer: p.id, Conn: h.Conn, Person: h.Person}, h.Since
		p.holder = Holder{}
	case h.Epoch == 0: // or it has come to this node since: the row stays
		p.holder = Holder{}
	default:
		served := p.conn != nil
		if served {
			p.serve(nil)
			p.lostAt = now
		}
		// It pushes there now, also what came here meanwhile: of that, nobody has told it.
		if served || h.Since != p.holder.Since && now.UnixMilli()-p.strays < straysFor.Milliseconds() {
			m.b.cluster.hints.tell(h.Name, hintQueue, m.id, int64(p.id), 0, 0)
		}
		p.row, p.holder, p.since = Hold{}, h, h.Since
		p.grace = time.Time{}
	}
	switch after := m.describe(p, now).Online; {
	case after && !before:
		m.tell(p, wire.PresenceJoined, p.conn)
	case before && !after:
		m.tell(p, wire.PresenceLeft, nil)
	}
}

// nodeGone: what a node held is nobody's. Its lease was the grace of its sessions.
func (m *mesh) nodeGone(epoch int64) {
	var ids []PeerID
	m.mu.Lock()
	for _, p := range m.peers {
		if p.holder.Epoch != epoch {
			continue
		}
		m.setHolder(p, Holder{})
		ids = append(ids, p.id)
	}
	m.mu.Unlock()
	if len(ids) > 0 {
		m.b.routines.run(func() { m.syncOrLater(ids) })
	}
}

// closeMoved closes the connections here of sessions that have connected elsewhere.
func (m *mesh) closeMoved(ids []PeerID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for c := range m.conns {
		if c.role == wire.RoleSession && slices.Contains(ids, c.self.id) && c.self.holder.Epoch != 0 {
			c.closeSoon(wire.CloseReplaced)
		}
	}
}

// whereabouts returns the node to tell of an outcome when no connection of the
// sender is here: the session's own, or one with its member's. mesh.mu is held.
func (m *mesh) whereabouts(sender *peer) string {
	if sender == nil {
		return ""
	}
	if sender.holder.Epoch != 0 {
		return sender.holder.Name
	}
	if own := m.peers[sender.member]; own != nil {
		return own.holder.Name
	}
	return ""
}

// meet brings the senders of a page into memory that came at other nodes. mesh.mu
// is held, but not all the time.
func (m *mesh) meet(page []Delivery) error {
	var unknown []PeerID
	for _, d := range page {
		if m.byID[d.Sender] == nil {
			unknown = append(unknown, d.Sender)
		}
	}
	if m.b.cluster == nil || len(unknown) == 0 {
		return nil
	}
	m.mu.Unlock()
	defer m.mu.Lock()
	return m.learn(m.b.ctx, unknown)
}
