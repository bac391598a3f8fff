package broker

import (
	"slices"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// mailbox is how the deliveries of one peer come to the connection that takes
// them. What is not in flight waits in memory while there is little of it, and
// else in the store, to be read page by page. mesh.mu guards it.
type mailbox struct {
	conn    *conn // takes the pushes; nil when nobody does
	phase   phase
	again   bool       // something was stored while a page was read
	waiting []Delivery // for room in the window: by priority, then by number
	bytes   int64      // the size of what is waiting
	taken   Place      // what stands up to it, and is queued, is in memory

	settling map[int64]bool // what was answered, and is not on disk as such yet

	turn    int     // counts the connections that took it
	pending int     // accepted and not on disk yet: no page shows them
	ended   []int64 // deliveries that were settled meanwhile: the page may still have them
}

// phase says where the deliveries are that are neither in flight nor waiting.
type phase int

const (
	behind  phase = iota // in the store, and arrivals stay there
	reading              // likewise, and a page is being read
	live                 // there are none: arrivals are pushed, or wait, at once
)

// The most that waits in memory for one mailbox, and the size of a page.
const (
	maxWaiting      = 128
	maxWaitingBytes = 64 << 10
)

// roomy reports whether one more may wait.
func (b *mailbox) roomy() bool { return len(b.waiting) < maxWaiting && b.bytes < maxWaitingBytes }

// wait takes a delivery into memory.
func (b *mailbox) wait(d Delivery) {
	i := len(b.waiting)
	for i > 0 && b.waiting[i-1].after(&d) {
		i--
	}
	b.waiting = slices.Insert(b.waiting, i, d)
	b.bytes += d.Size()
}

// after reports whether d is delivered after e.
func (d *Delivery) after(e *Delivery) bool {
	rank, other := d.Priority.Rank(), e.Priority.Rank()
	return rank > other || rank == other && d.Number > e.Number
}

// complete notes that nothing that is queued up to a delivery is unknown.
func (b *mailbox) complete(d *Delivery) { b.taken[d.Priority.Rank()] = d.Number }

// waits returns where a delivery waits, or -1.
func (b *mailbox) waits(delivery int64) int {
	return slices.IndexFunc(b.waiting, func(d Delivery) bool { return d.Number == delivery })
}

// settles notes that a delivery was answered.
func (b *mailbox) settles(delivery int64) {
	if b.settling == nil {
		b.settling = map[int64]bool{}
	}
	b.settling[delivery] = true
}

// ends notes that a delivery has its outcome, or was never stored.
func (b *mailbox) ends(delivery int64) {
	delete(b.settling, delivery)
	if b.phase == reading {
		b.ended = append(b.ended, delivery)
	}
	if i := b.waits(delivery); i >= 0 {
		b.bytes -= b.waiting[i].Size()
		b.waiting = slices.Delete(b.waiting, i, i+1)
	}
}

// rewind forgets what is in memory: the mailbox is read from its start, but for
// what is in flight.
func (b *mailbox) rewind() {
	b.waiting, b.bytes, b.taken = nil, 0, Place{}
	b.fallBehind()
}

// fallBehind has the store read for what is not in memory.
func (b *mailbox) fallBehind() {
	if b.phase == reading {
		b.again = true
	} else {
		b.phase = behind
	}
}

// serve makes c, or nobody, the taker of the pushes.
func (b *mailbox) serve(c *conn) {
	b.rewind()
	b.conn, b.phase = c, behind
	b.turn++
}

// arrived takes a message that was just given to the store to those of its
// recipients that are live. A repeat stays with the store, which alone knows
// whether it is one. mesh.mu is held.
func (m *mesh) arrived(msg *Message, first int64, repeat bool) {
	for i, d := range msg.Deliveries {
		p := m.byID[d.Recipient]
		if p == nil {
			continue
		}
		p.pending++
		if p.phase != live {
			continue
		}
		if repeat || !p.roomy() {
			p.phase = behind
			continue
		}
		if first == 0 {
			continue // its number, and with it its turn, comes with the commit
		}
		d := msg.Delivery(i, first)
		p.wait(d)
		p.complete(&d)
		m.deliver(p)
	}
}

// committed pushes what arrived without a number, and has the recipients whose
// delivery did not come into memory read the store, now that it is on disk, or
// never will be. first is the number that arrived had, once mesh.mu is held. The
// store's writer calls it, in commit order.
func (m *mesh) committed(c *conn, msg *Message, first *int64, a Accepted, stored bool) {
	conns, rank := map[*conn]bool{}, msg.Priority.Rank()
	m.mu.Lock()
	for i, d := range msg.Deliveries {
		p := m.byID[d.Recipient]
		if p == nil {
			continue
		}
		p.pending--
		if !stored && *first != 0 {
			p.ends(*first + int64(i))
		}
		number := a.First + int64(i)
		if stored && p.conn == nil && m.b.cluster != nil {
			p.strays = m.b.cfg.Now().UnixMilli()
		}
		switch {
		case a.Duplicate && m.b.cluster != nil: // another node may have stored it, and its hint be on its way
			p.rewind()
		case p.conn == nil && stored && p.holder.Epoch != 0:
			m.b.cluster.hints.tell(p.holder.Name, hintQueue, m.id, int64(p.id), int64(rank), number)
			continue
		case !m.inOrder(c, msg.Sender, p, stored):
			p.fallBehind()
		case stored && *first == 0 && p.phase == live && p.roomy() && number > p.taken[rank]:
			d := msg.Delivery(i, a.First)
			p.wait(d)
			if m.b.cluster.alone() { // else another node's may stand before it
				p.complete(&d)
			}
			m.deliver(p)
			continue
		case p.phase != live || stored && number > p.taken[rank]:
			p.fallBehind()
		default:
			continue
		}
		if p.conn != nil {
			conns[p.conn] = true
		}
	}
	m.mu.Unlock()
	m.pumpAll(conns)
}

// inOrder reports whether nothing from that sender to p can wait in the store
// unknown here: after a session has come from another node, the first message by it to a recipient is read there, with what came before it. mesh.mu is held.
func (m *mesh) inOrder(c *conn, sender PeerID, p *peer, stored bool) bool {
	if !stored || m.b.cluster.alone() || c.settled && sender == c.self.id {
		return true
	}
	pair := [2]PeerID{sender, p.id}
	known := c.synced[pair]
	if c.synced == nil {
		c.synced = map[[2]PeerID]bool{}
	}
	c.synced[pair] = true
	return known
}

// deliver pushes what waits while there is room for it. mesh.mu is held.
func (m *mesh) deliver(p *peer) {
	n := 0
	for _, d := range p.waiting {
		sender := m.byID[d.Sender]
		if sender == nil { // forgotten meanwhile: the page that is read next deals with it
			p.rewind()
			return
		}
		if !m.push(p, d, sender) {
			break
		}
		p.bytes -= d.Size()
		n++
	}
	p.waiting = slices.Delete(p.waiting, 0, n)
}

// requeue has a delivery that was leased read and pushed again, and returns the
// connection to pump for that, if any. mesh.mu is held.
func (l *lease) requeue() *conn {
	l.release()
	l.peer.rewind()
	return l.peer.conn
}

// pump pushes what waits for c, and starts reading pages for its mailboxes that
// are behind. It may be called at any time under no lock.
func (m *mesh) pump(c *conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.closed.Load() {
		return
	}
	for _, p := range c.serves {
		if p.conn != c {
			continue
		}
		m.deliver(p)
		if p.phase == behind && p.low() && c.out.Roomy() && !m.elsewhere(p) {
			p.phase, p.again = reading, false
			turn := p.turn
			m.b.routines.run(func() { m.fill(p, turn) })
		}
	}
}

// elsewhere reports whether a member's own mailbox has deliveries in flight at a
// connection that took its pushes before: nothing may overtake them. Their answers,
// or their return to the queue, pump the connection that takes them now.
func (m *mesh) elsewhere(p *peer) bool {
	if p.key != p.member {
		return false
	}
	for c := range m.conns {
		if c == p.conn || c.member != p.member {
			continue
		}
		for _, l := range c.leases {
			if l.peer == p {
				return true
			}
		}
	}
	return false
}

// low reports whether so little waits that a page is worth reading.
func (b *mailbox) low() bool { return len(b.waiting) <= maxWaiting/4 && b.bytes <= maxWaitingBytes/4 }

// fill reads pages of p's queue, for the connection that took it at that turn,
// until all of it, or enough of it, is in memory.
func (m *mesh) fill(p *peer, turn int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for p.turn == turn {
		after := p.taken
		p.again, p.ended = false, nil
		m.mu.Unlock()
		page, more, err := m.b.store.Queued(m.b.ctx, p.id, after, maxWaiting, maxWaitingBytes)
		m.mu.Lock()
		if err == nil {
			err = m.meet(page)
		}
		switch {
		case p.turn != turn: // another connection took the mailbox, and reads it from its start
			return
		case err != nil:
			p.phase = behind
			m.b.logUnlessStopping("queue does not read", err)
			return
		case p.taken != after: // it was rewound meanwhile
			continue
		}
		orphans := m.take(p, page)
		m.deliver(p)
		if len(orphans) > 0 {
			m.mu.Unlock()
			m.dropOrphans(p, orphans)
			m.mu.Lock()
		}
		if p.turn == turn && !((more || p.again) && p.low()) {
			p.phase = behind
			if !more && !p.again && p.pending == 0 {
				p.phase = live
			}
			return
		}
	}
}

// take brings a page into memory, but for what is in flight or has ended, and
// returns what nobody could verify: its sender is gone. mesh.mu is held.
func (m *mesh) take(p *peer, page []Delivery) (orphans []Delivery) {
	for _, d := range page {
		p.complete(&d)
		switch {
		case slices.Contains(p.ended, d.Number) || m.inHand(p, d.Number) || p.waits(d.Number) >= 0:
		case m.byID[d.Sender] == nil:
			orphans = append(orphans, d)
		default:
			p.wait(d)
		}
	}
	return orphans
}

// inHand reports whether a delivery is in flight, or was answered. mesh.mu is held.
func (m *mesh) inHand(p *peer, delivery int64) bool {
	return p.settling[delivery] || m.leaseOf(p, delivery) != nil
}

// dropOrphans bounces deliveries whose sender was forgotten with its member: no
// recipient could verify them.
func (m *mesh) dropOrphans(p *peer, orphans []Delivery) {
	rows := make([]Settlement, len(orphans))
	for i, d := range orphans {
		rows[i] = d.Settlement(m.id, p.id)
		rows[i].State, rows[i].Code, rows[i].At = wire.StateBounced, wire.CodeRemoved, m.b.cfg.Now()
	}
	wait := make(chan struct{})
	m.b.store.Settle(rows, func(done []bool, _ error) {
		m.mu.Lock()
		for i, ok := range done {
			if ok {
				m.account(p, orphans[i].Sender, -1, -rows[i].Size)
			}
		}
		m.mu.Unlock()
		close(wait)
	})
	<-wait
}
