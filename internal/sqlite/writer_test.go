package sqlite_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/sqlite"
	"github.com/claudemesh/claudemesh/internal/wire"
)

var now = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// mesh creates a mesh with one peer.
func mesh(t testing.TB, s broker.Store) (wire.ID, broker.PeerID) {
	t.Helper()
	m := broker.Mesh{ID: wire.ID{1}, Owner: wire.Key{1}, Name: "m", Created: now}
	f := broker.Member{Mesh: m.ID, Key: wire.Key{2}, Name: "f", Role: "owner", Joined: now}
	if err := s.CreateMesh(context.Background(), m, f); err != nil {
		t.Fatal(err)
	}
	id, err := s.PutPeer(context.Background(), broker.Peer{Mesh: m.ID, Key: wire.Key{3}, Member: f.Key, LastSeen: now})
	if err != nil {
		t.Fatal(err)
	}
	return m.ID, id
}

var lastID atomic.Uint64

func message(mesh wire.ID, peer broker.PeerID, size int) *broker.Message {
	m := &broker.Message{Mesh: mesh, Sender: peer, Mode: wire.ModeDM, Priority: wire.PriorityNext, Created: now, Expires: now.Add(time.Hour),
		Nonce: make([]byte, 24), Ciphertext: make([]byte, size), Deliveries: []broker.NewDelivery{{Recipient: peer}}}
	// Spread like random ids.
	n := lastID.Add(1) * 0x9e3779b97f4a7c15
	for i := range 8 {
		m.ID[i] = byte(n >> (8 * i))
		m.Hash[i] = m.ID[i]
	}
	return m
}

func accept(s broker.Store, m *broker.Message) (int64, error) {
	type result struct {
		first int64
		err   error
	}
	done := make(chan result, 1)
	s.Accept(m, func(a broker.Accepted, err error) { done <- result{a.First, err} })
	r := <-done
	return r.first, r.err
}

// queued returns everything that waits for a peer.
func queued(s broker.Store, peer broker.PeerID) ([]broker.Delivery, error) {
	q, _, err := s.Queued(bg, peer, broker.Place{}, 1<<20, 1<<40)
	return q, err
}

// delivered settles the i-th delivery of a message.
func delivered(m *broker.Message, first int64, i int) broker.Settlement {
	d := m.Delivery(i, first)
	e := d.Settlement(m.Mesh, m.Deliveries[i].Recipient)
	e.State, e.At = wire.StateDelivered, now
	return e
}

func settle(s broker.Store, e ...broker.Settlement) error {
	done := make(chan error, 1)
	s.Settle(e, func(_ []bool, err error) { done <- err })
	return <-done
}

func TestStorageFull(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "broker.db"))
	id, peer := mesh(t, s)
	pages, err := s.Pages()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.LimitPages(pages + 4); err != nil {
		t.Fatal(err)
	}
	stored := 0
	for ; err == nil && stored < 100; stored++ {
		_, err = accept(s, message(id, peer, 4000))
	}
	if !errors.Is(err, broker.ErrStorageFull) {
		t.Fatalf("%v after %d messages", err, stored)
	}
	stored--
	for range 3 {
		if err := s.Ready(t.Context()); !errors.Is(err, broker.ErrStorageFull) {
			t.Errorf("ready: %v", err)
		}
	}
	if q, err := queued(s, peer); err != nil || len(q) != stored {
		t.Errorf("%d queued, want %d, %v", len(q), stored, err)
	}
	// Room again: without traffic Ready finds it.
	if err := s.LimitPages(1 << 20); err != nil {
		t.Fatal(err)
	}
	if err := s.Ready(t.Context()); err != nil {
		t.Errorf("ready after space was freed: %v", err)
	}
	if _, err := accept(s, message(id, peer, 4000)); err != nil {
		t.Error(err)
	}
	if m, err := s.Mesh(t.Context(), id); err != nil || m.Queued != int64(stored+1) {
		t.Errorf("the mesh counts %d, want %d, %v", m.Queued, stored+1, err)
	}
}

// TestBadOp: what one caller does wrong fails for that caller alone, though it
// shares a transaction with others.
func TestBadOp(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "broker.db"))
	id, peer := mesh(t, s)
	m := message(id, peer, 100)
	first, err := accept(s, m)
	if err != nil {
		t.Fatal(err)
	}
	bad := delivered(m, first, 0)
	bad.State = wire.StateBounced // no code
	hold, held := make(chan struct{}), make(chan struct{})
	s.Accept(message(id, peer, 100), func(broker.Accepted, error) { close(held); <-hold })
	<-held // what follows is one batch
	errs := make(chan error, 4)
	var numbers []int64
	good := func(a broker.Accepted, err error) { numbers = append(numbers, a.First); errs <- err }
	s.Accept(message(id, peer, 100), good)
	s.Settle([]broker.Settlement{bad}, func(_ []bool, err error) { errs <- err })
	s.Accept(message(id, peer, 100), good)
	close(hold)
	for i, bad := range []bool{false, true, false} {
		if err := <-errs; (err != nil) != bad {
			t.Errorf("op %d: %v", i, err)
		}
	}
	if numbers[1] != numbers[0]+1 {
		t.Errorf("numbers %d", numbers)
	}
	if m, err := s.Mesh(t.Context(), id); err != nil || m.Queued != 4 {
		t.Errorf("the mesh counts %d, %v", m.Queued, err)
	}
}

type fsyncError struct{}

func (fsyncError) Error() string { return "disk I/O error" }
func (fsyncError) Code() int     { return 10 | 4<<8 }

func TestFsyncErrorIsFatal(t *testing.T) {
	var fatal error
	s, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "broker.db"), sqlite.Options{OnFatal: func(err error) { fatal = err }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Fail(fsyncError{}); !errors.Is(err, fsyncError{}) || !errors.Is(fatal, fsyncError{}) {
		t.Errorf("error %v, fatal %v", err, fatal)
	}
}

// TestVirtualTime: a broker on virtual time needs a store that lives in a bubble.
func TestVirtualTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "broker.db")
	synctest.Test(t, func(t *testing.T) {
		s, err := sqlite.Open(context.Background(), path, sqlite.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		id, peer := mesh(t, s)
		for range 10 {
			<-time.After(time.Hour)
			if _, err := accept(s, message(id, peer, 100)); err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
	})
}

func BenchmarkAcceptSettle(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "broker.db"))
	id, peer := mesh(b, s)
	b.SetParallelism(64)
	b.ReportAllocs()
	before, _ := s.Stats(b.Context())
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m := message(id, peer, 400)
			n, err := accept(s, m)
			if err == nil {
				err = settle(s, delivered(m, n, 0))
			}
			if err != nil {
				b.Error(err)
			}
		}
	})
	b.StopTimer()
	after, _ := s.Stats(b.Context())
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N), "us/op")
	b.ReportMetric(float64(after.CommittedOps-before.CommittedOps)/float64(after.Commits-before.Commits), "ops/commit")
}
