package broker

import (
	"context"
	"time"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// arrived routes a message whose commit is on disk: it is pushed to each
// recipient that takes pushes live, and waits in the store for the others. The
// store's writer calls it, in commit order.
func (m *mesh) arrived(msg *Message, sender *peer, first int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, d := range msg.Deliveries {
		p := m.byID[d.Recipient]
		if p == nil || p.conn == nil {
			continue
		}
		switch p.phase {
		case behind:
		case reading:
			p.again = true
		case live:
			d := Delivery{
				Number: first + int64(i), Sender: msg.Sender, ID: msg.ID, Mode: msg.Mode, Priority: msg.Priority,
				Created: msg.Created, Expires: msg.Expires, Nonce: msg.Nonce, Ciphertext: msg.Ciphertext, Wrap: d.Wrap,
			}
			if !m.push(p, d, sender) {
				p.phase = behind
			}
		}
	}
}

// push leases one delivery to p's connection and queues its frame. It reports
// false when the connection's window is closed. mesh.mu is held.
func (m *mesh) push(p *peer, d Delivery, sender *peer) bool {
	c, l := p.conn, m.b.cfg.Limits
	if c.leases[d.Number] != nil {
		return true // a page and an arrival met
	}
	size := int64(len(d.Nonce) + len(d.Ciphertext) + len(d.Wrap))
	if len(c.leases) >= l.Window || (c.inFlight > 0 && c.inFlight+int(size) > l.WindowBytes) || !c.out.Roomy() {
		return false
	}
	c.leases[d.Number] = &lease{
		peer: p, delivery: d.Number, sender: d.Sender, id: d.ID, size: size,
		deadline: m.b.cfg.Now().Add(l.Lease),
	}
	c.inFlight += int(size)
	c.send(&wire.Push{
		Delivery: d.Number, ID: d.ID, Mode: d.Mode, To: p.key, SenderPubkey: sender.key, SenderMember: sender.member,
		Priority: d.Priority, Expires: d.Expires.UnixMilli(), Nonce: d.Nonce, Ciphertext: d.Ciphertext, Wrap: d.Wrap,
		CreatedAt: d.Created.UnixMilli(), MembersVersion: m.version,
	})
	m.b.metrics.pushed.Inc()
	return true
}

// release ends a lease without an outcome. mesh.mu is held.
func (c *conn) release(delivery int64) *lease {
	l := c.leases[delivery]
	if l != nil {
		delete(c.leases, delivery)
		c.inFlight -= int(l.size)
	}
	return l
}

// pump starts reading pages for c's mailboxes that are behind, as far as its
// window is open. It may be called at any time under no lock.
func (m *mesh) pump(c *conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.b.cfg.Limits
	if c.closed.Load() || len(c.leases) > l.Window/2 || c.inFlight > l.WindowBytes/2 || !c.out.Roomy() {
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
		if l := c.release(d); l != nil {
			leases = append(leases, l)
			rows = append(rows, Settlement{Delivery: d, Recipient: l.peer.id, State: state, Code: code, At: now})
		}
	}
	m.mu.Unlock()
	if len(rows) == 0 {
		return
	}
	c.b.store.Settle(rows, func(settled []bool, err error) { m.settled(c, leases, rows, settled, err) })
	m.pump(c)
}

// settled tells senders and quotas once a settlement is on disk.
func (m *mesh) settled(c *conn, leases []*lease, rows []Settlement, done []bool, err error) {
	if err != nil { // they stay queued, and come again after a reconnect
		m.b.log.Error("deliveries do not settle", "error", err)
		m.mu.Lock()
		for _, l := range leases {
			if l.peer.conn == c {
				l.peer.phase = behind
			}
		}
		m.mu.Unlock()
		return
	}
	for i, l := range leases {
		if !done[i] {
			continue
		}
		m.mu.Lock()
		m.account(l.peer, l.sender, -1, -l.size)
		m.mu.Unlock()
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
	var conns []*conn
	for c := range m.conns {
		n := len(late)
		for _, l := range c.leases {
			if now.After(l.deadline) {
				late = append(late, l)
			}
		}
		for _, l := range late[n:] {
			c.release(l.delivery)
			if l.peer.conn == c && l.peer.phase == live {
				l.peer.phase = behind
			} else if l.peer.conn == c {
				l.peer.again = true
			}
		}
		if len(late) > n {
			conns = append(conns, c)
		}
	}
	m.mu.Unlock()
	if len(late) == 0 {
		return
	}
	ids := make([]int64, len(late))
	for i, l := range late {
		ids[i] = l.delivery
	}
	counts, err := m.b.store.Retry(ctx, ids)
	if err != nil {
		m.b.log.Error("attempts are not counted", "error", err)
		counts = make([]int, len(late))
	}
	for i, l := range late {
		if counts[i] < m.b.cfg.Limits.Attempts {
			continue
		}
		rows := []Settlement{{Delivery: l.delivery, Recipient: l.peer.id, State: wire.StateBounced, Code: wire.CodeUndeliverable, At: now}}
		m.b.store.Settle(rows, func(done []bool, err error) { m.settled(nil, []*lease{l}, rows, done, err) })
	}
	for _, c := range conns {
		m.pump(c)
	}
}
