package broker

import (
	"context"

	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// load reads the mesh from the store, once.
func (m *mesh) load(ctx context.Context) error {
	if m.loaded.Load() {
		return nil
	}
	m.loading.Lock()
	defer m.loading.Unlock()
	if m.loaded.Load() {
		return nil
	}
	row, err := m.b.store.Mesh(ctx, m.id)
	if err != nil {
		return err
	}
	changes, err := m.b.store.Changes(ctx, m.id, 0, wire.Key{})
	if err != nil {
		return err
	}
	blocks, err := m.loadBlocks(ctx)
	if err != nil {
		return err
	}
	peers, err := m.loadPeers(ctx)
	if err != nil {
		return err
	}
	roster, err := trust.NewRoster(row.Owner, row.Genesis)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.roster, m.version, m.generation = roster, changes.Version, changes.Gen
	m.queued, m.bytes = row.Queued, row.QueuedBytes
	m.roles, m.blocks, m.leaving = map[wire.Key][]wire.Signed{}, blocks, map[wire.Key]int{}
	m.apply(changes)
	m.peers, m.byID = map[wire.Key]*peer{}, map[PeerID]*peer{}
	m.conns, m.paces = map[*conn]struct{}{}, map[wire.Key]*pace{}
	for _, l := range peers {
		p := m.addPeer(l.Peer)
		if l.Holder.Epoch != 0 {
			m.setHolder(p, l.Holder)
		}
	}
	m.loaded.Store(true)
	return nil
}

// loadPeers returns the peers and, in a cluster, who holds them.
func (m *mesh) loadPeers(ctx context.Context) (out []Located, err error) {
	if m.b.cluster != nil {
		return m.b.cluster.store.Locate(ctx, m.id, nil)
	}
	peers, err := m.b.store.Peers(ctx, m.id)
	for _, p := range peers {
		out = append(out, Located{Peer: p})
	}
	return out, err
}

// loadBlocks returns the blocks; those of a later version than the changes
// that were read before do no harm.
func (m *mesh) loadBlocks(ctx context.Context) (map[Block]struct{}, error) {
	list, err := m.b.store.Blocks(ctx, m.id)
	out := make(map[Block]struct{}, len(list))
	for _, b := range list {
		out[b] = struct{}{}
	}
	return out, err
}

// apply feeds stored statements to the roster. They were verified when they
// were stored; one that does not verify now is logged and has no effect.
func (m *mesh) apply(c MemberChanges) {
	bad := func(what string, err error) {
		if err != nil {
			m.b.log.Error("stored statement does not verify", "kind", what, "mesh", m.id.String()[:8], "error", err)
		}
	}
	for _, s := range c.Roles {
		v, err := m.roster.AddRole(s)
		bad("role", err)
		if err == nil && !m.hasRole(v.Member, s) {
			m.roles[v.Member] = append(m.roles[v.Member], s)
		}
	}
	for _, mem := range c.Members {
		_, err := m.roster.Add(mem.Certificate)
		bad("certificate", err)
	}
	for _, s := range c.Removals {
		_, err := m.roster.AddRemoval(s)
		bad("removal", err)
	}
	for _, s := range c.Closes {
		_, err := m.roster.AddClose(s)
		bad("close", err)
	}
	for _, s := range c.Pauses {
		_, err := m.roster.AddPause(s)
		bad("pause", err)
	}
}
