package storetest

import (
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
)

var peerTests = []test{
	{"PutPeer", testPutPeer},
	{"TouchPeers", testTouchPeers},
	{"ForgetPeers", testForgetPeers},
	{"ForgetPeersBounces", testForgetBounces},
	{"ForgottenComesBack", testForgottenBack},
}

// peer returns a peer as stored.
func (w *world) peer(id broker.PeerID) (p broker.Peer, found bool) {
	w.Helper()
	peers, err := w.s.Peers(w.ctx, w.mesh.ID)
	w.ok(err)
	for _, p := range peers {
		if p.ID == id {
			return p, true
		}
	}
	return broker.Peer{}, false
}

func (w *world) samePeer(want broker.Peer) {
	w.Helper()
	got, found := w.peer(want.ID)
	if !found {
		w.Fatalf("peer %d is missing", want.ID)
	}
	w.equal(got, want)
}

func (w *world) attestation() *wire.Attestation {
	a := &wire.Attestation{Issued: t0.UnixMilli()}
	copy(a.Sig[:], w.bytes(64))
	return a
}

func (w *world) card(seq uint64) *wire.Card {
	c := &wire.Card{Generation: 1, Seq: seq, Blob: w.bytes(80)}
	copy(c.Sig[:], w.bytes(64))
	return c
}

func testPutPeer(w *world) {
	p := broker.Peer{Mesh: w.mesh.ID, Key: w.key(), Member: w.founder.Key}
	p.ID = w.put(p)
	w.samePeer(p)
	p.Attestation, p.Card, p.LastSeen = w.attestation(), w.card(1<<63), t0
	w.equal(w.put(p), p.ID)
	w.samePeer(p)
	w.equal(w.put(broker.Peer{Mesh: p.Mesh, Key: p.Key, Member: p.Member}), p.ID) // leaves all
	w.samePeer(p)
	p.Card = w.card(2)
	w.equal(w.put(broker.Peer{Mesh: p.Mesh, Key: p.Key, Member: p.Member, Card: p.Card}), p.ID)
	w.samePeer(p)

	stolen := p
	stolen.Member = w.key()
	_, err := w.s.PutPeer(w.ctx, stolen)
	w.fails(err, broker.ErrConflict)
	_, err = w.s.PutPeer(w.ctx, broker.Peer{Mesh: w.id(), Key: p.Key, Member: p.Member})
	w.fails(err, broker.ErrNotFound)

	// The same key in another mesh is another peer.
	other, _ := w.newMesh()
	elsewhere := broker.Peer{Mesh: other.ID, Key: p.Key, Member: p.Member, LastSeen: t0}
	if elsewhere.ID = w.put(elsewhere); elsewhere.ID == p.ID {
		w.Error("two meshes share a peer")
	}
	w.s = w.reopen()
	w.samePeer(p)
	got, err := w.s.Peers(w.ctx, other.ID)
	w.ok(err)
	w.equal(got, []broker.Peer{elsewhere})
}

func testTouchPeers(w *world) {
	seen := t0.Add(time.Hour + 3*time.Millisecond)
	w.ok(w.s.TouchPeers(w.ctx, []broker.PeerID{w.alice, 999999}, seen))
	w.ok(w.s.TouchPeers(w.ctx, nil, seen))
	for id, want := range map[broker.PeerID]time.Time{w.alice: seen, w.bob: t0} {
		p, _ := w.peer(id)
		w.equal(p.LastSeen, want)
	}
}

func testForgetPeers(w *world) {
	own := w.put(broker.Peer{Mesh: w.mesh.ID, Key: w.founder.Key, Member: w.founder.Key, LastSeen: t0})
	kept, recent := w.session(w.founder.Key), w.session(w.founder.Key)
	w.ok(w.s.TouchPeers(w.ctx, []broker.PeerID{recent}, t0.Add(time.Minute)))
	p, _ := w.peer(w.alice)
	now := t0.Add(time.Hour)

	forget := func(before time.Time, limit int) []broker.Forgotten {
		w.Helper()
		out, err := w.s.ForgetPeers(w.ctx, before, []broker.PeerID{kept, 999999}, now, limit)
		w.ok(err)
		return out
	}
	w.equal(len(forget(t0, 10)), 0) // seen at t0 is not before it
	w.equal(len(forget(t0.Add(time.Second), 0)), 0)
	first := forget(t0.Add(time.Second), 1)
	w.equal(first, []broker.Forgotten{{Peer: p}})
	second := forget(t0.Add(time.Second), 10)
	w.equal(len(second), 1)
	w.equal(len(forget(t0.Add(time.Second), 10)), 0)
	for id, want := range map[broker.PeerID]bool{w.alice: false, w.bob: false, own: true, kept: true, recent: true} {
		if _, found := w.peer(id); found != want {
			w.Errorf("peer %d there is %v, want %v", id, found, want)
		}
	}
	w.ok(w.s.TouchPeers(w.ctx, []broker.PeerID{w.alice}, now))
	if _, found := w.peer(w.alice); found {
		w.Error("a touch brought a forgotten peer back")
	}
}

func testForgetBounces(w *world) {
	keep := []broker.PeerID{w.alice}
	direct, group := w.message(w.bob), w.message(w.bob, w.alice)
	n1, n2 := w.send(direct), w.send(group)
	now := t0.Add(time.Hour)
	out, err := w.s.ForgetPeers(w.ctx, t0.Add(1*time.Second), keep, now, 10)
	w.ok(err)
	w.equal(len(out), 1)
	want := []broker.Outcome{
		w.outcome(direct, n1, 0, wire.StateBounced, wire.CodeSessionGone, now),
		w.outcome(group, n2, 0, wire.StateBounced, wire.CodeSessionGone, now)}
	w.equal(out[0].Bounced, want)
	w.sameNumbers(w.queue(w.bob))
	w.sameNumbers(w.queue(w.alice), n2+1)
	w.equal(w.lookup(direct), want[:1]) // with the key of the peer that is gone
	w.equal(w.settle(w.delivered(n1, w.bob)), []bool{false})
}

func testForgottenBack(w *world) {
	p := broker.Peer{Mesh: w.mesh.ID, Key: w.key(), Member: w.founder.Key, Attestation: w.attestation(), Card: w.card(1), LastSeen: t0}
	p.ID = w.put(p)
	m := w.message(p.ID)
	n := w.send(m)
	_, err := w.s.ForgetPeers(w.ctx, t0.Add(time.Second), []broker.PeerID{w.alice, w.bob}, t0, 10)
	w.ok(err)
	back := broker.Peer{Mesh: p.Mesh, Key: p.Key, Member: p.Member, LastSeen: t0}
	back.ID = w.put(back)
	w.equal(back.ID, p.ID) // while a tombstone names it
	w.samePeer(back)       // without the old card
	w.sameNumbers(w.queue(p.ID))
	w.equal(w.lookup(m), []broker.Outcome{w.outcome(m, n, 0, wire.StateBounced, wire.CodeSessionGone, t0)})

	// A key whose every trace was pruned is a new peer or the old, never another's.
	_, err = w.s.ForgetPeers(w.ctx, t0.Add(time.Second), []broker.PeerID{w.alice, w.bob}, t0, 10)
	w.ok(err)
	_, err = w.s.Prune(w.ctx, t0.Add(48*time.Hour), 10)
	w.ok(err)
	if id := w.session(w.founder.Key); id == p.ID {
		w.Error("a new key got the number of another")
	}
	back.ID = w.put(back)
	w.samePeer(back)
}
