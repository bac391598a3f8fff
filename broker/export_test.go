package broker

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// PanicNow makes the handler of invite_list panic.
var PanicNow atomic.Bool

func init() {
	h := handlers[wire.TypeInviteList]
	handlers[wire.TypeInviteList] = handler{h.roles, func(ctx context.Context, c *conn, f wire.Frame) error {
		if PanicNow.Load() {
			panic("test")
		}
		return h.serve(ctx, c, f)
	}}
}

// Tick does what the janitor does every few seconds.
func Tick(b *Broker) {
	now := b.cfg.Now()
	b.watch(now)
	for _, m := range b.loadedMeshes() {
		m.settleAgain()
		m.expireLeases(b.ctx, now)
		m.endGrace(now)
		m.tend(now)
	}
	b.checkDisk()
	b.expire(now)
}

// Prune does what the janitor does every minute.
func Prune(b *Broker) {
	b.touch()
	b.prune(b.cfg.Now())
}

// PreAuth returns how many unauthenticated sockets the gate counts.
func PreAuth(b *Broker) (all, addresses int) {
	b.gate.mu.Lock()
	defer b.gate.mu.Unlock()
	return b.gate.all, len(b.gate.sockets)
}

// Connections returns how many sockets the broker has.
func Connections(b *Broker) int { return len(b.connections()) }

// Routed returns how many connections of a key, a session's or a member's, are routing targets.
func Routed(b *Broker, mesh wire.ID, key wire.Key) int {
	m, err := b.mesh(context.Background(), mesh)
	if err != nil {
		return 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for c := range m.conns {
		if c.key == key {
			n++
		}
	}
	return n
}

// Leaving returns how many members' removals are under way.
func Leaving(b *Broker, mesh wire.ID) int {
	m, err := b.mesh(context.Background(), mesh)
	if err != nil {
		return -1
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.leaving)
}

// InFlight returns the leases of the connections of a session.
func InFlight(b *Broker, mesh wire.ID, session wire.Key) int {
	m, err := b.mesh(context.Background(), mesh)
	if err != nil {
		return -1
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.peers[session]; p != nil && p.conn != nil {
		return len(p.conn.leases)
	}
	return -1
}

// Check calls check.
func Check(b *Broker) error { return b.check() }

// check holds what the broker counts in memory against what is stored. It
// needs a quiet broker: callers try again for a while.
func (b *Broker) check() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, m := range b.loadedMeshes() {
		row, err := b.store.Mesh(ctx, m.id)
		if err != nil {
			return err
		}
		m.mu.Lock()
		queued, bytes := m.queued, m.bytes
		peers := map[*peer]map[PeerID]Usage{}
		for _, p := range m.peers {
			if p.usage == nil {
				continue
			}
			u := map[PeerID]Usage{}
			var n, size int64
			for s, v := range p.usage.senders {
				u[s] = *v
				n, size = n+v.Count, size+v.Bytes
			}
			if n != p.usage.count || size != p.usage.bytes {
				err = fmt.Errorf("peer %s: %d/%d in all, %d/%d by sender", p.key.Short(), p.usage.count, p.usage.bytes, n, size)
			}
			peers[p] = u
		}
		if m.b.cluster != nil { // a node counts anew every few seconds: others write to the queues too
			queued, bytes, err = row.Queued, row.QueuedBytes, nil
		}
		if e := m.checkConns(); e != nil {
			err = e
		}
		m.mu.Unlock()
		if err != nil {
			return err
		}
		if queued != row.Queued || bytes != row.QueuedBytes {
			return fmt.Errorf("mesh: %d/%d in memory, %d/%d stored", queued, bytes, row.Queued, row.QueuedBytes)
		}
		for p, u := range peers {
			if err := m.checkPeer(ctx, p, u); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkConns: leases add up and fit the window; routing targets are connections.
func (m *mesh) checkConns() error {
	l := m.b.cfg.Limits
	for c := range m.conns {
		sum := 0
		for d, le := range c.leases {
			sum += int(le.end.Size)
			if le.end.Delivery != d || le.conn != c {
				return fmt.Errorf("lease %d is astray", d)
			}
		}
		if sum != c.inBytes || len(c.leases) > l.Window {
			return fmt.Errorf("%d leases of %d bytes, %d counted", len(c.leases), sum, c.inBytes)
		}
	}
	for _, p := range m.peers {
		if p.conn == nil {
			continue
		}
		if _, ok := m.conns[p.conn]; !ok {
			return fmt.Errorf("peer %s has a taker that is gone", p.key.Short())
		}
	}
	return nil
}

func (m *mesh) checkPeer(ctx context.Context, p *peer, have map[PeerID]Usage) error {
	rows, err := m.b.store.Usage(ctx, p.id)
	if err != nil {
		return err
	}
	if m.b.cluster != nil {
		rows, have = nil, nil
	}
	for _, r := range rows {
		if have[r.Sender] != r {
			return fmt.Errorf("peer %s: usage %v in memory, %v stored", p.key.Short(), have[r.Sender], r)
		}
		delete(have, r.Sender)
	}
	if len(have) > 0 {
		return fmt.Errorf("peer %s: usage %v in memory, none stored", p.key.Short(), have)
	}
	queue, _, err := m.b.store.Queued(ctx, p.id, Place{}, 100_000, 1<<40)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	c, l := p.conn, m.b.cfg.Limits
	switch {
	case c == nil:
	case p.phase == live:
		for _, d := range queue {
			if !m.inHand(p, d.Number) && p.waits(d.Number) < 0 {
				return fmt.Errorf("delivery %d waits at a live mailbox", d.Number)
			}
		}
	case p.phase == reading:
		return fmt.Errorf("a page is being read")
	case len(c.leases) < l.Window && c.inBytes < l.WindowBytes/2 && c.out.Roomy():
		return fmt.Errorf("peer %s is behind and nobody reads on", p.key.Short())
	}
	return nil
}

// Spread is what n clients are told.
func Spread(n int64) time.Duration { return spread(n) }

// Crowd has the broker believe in n more authenticated connections.
func Crowd(b *Broker, n int64) { b.peers.Add(n) }

// HoldCommits keeps everything that is written from now on from being committed,
// until release.
func HoldCommits(b *Broker) (release func()) {
	held, gate := make(chan struct{}), make(chan struct{})
	b.store.Settle(nil, func([]bool, error) { close(held); <-gate })
	<-held
	return sync.OnceFunc(func() { close(gate) })
}
