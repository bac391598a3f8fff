package storetest

import (
	"context"
	"errors"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
)

var brokerTests = []test{
	{"Identity", testIdentity},
	{"Mesh", testMesh},
	{"MeshExists", testMeshExists},
	{"ReadyAndStats", testReadyAndStats},
	{"Closed", testClosed},
	{"CancelledContext", testCancelled},
}

func testIdentity(w *world) {
	w.fails(w.s.SetTokenHash(w.ctx, [32]byte{1}), broker.ErrNotFound)
	a := broker.BrokerIdentity{Seed: w.key(), TokenHash: w.key(), Created: t0}
	b := broker.BrokerIdentity{Seed: w.key(), TokenHash: w.key(), Created: t0.Add(1)}
	got, created, err := w.s.Identity(w.ctx, a)
	w.ok(err)
	w.equal(got, a)
	w.equal(created, true)
	got, created, err = w.s.Identity(w.ctx, b)
	w.ok(err)
	w.equal(got, a)
	w.equal(created, false)

	a.TokenHash = w.key()
	w.ok(w.s.SetTokenHash(w.ctx, a.TokenHash))
	got, _, err = w.s.Identity(w.ctx, b)
	w.ok(err)
	w.equal(got, a)
	got, created, err = w.reopen().Identity(w.ctx, b)
	w.ok(err)
	w.equal(got, a)
	w.equal(created, false)
}

func testMesh(w *world) {
	w.equal(w.getMesh(), w.mesh)
	_, err := w.s.Mesh(w.ctx, w.id())
	w.fails(err, broker.ErrNotFound)
	c, err := w.s.Changes(w.ctx, w.mesh.ID, 0, w.founder.Key)
	w.ok(err)
	w.equal(c, broker.MemberChanges{Members: []broker.Member{w.founder}, Version: 1, Gen: 1})
	_, err = w.s.Changes(w.ctx, w.id(), 0, w.founder.Key)
	w.fails(err, broker.ErrNotFound)
	m, err := w.reopen().Mesh(w.ctx, w.mesh.ID)
	w.ok(err)
	w.equal(m, w.mesh)
}

func testMeshExists(w *world) {
	w.ok(w.s.CreateMesh(w.ctx, w.mesh, w.founder))
	for _, change := range []func(m *broker.Mesh, f *broker.Member){
		func(m *broker.Mesh, _ *broker.Member) { m.Genesis = w.signed() },
		func(_ *broker.Mesh, f *broker.Member) { f.Key = w.key() },
		func(_ *broker.Mesh, f *broker.Member) { f.Certificate = wire.Certificate{w.signed()} },
		func(_ *broker.Mesh, f *broker.Member) { f.Name = "other" },
		func(m *broker.Mesh, f *broker.Member) { m.Owner, m.Genesis, f.Key = w.key(), w.signed(), w.key() },
	} {
		m, f := w.mesh, w.founder
		change(&m, &f)
		w.fails(w.s.CreateMesh(w.ctx, m, f), broker.ErrMeshExists)
	}
	w.join("bob") // a later member changes nothing about that
	w.ok(w.s.CreateMesh(w.ctx, w.mesh, w.founder))
	w.equal(w.getMesh().MembersVersion, int64(2))
}

func testReadyAndStats(w *world) {
	w.ok(w.s.Ready(w.ctx))
	gone := w.join("gone")
	w.join("stays")
	_, err := w.s.Remove(w.ctx, w.removal(gone.Key))
	w.ok(err)
	first := w.message(w.bob)
	first.Created = t0.Add(-time.Minute)
	n := w.send(first)
	w.send(w.message(w.bob))
	st, err := w.s.Stats(w.ctx)
	w.ok(err)
	if st.Meshes != 1 || st.Members != 2 || st.Queued != 2 || !st.OldestQueued.Equal(first.Created) {
		w.Errorf("stats %+v", st)
	}
	if st.Commits < 5 || st.CommittedOps < st.Commits || st.CommitSeconds <= 0 {
		w.Errorf("writer's stats %+v", st)
	}
	w.settle(w.delivered(n, w.bob))
	st, err = w.s.Stats(w.ctx)
	w.ok(err)
	if st.Queued != 1 || !st.OldestQueued.Equal(t0) {
		w.Errorf("stats %+v", st)
	}
	w.settle(w.delivered(n+1, w.bob))
	if st, err = w.s.Stats(w.ctx); err != nil || !st.OldestQueued.IsZero() {
		w.Errorf("stats of an empty queue %+v, %v", st, err)
	}
	n = w.send(w.message(w.bob))
	if st, err = w.s.Stats(w.ctx); err != nil || !st.OldestQueued.Equal(t0) {
		w.Errorf("stats %+v, %v", st, err)
	}
	w.settle(w.delivered(n, w.bob))
}

func testClosed(w *world) {
	// What was accepted before Close is committed by it.
	results := make(chan error, 100)
	for range cap(results) {
		w.s.Accept(w.message(w.bob), func(_ broker.Accepted, err error) { results <- err })
	}
	w.ok(w.s.Close())
	for range cap(results) {
		w.ok(wait(w, results))
	}
	w.ok(w.s.Close())
	_, err := w.accept(w.message(w.bob))
	w.fails(err, broker.ErrClosed)
	settled := make(chan error, 1)
	w.s.Settle([]broker.Settlement{w.delivered(1, w.bob)}, func(_ []bool, err error) { settled <- err })
	w.fails(wait(w, settled), broker.ErrClosed)

	_, _, errQueued := w.s.Queued(w.ctx, w.bob, broker.Place{}, 1, 1)
	_, errMesh := w.s.Mesh(w.ctx, w.mesh.ID)
	_, _, errLookup := w.s.Lookup(w.ctx, w.alice, w.id())
	_, errPut := w.s.PutPeer(w.ctx, broker.Peer{Mesh: w.mesh.ID, Key: w.key(), Member: w.founder.Key})
	_, errStats := w.s.Stats(w.ctx)
	for _, err := range []error{errQueued, errMesh, errLookup, errPut, errStats, w.s.Ready(w.ctx)} {
		w.fails(err, broker.ErrClosed)
	}
	w.s = w.reopen()
	w.equal(len(w.queue(w.bob)), cap(results))
}

func testCancelled(w *world) {
	ctx, cancel := context.WithCancel(w.ctx)
	cancel()
	_, err := w.s.PutPeer(ctx, broker.Peer{Mesh: w.mesh.ID, Key: w.key(), Member: w.founder.Key, LastSeen: t0})
	w.fails(err, context.Canceled)
	_, _, err = w.s.Queued(ctx, w.bob, broker.Place{}, 1, 1)
	w.fails(err, context.Canceled)
	peers, err := w.s.Peers(w.ctx, w.mesh.ID)
	w.ok(err)
	w.equal(len(peers), 2)

	// Ending at any moment: either it happened, or it says it did not.
	for i := range 50 {
		ctx, cancel := context.WithCancel(w.ctx)
		key := w.key()
		done := make(chan error, 1)
		go func() {
			_, err := w.s.PutPeer(ctx, broker.Peer{Mesh: w.mesh.ID, Key: key, Member: w.founder.Key, LastSeen: t0})
			done <- err
		}()
		for range i * 20 {
			_ = ctx.Err() // a little later each time
		}
		cancel()
		err := wait(w, done)
		if err != nil && !errors.Is(err, context.Canceled) {
			w.Fatal(err)
		}
		peers, errPeers := w.s.Peers(w.ctx, w.mesh.ID)
		w.ok(errPeers)
		stored := false
		for _, p := range peers {
			stored = stored || p.Key == key
		}
		if stored != (err == nil) {
			w.Fatalf("stored is %v, but PutPeer returned %v", stored, err)
		}
	}
}
