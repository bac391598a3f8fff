package broker

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// mesh is one mesh in memory: its verified roster, its peers and who is
// connected. The store is the truth; this is what routing looks at.
type mesh struct {
	b  *Broker
	id wire.ID

	loading    sync.Mutex // held while load runs
	loaded     atomic.Bool
	refreshing sync.Mutex // held while refresh runs
	holding    sync.Mutex // held while syncHolds runs

	mu         sync.Mutex // guards the following
	roster     *trust.Roster
	version    int64
	generation uint64
	queued     int64
	bytes      int64
	peers      map[wire.Key]*peer
	byID       map[PeerID]*peer
	conns      map[*conn]struct{}
	paces      map[wire.Key]*pace
	roles      map[wire.Key][]wire.Signed // every role statement of a member
	blocks     map[Block]struct{}
	leaving    map[wire.Key]int // members whose removals are on their way to the disk
	unsettled  []*lease         // answered, and not yet on disk: it has no room
}

// peer is one key that messages are addressed to.
// mesh.mu guards it.
type peer struct {
	id          PeerID
	key, member wire.Key
	attestation *wire.Attestation
	card        *wire.Card
	lastSeen    time.Time
	dirty       bool      // lastSeen is newer than the store's
	grace       time.Time // until when a dropped session counts as online

	mailbox
	remote
	recent  *recentIDs // of what it sent; nil before the first
	putOffs map[lane]*putOff

	usage   *usage    // nil until first needed
	counted time.Time // when usage was read from the store
}

// recentIDs remembers the last messages of a sender, as many as a client has in
// flight: a repeat is not pushed ahead of its commit, which will know it.
type recentIDs struct {
	ids  [64]wire.ID
	next int
}

// add notes an id and reports whether it was there.
func (r *recentIDs) add(id wire.ID) bool {
	if slices.Contains(r.ids[:], id) {
		return true
	}
	r.ids[r.next] = id
	r.next = (r.next + 1) % len(r.ids)
	return false
}

// usage is what is queued for one recipient.
type usage struct {
	count, bytes int64
	senders      map[PeerID]*Usage
}

func (u *usage) add(sender PeerID, n, bytes int64) {
	u.count += n
	u.bytes += bytes
	s := u.senders[sender]
	if s == nil {
		s = &Usage{Sender: sender}
		u.senders[sender] = s
	}
	s.Count += n
	s.Bytes += bytes
	if s.Count <= 0 {
		delete(u.senders, sender)
	}
}

func (m *mesh) addPeer(p Peer) *peer {
	q := &peer{id: p.ID, key: p.Key, member: p.Member, attestation: p.Attestation, card: p.Card, lastSeen: p.LastSeen}
	m.peers[p.Key], m.byID[p.ID] = q, q
	return q
}

// peerFor returns the peer of a key that may be addressed: a session that was
// seen, or a current member's own key, whose mailbox is made when first needed.
func (m *mesh) peerFor(ctx context.Context, k wire.Key) (*peer, error) {
	m.mu.Lock()
	p := m.peers[k]
	m.mu.Unlock()
	if p == nil {
		found, err := m.locate(ctx, k)
		if err != nil {
			return nil, err
		}
		p = found
	}
	member := k
	if p != nil {
		member = p.member
	}
	err := m.standing(ctx, member)
	switch {
	case err != nil && (p != nil || wire.Faultf(wire.CodeRemoved, "").Is(err)):
		return nil, err
	case err != nil:
		return nil, wire.Faultf(wire.CodeUnknownRecipient, "")
	case p != nil:
		return p, nil
	}
	return m.putPeer(ctx, Peer{Mesh: m.id, Key: k, Member: k})
}

// putPeer stores a peer and brings it into memory. A known one about which p
// says nothing new is not written.
func (m *mesh) putPeer(ctx context.Context, p Peer) (*peer, error) {
	m.mu.Lock()
	known := m.peers[p.Key]
	m.mu.Unlock()
	if known != nil && known.member == p.Member && p.Card == nil && p.LastSeen.IsZero() {
		return known, nil
	}
	if p.Card != nil && len(p.Card.Blob) > maxCard {
		return nil, wire.Faultf(wire.CodeTooLarge, "card")
	}
	m.mu.Lock()
	if known != nil && known.card != nil && p.Card != nil && p.Card.Seq < known.card.Seq {
		p.Card = nil // an older one does not replace it on disk either
	}
	m.mu.Unlock()
	id, err := m.b.store.PutPeer(ctx, p)
	if errors.Is(err, ErrStorageFull) && known != nil && known.member == p.Member {
		err = nil // one that is known still gets what waits for it; it shows its card again when it connects again
	}
	if errors.Is(err, ErrStaleMembers) { // the member was removed at another node
		if err = m.refresh(ctx); err == nil {
			err = m.standing(ctx, p.Member)
		}
		if err == nil {
			err = ErrStaleMembers
		}
	}
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	q := m.peers[p.Key]
	if q == nil {
		p.ID = id
		return m.addPeer(p), nil
	}
	if p.Attestation != nil {
		q.attestation = p.Attestation
	}
	if p.Card != nil && (q.card == nil || p.Card.Seq >= q.card.Seq) {
		q.card = p.Card
	}
	if p.LastSeen.After(q.lastSeen) {
		q.lastSeen = p.LastSeen
	}
	return q, nil
}

// recount is how long what a node has counted of a queue serves it, when others
// write to it too.
const recount = 5 * time.Second

// loadUsage reads what is queued for a peer before quotas are applied to it.
func (m *mesh) loadUsage(ctx context.Context, p *peer) error {
	now := m.b.cfg.Now()
	m.mu.Lock()
	have := p.usage != nil && (m.b.cluster == nil || now.Sub(p.counted) < recount)
	m.mu.Unlock()
	if have {
		return nil
	}
	rows, err := m.b.store.Usage(ctx, p.id)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.usage == nil || m.b.cluster != nil {
		p.usage, p.counted = &usage{senders: map[PeerID]*Usage{}}, now
		for _, r := range rows {
			p.usage.add(r.Sender, r.Count, r.Bytes)
		}
	}
	return nil
}

// account adds to (or, negative, takes from) what is queued for a peer.
// mesh.mu is held.
func (m *mesh) account(p *peer, sender PeerID, n, bytes int64) {
	m.queued += n
	m.bytes += bytes
	if p != nil && p.usage != nil {
		p.usage.add(sender, n, bytes)
	}
}

// pace returns a member's limiter. mesh.mu is held.
func (m *mesh) pace(member wire.Key) *pace {
	p := m.paces[member]
	if p == nil {
		p = newPace(m.b.cfg.Limits)
		m.paces[member] = p
	}
	return p
}

// attach makes c the taker of p's mailbox. mesh.mu is held.
func (m *mesh) attach(p *peer, c *conn) {
	p.serve(c)
	c.serves = append(c.serves, p)
}

// detach takes c's mailboxes away from it, and gives the member's own to
// another of its connections. What c had in flight is queued again, also of a
// mailbox that had moved on before. mesh.mu is held; the caller pumps what moved.
func (m *mesh) detach(c *conn) (moved []*conn) {
	for _, p := range c.serves {
		if p.conn != c {
			continue
		}
		p.serve(nil)
		if p.key != p.member {
			continue
		}
		if next := m.wants(p, m.b.cfg.Now()); next != nil {
			m.attach(p, next)
			moved = append(moved, next)
		}
	}
	c.serves = nil
	for _, l := range c.leases {
		if next := l.requeue(); next != nil {
			moved = append(moved, next)
		}
	}
	return moved
}

// taker picks the connection for a member's own mailbox: a waiting person
// first, else a session. mesh.mu is held.
func (m *mesh) taker(member wire.Key) *conn {
	var session *conn
	for c := range m.conns {
		if c.member != member {
			continue
		}
		if c.role == wire.RolePerson {
			return c
		}
		if c.role == wire.RoleSession {
			session = c
		}
	}
	return session
}

// online reports whether a push to p would go out now, here or at another node, or
// its session has only just dropped. mesh.mu is held.
func (m *mesh) online(p *peer, now time.Time) bool {
	return p.conn != nil || p.holder.Epoch != 0 || now.Before(p.grace)
}

// connsOf returns the connections of a member. mesh.mu is held.
func (m *mesh) connsOf(member wire.Key) []*conn {
	var out []*conn
	for c := range m.conns {
		if c.member == member {
			out = append(out, c)
		}
	}
	return out
}

// notify tells the sender of a delivery what became of it, if it is connected:
// by its own connection, else by any of its member's, whose mailbox it shares.
func (m *mesh) notify(o Outcome) {
	m.mu.Lock()
	sender, recipient := m.byID[o.Sender], m.byID[o.Recipient]
	var to []*conn
	key := o.RecipientKey
	if recipient != nil {
		key = recipient.key
	}
	if sender != nil {
		switch {
		case sender.key != sender.member && sender.conn != nil:
			to = []*conn{sender.conn}
		case sender.key != sender.member && sender.holder.Epoch != 0: // at another node
		default:
			to = m.connsOf(sender.member)
		}
	}
	if len(to) == 0 && m.b.cluster != nil && o.Delivery != 0 {
		if node := m.whereabouts(sender); node != "" {
			m.b.cluster.hints.tell(node, hintOutcome, m.id, o.Delivery)
		}
	}
	m.mu.Unlock()
	if key.IsZero() {
		return
	}
	for _, c := range to {
		c.send(&wire.Receipt{ID: o.ID, Recipient: key, State: o.State, Code: o.Code, At: o.At.UnixMilli()})
	}
}

// bounced accounts for deliveries that the store has bounced, tells their
// senders, and drops their leases.
func (m *mesh) bounced(outs []Outcome) {
	freed := map[*conn]bool{}
	m.mu.Lock()
	for _, o := range outs {
		p := m.byID[o.Recipient]
		m.account(p, o.Sender, -1, -o.Size)
		if p == nil {
			continue
		}
		p.ends(o.Delivery)
		if l := m.leaseOf(p, o.Delivery); l != nil {
			l.release()
			freed[l.conn] = true
			if p.conn != nil {
				freed[p.conn] = true
			}
		}
	}
	m.mu.Unlock()
	m.pumpAll(freed)
	for _, o := range outs {
		m.b.metrics.bounced(o.Code, 1)
		m.notify(o)
	}
}

// isMemberKey reports whether a key is a member's, current or not, or the
// owner's: no session may have it. mesh.mu is held.
func (m *mesh) isMemberKey(k wire.Key) bool {
	_, known := m.roster.Known(k)
	return known || k == m.roster.Genesis.Owner
}

// broadcast sends one frame to every connection but those in except.
func (m *mesh) broadcast(f wire.Frame, except ...*conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for c := range m.conns {
		if !slices.Contains(except, c) {
			c.send(f)
		}
	}
}
