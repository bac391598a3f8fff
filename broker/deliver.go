package broker

import (
	"context"
	"slices"
	"time"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// arrived pushes a message that was just given to the store to each recipient
// that takes pushes live, and notes that it is on its way to disk for the others.
// first is zero when nothing may be pushed before the commit. mesh.mu is held.
func (m *mesh) arrived(msg *Message, sender *peer, first int64) (pushed []bool) {
	pushed = make([]bool, len(msg.Deliveries))
	for i, d := range msg.Deliveries {
		p := m.byID[d.Recipient]
		if p == nil {
			continue
		}
		if first > 0 && p.conn != nil && p.phase == live {
			if pushed[i] = m.push(p, msg.delivery(i, first), sender); !pushed[i] {
				p.phase = behind
			}
		}
		if !pushed[i] {
			p.uncommitted++
			if p.phase == live {
				p.phase = behind
			}
		}
	}
	return pushed
}

// delivery is the i-th delivery of a message whose first has that number.
func (msg *Message) delivery(i int, first int64) Delivery {
	return Delivery{
		Number: first + int64(i), Sender: msg.Sender, ID: msg.ID, Mode: msg.Mode, Priority: msg.Priority,
		Created: msg.Created, Expires: msg.Expires, Nonce: msg.Nonce, Ciphertext: msg.Ciphertext, Wrap: msg.Deliveries[i].Wrap,
	}
}

// committed has the recipients that arrived did not push to read their queue,
// now that the message is on disk, or never will be. The store's writer calls
// it, in commit order.
func (m *mesh) committed(msg *Message, pushed *[]bool) {
	conns := map[*conn]bool{}
	m.mu.Lock()
	for i, d := range msg.Deliveries {
		p := m.byID[d.Recipient]
		if p == nil || (*pushed)[i] {
			continue
		}
		p.uncommitted--
		if p.phase == reading {
			p.again = true
		} else if p.conn != nil {
			conns[p.conn] = true
		}
	}
	m.mu.Unlock()
	for c := range conns {
		m.pump(c)
	}
}

// push leases one delivery to p's connection and queues its frame. It reports
// false when the connection's window is closed. mesh.mu is held.
func (m *mesh) push(p *peer, d Delivery, sender *peer) bool {
	c, l := p.conn, m.b.cfg.Limits
	if m.leaseOf(p, d.Number) != nil {
		return true // a page and an arrival met, or the mailbox's last taker has it
	}
	size := int64(len(d.Nonce) + len(d.Ciphertext) + len(d.Wrap))
	if c.inFlight >= l.Window || len(c.leases) >= l.Window+maxSettling || !c.out.Roomy() ||
		(c.inFlight > 0 && c.inBytes+int(size) > l.WindowBytes) {
		return false
	}
	c.leases[d.Number] = &lease{
		conn: c, peer: p, delivery: d.Number, sender: d.Sender, id: d.ID, size: size,
		deadline: m.b.cfg.Now().Add(l.Lease),
	}
	c.inFlight++
	c.inBytes += int(size)
	c.send(&wire.Push{
		Delivery: d.Number, ID: d.ID, Mode: d.Mode, To: p.key, SenderPubkey: sender.key, SenderMember: sender.member,
		Priority: d.Priority, Expires: d.Expires.UnixMilli(), Nonce: d.Nonce, Ciphertext: d.Ciphertext, Wrap: d.Wrap,
		CreatedAt: d.Created.UnixMilli(), MembersVersion: m.version,
	})
	m.b.metrics.pushed.Inc()
	return true
}

// leaseOf returns the lease of a delivery to p. A member's own mailbox may have
// leases at a connection that took its pushes before. mesh.mu is held.
func (m *mesh) leaseOf(p *peer, delivery int64) *lease {
	if p.conn != nil {
		if l := p.conn.leases[delivery]; l != nil {
			return l
		}
	}
	if p.key == p.member {
		for c := range m.conns {
			if l := c.leases[delivery]; l != nil {
				return l
			}
		}
	}
	return nil
}

// maxSettling bounds the deliveries of a connection whose answers are on their
// way to the disk: they stay leased, or a page read before the commit would push
// them again, but leave the window.
const maxSettling = 1024

// answer takes a lease out of its connection's window until its outcome is on
// disk; unanswer puts it back when that fails. mesh.mu is held.
func (l *lease) answer() {
	l.settling = true
	l.conn.inFlight--
	l.conn.inBytes -= int(l.size)
}

func (l *lease) unanswer() {
	if l.conn.leases[l.delivery] == l {
		l.settling = false
		l.conn.inFlight++
		l.conn.inBytes += int(l.size)
	}
}

// release ends a lease. mesh.mu is held.
func (l *lease) release() {
	if c := l.conn; c.leases[l.delivery] == l {
		if !l.settling {
			l.answer()
		}
		delete(c.leases, l.delivery)
	}
}

// dropLeases ends all leases of a connection that is gone. mesh.mu is held.
func (c *conn) dropLeases() {
	clear(c.leases)
	c.inFlight, c.inBytes = 0, 0
}

// requeue has a delivery that was leased read and pushed again, and returns the
// connection to pump for that, if any. mesh.mu is held.
func (l *lease) requeue() *conn {
	l.release()
	if l.peer.conn != nil && l.peer.phase == live {
		l.peer.phase = behind
	} else {
		l.peer.again = true
	}
	return l.peer.conn
}

// pump starts reading pages for c's mailboxes that are behind, as far as its
// window is open. It may be called at any time under no lock.
func (m *mesh) pump(c *conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.b.cfg.Limits
	if c.closed.Load() || c.inFlight > l.Window/2 || c.inBytes > l.WindowBytes/2 || !c.out.Roomy() {
		return // half a window at a time makes pages worth reading
	}
	for _, p := range c.serves {
		if p.conn == c && p.phase == behind {
			p.phase, p.again = reading, false
			m.b.wg.Go(func() { m.fill(p, c) })
		}
	}
}

// fill reads pages of p's queue and pushes them until the queue is empty or
// the window is closed.
func (m *mesh) fill(p *peer, c *conn) {
	for {
		m.mu.Lock()
		limit := m.b.cfg.Limits.Window + len(c.leases) + 1
		p.ended = nil
		m.mu.Unlock()
		rows, err := m.b.store.Queued(m.b.ctx, p.id, limit)
		m.mu.Lock()
		if p.conn != c { // another connection took the mailbox meanwhile
			m.mu.Unlock()
			return
		}
		if err != nil {
			p.phase = behind
			m.mu.Unlock()
			if m.b.ctx.Err() == nil {
				m.b.log.Error("queue does not read", "error", err)
			}
			return
		}
		open, orphans := true, []Delivery(nil)
		for _, d := range rows {
			sender := m.byID[d.Sender]
			if slices.Contains(p.ended, d.Number) {
				continue
			}
			if sender == nil {
				orphans = append(orphans, d)
			} else if open = m.push(p, d, sender); !open {
				break
			}
		}
		if len(orphans) > 0 {
			p.again = true
			m.mu.Unlock()
			m.dropOrphans(p, orphans)
			m.mu.Lock()
		}
		switch {
		case !open:
			p.phase = behind
		case len(rows) < limit && !p.again && p.uncommitted > 0:
			p.phase = behind // their commit pumps
		case len(rows) < limit && !p.again:
			p.phase = live
		default:
			p.again = false
			m.mu.Unlock()
			continue
		}
		m.mu.Unlock()
		return
	}
}

// dropOrphans bounces deliveries whose sender was forgotten with its member: no
// recipient could verify them.
func (m *mesh) dropOrphans(p *peer, orphans []Delivery) {
	rows := make([]Settlement, len(orphans))
	for i, d := range orphans {
		rows[i] = Settlement{Delivery: d.Number, Recipient: p.id, State: wire.StateBounced, Code: wire.CodeRemoved, At: m.b.cfg.Now()}
	}
	wait := make(chan struct{})
	m.b.store.Settle(rows, func(done []bool, _ error) {
		m.mu.Lock()
		for i, ok := range done {
			if ok {
				d := orphans[i]
				m.account(p, d.Sender, -1, -int64(len(d.Nonce)+len(d.Ciphertext)+len(d.Wrap)))
			}
		}
		m.mu.Unlock()
		close(wait)
	})
	<-wait
}

// clientAck settles deliveries that are on the recipient's disk. One that is
// not leased to this connection was settled before, or will be pushed again
// and acknowledged then: it is answered alike.
func (c *conn) clientAck(_ context.Context, f *wire.ClientAck) error {
	if len(f.Deliveries) > wire.MaxAcks {
		return wire.Faultf(wire.CodeTooLarge, "too many deliveries in one client_ack")
	}
	c.settle(f.Deliveries, wire.StateDelivered, "")
	return nil
}

// clientNack bounces a delivery that the recipient refuses for good.
func (c *conn) clientNack(_ context.Context, f *wire.ClientNack) error {
	if !f.Code.Known() {
		return wire.Faultf(wire.CodeBadFrame, "unknown code")
	}
	c.settle([]int64{f.Delivery}, wire.StateBounced, f.Code)
	return nil
}

func (c *conn) settle(deliveries []int64, state wire.State, code wire.Code) {
	m, now := c.mesh, c.b.cfg.Now()
	leases := make([]*lease, 0, len(deliveries))
	rows := make([]Settlement, 0, len(deliveries))
	m.mu.Lock()
	for _, d := range deliveries {
		if l := c.leases[d]; l != nil && !l.settling {
			l.answer()
			leases = append(leases, l)
			rows = append(rows, Settlement{Delivery: d, Recipient: l.peer.id, State: state, Code: code, At: now})
		}
	}
	m.mu.Unlock()
	if len(rows) == 0 {
		return
	}
	c.b.store.Settle(rows, func(settled []bool, err error) { m.settled(leases, rows, settled, err) })
	m.pump(c)
}

// settled tells senders and quotas once a settlement is on disk.
func (m *mesh) settled(leases []*lease, rows []Settlement, done []bool, err error) {
	if err != nil { // they stay leased, and come again when that ends
		m.b.log.Error("deliveries do not settle", "error", err)
		m.mu.Lock()
		for _, l := range leases {
			l.unanswer()
		}
		m.mu.Unlock()
		return
	}
	conns := map[*conn]bool{}
	m.mu.Lock()
	for i, l := range leases {
		l.release()
		l.peer.end(l.delivery)
		conns[l.conn] = true
		if done[i] {
			m.account(l.peer, l.sender, -1, -l.size)
		}
	}
	m.mu.Unlock()
	for c := range conns {
		m.pump(c)
	}
	for i, l := range leases {
		if !done[i] {
			continue
		}
		if rows[i].State == wire.StateBounced {
			m.b.metrics.bounced(rows[i].Code, 1)
		} else {
			m.b.metrics.delivered.Inc()
		}
		m.notify(Outcome{Sender: l.sender, ID: l.id, Recipient: l.peer.id, State: rows[i].State, Code: rows[i].Code, At: rows[i].At})
	}
}

// expireLeases queues again what live connections have not answered in time,
// and bounces what has failed too often.
func (m *mesh) expireLeases(ctx context.Context, now time.Time) {
	m.mu.Lock()
	var late []*lease
	var ids []int64
	for c := range m.conns {
		for _, l := range c.leases {
			if !l.settling && now.After(l.deadline) {
				l.deadline = now.Add(m.b.cfg.Limits.Lease) // once, whatever becomes of it here
				late, ids = append(late, l), append(ids, l.delivery)
			}
		}
	}
	m.mu.Unlock()
	if len(late) == 0 {
		return
	}
	counts, err := m.b.store.Retry(ctx, ids)
	if err != nil {
		m.b.log.Error("attempts are not counted", "error", err)
		counts = make([]int, len(late))
	}
	var dead []*lease
	var rows []Settlement
	conns := map[*conn]bool{}
	m.mu.Lock()
	for i, l := range late {
		switch {
		case l.settling || l.conn.leases[l.delivery] != l: // answered meanwhile
		case counts[i] >= m.b.cfg.Limits.Attempts:
			l.answer()
			dead = append(dead, l)
			rows = append(rows, Settlement{Delivery: l.delivery, Recipient: l.peer.id, State: wire.StateBounced, Code: wire.CodeUndeliverable, At: now})
		default:
			if c := l.requeue(); c != nil {
				conns[c] = true
			}
		}
	}
	m.mu.Unlock()
	if len(rows) > 0 {
		m.b.store.Settle(rows, func(done []bool, err error) { m.settled(dead, rows, done, err) })
	}
	for c := range conns {
		m.pump(c)
	}
}
