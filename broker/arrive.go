package broker

// arrival is a message on its way to disk. mesh.mu guards it.
type arrival struct {
	committed bool
	pushed    []bool // by delivery: it is leased, ahead of the commit
}

// arrived pushes a message that was just given to the store to each recipient
// that takes pushes live, and notes that it is on its way to disk for the others.
// first is zero when nothing may be pushed before the commit. mesh.mu is held.
func (m *mesh) arrived(msg *Message, sender *peer, first int64, a *arrival) {
	a.pushed = make([]bool, len(msg.Deliveries))
	for i, d := range msg.Deliveries {
		p := m.byID[d.Recipient]
		if p == nil {
			continue
		}
		if first > 0 && p.conn != nil && p.phase == live {
			n := first + int64(i)
			if a.pushed[i] = m.push(p, msg.delivery(i, first), sender); a.pushed[i] && p.conn.leases[n] != nil {
				p.conn.leases[n].ahead, p.conn.leases[n].place = a, i
			}
		}
		if !a.pushed[i] {
			p.uncommitted++
			if p.phase == live {
				p.phase = behind
			}
		}
	}
}

// lost takes note of a lease that ends without its outcome. If its message is not on
// disk yet, no page shows it: nothing may be pushed past it until its commit.
// mesh.mu is held.
func (l *lease) lost() {
	if a := l.ahead; a != nil && !a.committed && a.pushed[l.place] {
		a.pushed[l.place] = false
		l.peer.uncommitted++
	}
}

// delivery is the i-th delivery of a message whose first has that number.
func (msg *Message) delivery(i int, first int64) Delivery {
	return Delivery{
		Number: first + int64(i), Sender: msg.Sender, ID: msg.ID, Mode: msg.Mode, Priority: msg.Priority,
		Created: msg.Created, Expires: msg.Expires, Nonce: msg.Nonce, Ciphertext: msg.Ciphertext, Wrap: msg.Deliveries[i].Wrap,
	}
}

// committed has the recipients that arrived did not push to, or that lost the
// push, read their queue, now that the message is on disk, or never will be. The
// store's writer calls it, in commit order.
func (m *mesh) committed(msg *Message, a *arrival) {
	conns := map[*conn]bool{}
	m.mu.Lock()
	a.committed = true
	for i, d := range msg.Deliveries {
		p := m.byID[d.Recipient]
		if p == nil || a.pushed[i] {
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
