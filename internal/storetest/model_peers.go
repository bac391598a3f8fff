package storetest

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
)

func (m *model) doPutPeer(rt *rapid.T) {
	switch rapid.SampledFrom([]string{"new", "update", "back", "stolen"}).Draw(rt, "kind") {
	case "new":
		m.addPeer(pick(rt, m.members, "member"))
	case "stolen":
		p := pick(rt, m.known, "peer").Peer
		if !m.named(p.ID) && !slices.ContainsFunc(m.live(p.Mesh), func(q *modelPeer) bool { return q.ID == p.ID }) {
			rt.Skip("the key may be free again")
		}
		p.Member = m.key()
		_, err := m.s.PutPeer(m.ctx, p)
		m.fails(err, broker.ErrConflict)
	case "update":
		p := pick(rt, m.live(pick(rt, m.meshes, "mesh")), "peer")
		if rapid.Bool().Draw(rt, "card") {
			p.Card = m.card(rapid.Uint64().Draw(rt, "seq"))
		}
		if rapid.Bool().Draw(rt, "attestation") {
			p.Attestation = m.attestation()
		}
		p.LastSeen = m.now
		m.equal(m.put(p.Peer), p.ID)
	case "back":
		m.comeBack(rt)
	}
}

// comeBack puts a forgotten key, which has its old number for as long as a
// message can name it.
func (m *model) comeBack(rt *rapid.T) {
	var gone []*modelPeer
	for _, p := range m.known {
		if p.forgotten && !p.removed {
			gone = append(gone, p)
		}
	}
	p := pick(rt, gone, "forgotten peer")
	old := p.ID
	p.Peer = broker.Peer{ID: old, Mesh: p.Mesh, Key: p.Key, Member: p.Member, LastSeen: m.now}
	id := m.put(p.Peer)
	if id != old && m.named(old) {
		m.Fatalf("the number of a key changed from %d to %d", old, id)
	}
	m.register(p, id)
	p.forgotten = false
}

func (m *model) doTouch(rt *rapid.T) {
	ids := []broker.PeerID{1 << 40}
	for range rapid.IntRange(1, 3).Draw(rt, "peers") {
		p := pick(rt, m.known, "peer")
		ids = append(ids, p.ID)
		if !p.forgotten {
			p.LastSeen = m.now
		}
	}
	m.ok(m.s.TouchPeers(m.ctx, ids, m.now))
}

// bounceAll ends what waits for a peer and returns what the store must have said.
func (m *model) bounceAll(to broker.PeerID, code wire.Code) (out []broker.Outcome) {
	for _, s := range m.stored {
		for i, e := range s.ends {
			if s.Deliveries[i].Recipient == to && e.state == wire.StateQueued {
				s.end(i, wire.StateBounced, code, m.now)
				out = append(out, m.outcomes(s)[i])
			}
		}
	}
	return out
}

func (p *modelPeer) forget() {
	p.forgotten = true
	p.Card, p.Attestation, p.LastSeen = nil, nil, time.Time{}
}

func (m *model) doForget(rt *rapid.T) {
	before, limit := m.past(rt), limits.Draw(rt, "limit")
	var keep []broker.PeerID
	for range rapid.IntRange(0, 3).Draw(rt, "kept") {
		keep = append(keep, pick(rt, m.known, "kept peer").ID)
	}
	due := make(map[broker.PeerID]*modelPeer)
	for _, p := range m.known {
		if !p.forgotten && p.Key != p.Member && p.LastSeen.Before(before) && !slices.Contains(keep, p.ID) {
			due[p.ID] = p
		}
	}
	want := min(len(due), limit)
	out, err := m.s.ForgetPeers(m.ctx, before, keep, m.now, limit)
	m.ok(err)
	m.equal(len(out), want)
	for _, f := range out {
		p := due[f.Peer.ID]
		if p == nil {
			m.Fatalf("peer %d was forgotten, which was not due or twice", f.Peer.ID)
		}
		delete(due, p.ID)
		m.equal(f.Peer, p.Peer)
		m.same(f.Bounced, m.bounceAll(p.ID, wire.CodeSessionGone))
		p.forget()
	}
}

func (m *model) doJoin(rt *rapid.T) {
	m.names++
	j := m.join(fmt.Sprintf("member %d", m.names))
	m.version[j.Mesh]++
	m.members = append(m.members, j)
	m.addPeer(j)
	if rapid.Bool().Draw(rt, "mailbox") { // its own
		p := &modelPeer{Peer: broker.Peer{Mesh: j.Mesh, Key: j.Key, Member: j.Key, LastSeen: m.now}}
		m.register(p, m.put(p.Peer))
	}
}

func (m *model) doRemove(rt *rapid.T) {
	i := rapid.IntRange(0, len(m.members)-1).Draw(rt, "member")
	gone := m.members[i]
	if gone.Role == "owner" {
		rt.Skip("owners stay")
	}
	r := m.removal(gone.Key)
	r.Now = m.now
	if rapid.IntRange(0, 3).Draw(rt, "stale") == 0 {
		r.Version--
		_, err := m.s.Remove(m.ctx, r)
		m.fails(err, broker.ErrStaleMembers)
		return
	}
	if rapid.Bool().Draw(rt, "next key") {
		r.NextKey = m.nextKey(m.founder.Key)
		m.gen[r.Mesh]++
	}
	got, err := m.s.Remove(m.ctx, r)
	m.ok(err)
	m.version[r.Mesh]++
	m.members = slices.Delete(m.members, i, i+1)
	m.blocks = slices.DeleteFunc(m.blocks, func(b broker.Block) bool { return b.Member == gone.Key || b.Blocked == gone.Key })
	var bounced []broker.Outcome
	for _, p := range m.known {
		if p.Mesh == r.Mesh && p.Member == gone.Key {
			bounced = append(bounced, m.bounceAll(p.ID, wire.CodeRemoved)...)
			p.forget()
			p.removed = true
		}
	}
	byNumber := func(a, b broker.Outcome) int { return cmp.Compare(a.Delivery, b.Delivery) }
	slices.SortFunc(bounced, byNumber)
	slices.SortFunc(got.Bounced, byNumber)
	m.same(got.Bounced, bounced)
	m.equal([]any{got.Version, len(got.Voided)}, []any{m.version[r.Mesh], 0})
}
