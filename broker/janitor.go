package broker

import (
	"context"
	"time"

	"github.com/claudemesh/claudemesh/internal/wire"
)

const (
	sweepPage = 500            // rows of one expiry or prune transaction
	pruneLag  = 24 * time.Hour // tombstones outlive their messages by a day
)

// janitor does everything that happens because time passes. It is the one
// owner of liveness, leases, grace, expiry and forgetting.
func (b *Broker) janitor() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-b.ctx.Done():
			return
		case <-tick.C:
		}
		now := b.cfg.Now()
		b.watch(now)
		if !b.cluster.holds() {
			continue // every write would be refused
		}
		for _, m := range b.loadedMeshes() {
			m.settleAgain()
			m.expireLeases(b.ctx, now)
			m.endGrace(now)
			m.tend(now)
		}
		if n%5 == 0 {
			b.checkDisk()
			b.expire(now)
		}
		if n%60 == 0 {
			b.gate.sweep()
			b.touch()
			b.prune(now)
		}
	}
}

// watch pings quiet connections, closes those that are silent for too long or do
// not take what is written to them, and tells the others how many they are.
func (b *Broker) watch(now time.Time) {
	l, ms, over := b.cfg.Limits, now.UnixMilli(), spread(b.peers.Load()).Milliseconds()
	for _, c := range b.connections() {
		c.tellSpread(over)
		quiet := time.Duration(ms-c.lastRead.Load()) * time.Millisecond
		stuck := c.writing.Load()
		switch {
		case quiet > l.GoneAfter, stuck != 0 && time.Duration(ms-stuck)*time.Millisecond > l.WriteTimeout:
			b.routines.run(c.cut)
		case quiet >= l.PingEvery && ms-c.lastPing.Load() >= l.PingEvery.Milliseconds():
			c.lastPing.Store(ms)
			b.routines.run(func() { c.ping() })
		}
	}
}

// ping asks for a sign of life; the answer is seen by the connection's reader.
func (c *conn) ping() {
	ctx, cancel := context.WithTimeout(c.b.ctx, 5*time.Second)
	defer cancel()
	_ = c.ws.Ping(ctx)
}

// cut ends a connection whose peer does not answer: no close handshake.
func (c *conn) cut() {
	if c.closed.Swap(true) {
		c.cancel() // it is being closed, and does not answer that either
		return
	}
	c.b.metrics.closed(wire.CloseSlow)
	stop := time.AfterFunc(100*time.Millisecond, c.cancel)
	defer stop.Stop()
	_ = c.ws.Close(closeStatus(wire.CloseSlow), wire.CloseSlow.Info().Reason)
}

// endGrace tells watchers of the sessions that have not come back in time.
func (m *mesh) endGrace(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.peers {
		if !p.grace.IsZero() && !now.Before(p.grace) {
			p.grace = time.Time{}
			if p.conn == nil {
				m.tell(p, wire.PresenceLeft, nil)
			}
		}
	}
}

// checkDisk compares the disk with its high-water mark.
func (b *Broker) checkDisk() {
	used, err := b.cfg.DiskUsage()
	if err != nil {
		b.log.Warn("disk usage is unknown", "error", err)
		return
	}
	full := used >= b.cfg.Limits.DiskHighWater
	if full != b.diskFull.Swap(full) {
		b.log.Warn("disk high-water mark", "refusing", full, "percent", used)
	}
}

// expire bounces what has outlived its expiry.
func (b *Broker) expire(now time.Time) {
	for {
		outs, err := b.store.Expire(b.ctx, now, sweepPage)
		if err != nil {
			b.logUnlessStopping("expiry failed", err)
			return
		}
		b.bounced(outs)
		if len(outs) < sweepPage {
			return
		}
	}
}

// bounced hands outcomes to their meshes; one that is not in memory has nobody to tell.
func (b *Broker) bounced(outs []Outcome) {
	byMesh := map[wire.ID][]Outcome{}
	for _, o := range outs {
		byMesh[o.Mesh] = append(byMesh[o.Mesh], o)
	}
	for _, m := range b.loadedMeshes() {
		m.bounced(byMesh[m.id])
	}
}

// touch writes the last-seen times of connected sessions, and of those that left.
func (b *Broker) touch() {
	now := b.cfg.Now()
	var ids []PeerID
	for _, m := range b.loadedMeshes() {
		m.mu.Lock()
		for _, p := range m.peers {
			if p.conn != nil && p.key != p.member {
				p.lastSeen, p.dirty = now, true
			}
			if p.dirty {
				p.dirty = false
				ids = append(ids, p.id)
			}
		}
		m.mu.Unlock()
	}
	if err := b.store.TouchPeers(b.ctx, ids, now); err != nil {
		b.logUnlessStopping("last-seen times are not stored", err)
	}
}

// prune deletes old tombstones and forgets sessions that were not seen for long.
func (b *Broker) prune(now time.Time) {
	if _, err := b.store.Prune(b.ctx, now.Add(-pruneLag), sweepPage); err != nil {
		b.logUnlessStopping("prune failed", err)
	}
	var keep []PeerID
	for _, m := range b.loadedMeshes() {
		m.mu.Lock()
		for _, p := range m.peers {
			if p.conn != nil {
				keep = append(keep, p.id)
			}
		}
		m.mu.Unlock()
	}
	gone, err := b.store.ForgetPeers(b.ctx, now.Add(-b.cfg.Limits.ForgetAfter), keep, now, sweepPage)
	if err != nil {
		b.logUnlessStopping("forgetting sessions failed", err)
		return
	}
	for _, g := range gone {
		b.bounced(g.Bounced)
		for _, m := range b.loadedMeshes() {
			if m.id != g.Peer.Mesh {
				continue
			}
			m.mu.Lock()
			if p := m.byID[g.Peer.ID]; p != nil && p.conn == nil {
				delete(m.byID, p.id)
				delete(m.peers, p.key)
			}
			m.mu.Unlock()
		}
	}
}

func (b *Broker) logUnlessStopping(msg string, err error) {
	if b.ctx.Err() == nil {
		b.log.Error(msg, "error", err)
	}
}
