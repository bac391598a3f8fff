package broker

import "github.com/claudemesh/claudemesh/internal/wire"

// news finds in the store what no hint has told, and returns when it looked, by
// the database's clock.
func (c *cluster) news(since int64) (at int64, err error) {
	meshes := c.b.loadedMeshes()
	w := Watch{Since: since}
	for _, m := range meshes {
		w.Meshes = append(w.Meshes, m.id)
		m.watched(&w)
	}
	n, err := c.store.News(c.b.ctx, w)
	if err != nil {
		return 0, err
	}
	found := map[wire.ID][]Located{}
	for _, l := range n.Peers {
		found[l.Mesh] = append(found[l.Mesh], l)
	}
	outcomes := map[wire.ID][]Outcome{}
	for _, o := range n.Outcomes {
		outcomes[o.Mesh] = append(outcomes[o.Mesh], o)
	}
	for _, m := range meshes {
		if err := m.heard(n, found[m.id], outcomes[m.id]); err != nil {
			return 0, err
		}
	}
	return n.At, nil
}

// watched notes what of a mesh is to be asked for.
func (m *mesh) watched(w *Watch) {
	m.mu.Lock()
	defer m.mu.Unlock()
	members := map[wire.Key]bool{}
	for c := range m.conns {
		members[c.member] = true
	}
	for _, p := range m.peers {
		if p.conn != nil {
			w.Mailboxes = append(w.Mailboxes, p.id)
		}
		if p.holder.Epoch == 0 && members[p.member] {
			w.Senders = append(w.Senders, p.id)
		}
	}
}

// heard brings news of a mesh into memory.
func (m *mesh) heard(n News, found []Located, outcomes []Outcome) error {
	m.mu.Lock()
	row := n.Meshes[m.id]
	stale := row.Version > m.version
	m.queued, m.bytes = row.Queued, row.QueuedBytes
	for _, l := range found {
		m.located(l)
	}
	conns := map[*conn]bool{}
	var ids, doubtful []PeerID
	for _, p := range m.peers {
		switch h := n.Holders[p.id]; {
		case h.Epoch != 0 || p.since < n.Knows:
			if m.setHolder(p, h); h.Epoch == 0 {
				p.row = Hold{}
			}
		case p.holder.Epoch != 0: // it was let go, or taken since the news were read
			doubtful = append(doubtful, p.id)
		}
		ids = append(ids, p.id)
		if p.conn == nil || !n.Waiting[p.id] {
			continue
		}
		if p.phase == live { // whether all of it is in flight cannot be told: it changes meanwhile
			p.rewind()
		}
		conns[p.conn] = true
	}
	m.mu.Unlock()
	m.pumpAll(conns)
	for _, o := range outcomes {
		m.notify(o)
	}
	if stale {
		if err := m.refresh(m.b.ctx); err != nil {
			return err
		}
	}
	if len(doubtful) > 0 {
		if err := m.learn(m.b.ctx, doubtful); err != nil {
			return err
		}
	}
	return m.syncHolds(m.b.ctx, ids)
}
