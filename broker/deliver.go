package broker

import (
	"context"
	"time"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// push leases one delivery to p's connection and queues its frame. It reports
// false when the connection's window is closed. mesh.mu is held.
func (m *mesh) push(p *peer, d Delivery, sender *peer) bool {
	c, l := p.conn, m.b.cfg.Limits
	end := d.Settlement(m.id, p.id)
	if !m.b.cluster.holds() {
		return false
	}
	if n := len(c.leases); n >= l.Window || (n > 0 && c.inBytes+int(end.Size) > l.WindowBytes) ||
		len(p.settling) >= maxSettling || !c.out.Roomy() {
		return false
	}
	c.leases[d.Number] = &lease{
		conn: c, peer: p, end: end, sender: d.Sender, id: d.ID,
		deadline: m.b.cfg.Now().Add(l.Lease),
	}
	c.inBytes += int(end.Size)
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

// maxSettling bounds the deliveries of a mailbox whose answers are on their way
// to the disk: no page may show them again, but they are out of the window.
const maxSettling = 1024

// release ends a lease. mesh.mu is held.
func (l *lease) release() {
	if c := l.conn; c.leases[l.end.Delivery] == l {
		c.inBytes -= int(l.end.Size)
		delete(c.leases, l.end.Delivery)
	}
}

// answer ends a lease with its outcome, which is to come to the disk. mesh.mu is held.
func (l *lease) answer(state wire.State, code wire.Code, at time.Time) {
	l.release()
	l.peer.settles(l.end.Delivery)
	l.end.State, l.end.Code, l.end.At = state, code, at
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
	m.mu.Lock()
	for _, d := range deliveries {
		if l := c.leases[d]; l != nil {
			l.answer(state, code, now)
			leases = append(leases, l)
		}
	}
	m.mu.Unlock()
	m.settle(leases)
	m.pump(c)
}

// settle hands the ends of leases to the store.
func (m *mesh) settle(leases []*lease) {
	if len(leases) == 0 {
		return
	}
	rows := make([]Settlement, len(leases))
	for i, l := range leases {
		rows[i] = l.end
	}
	m.b.store.Settle(rows, func(settled []bool, err error) { m.settled(leases, rows, settled, err) })
}

// settleAgain tries what did not settle: the disk may have room again.
func (m *mesh) settleAgain() {
	m.mu.Lock()
	again := m.unsettled
	m.unsettled = nil
	m.mu.Unlock()
	m.settle(again)
}

// settled tells senders and quotas once a settlement is on disk.
func (m *mesh) settled(leases []*lease, rows []Settlement, done []bool, err error) {
	if err != nil {
		m.b.logUnlessStopping("deliveries do not settle yet", err)
		m.mu.Lock()
		m.unsettled = append(m.unsettled, leases...)
		m.mu.Unlock()
		return
	}
	conns := map[*conn]bool{}
	m.mu.Lock()
	for i, l := range leases {
		l.peer.ends(l.end.Delivery)
		if done[i] {
			m.account(l.peer, l.sender, -1, -l.end.Size)
		}
		if c := l.peer.conn; c != nil && (l.peer.phase != live || len(l.peer.waiting) > 0) {
			conns[c] = true
		}
	}
	m.mu.Unlock()
	m.pumpAll(conns)
	for i, l := range leases {
		if !done[i] {
			continue
		}
		if rows[i].State == wire.StateBounced {
			m.b.metrics.bounced(rows[i].Code, 1)
		} else {
			m.b.metrics.delivered.Inc()
		}
		m.notify(Outcome{Delivery: l.end.Delivery, Sender: l.sender, ID: l.id, Recipient: l.peer.id, State: rows[i].State, Code: rows[i].Code, At: rows[i].At})
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
			if now.After(l.deadline) {
				l.deadline = now.Add(m.b.cfg.Limits.Lease) // once, whatever becomes of it here
				late, ids = append(late, l), append(ids, l.end.Delivery)
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
	conns := map[*conn]bool{}
	m.mu.Lock()
	for i, l := range late {
		switch {
		case l.conn.leases[l.end.Delivery] != l: // answered meanwhile
		case counts[i] >= m.b.cfg.Limits.Attempts:
			l.answer(wire.StateBounced, wire.CodeUndeliverable, now)
			dead = append(dead, l)
		default:
			if c := l.requeue(); c != nil {
				conns[c] = true
			}
		}
	}
	m.mu.Unlock()
	m.settle(dead)
	m.pumpAll(conns)
}
