package postgres_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/pgtest"
	"github.com/claudemesh/claudemesh/internal/postgres"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// bg is the context of what may outlive a test's own, such as a clean-up.
var bg = context.Background()

// office is a mesh with two peers.
type office struct {
	mesh     wire.ID
	from, to broker.PeerID
}

func random[T ~[16]byte | ~[32]byte]() (v T) {
	switch p := any(&v).(type) {
	case *wire.ID:
		rand.Read(p[:])
	case *wire.Key:
		rand.Read(p[:])
	}
	return v
}

// settleIn makes a mesh with two peers.
func settleIn(t testing.TB, s broker.Store) (o office) {
	t.Helper()
	owner, now := random[wire.Key](), time.Now()
	o.mesh = random[wire.ID]()
	err := s.CreateMesh(bg, broker.Mesh{ID: o.mesh, Owner: owner, Name: "mesh", Created: now},
		broker.Member{Mesh: o.mesh, Key: owner, Name: "founder", Role: "owner", Joined: now})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*broker.PeerID{&o.from, &o.to} {
		if *p, err = s.PutPeer(bg, broker.Peer{Mesh: o.mesh, Key: random[wire.Key](), Member: owner, LastSeen: now}); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

func (o office) message() *broker.Message {
	now := time.Now()
	return &broker.Message{Mesh: o.mesh, Sender: o.from, ID: random[wire.ID](), Mode: wire.ModeDM, Priority: wire.PriorityNext,
		Created: now, Expires: now.Add(time.Hour), Nonce: make([]byte, 24), Ciphertext: make([]byte, 300),
		Deliveries: []broker.NewDelivery{{Recipient: o.to}}, MembersVersion: 1}
}

func (o office) end(m *broker.Message, first int64) broker.Settlement {
	d := m.Delivery(0, first)
	e := d.Settlement(o.mesh, o.to)
	e.State, e.At = wire.StateDelivered, time.Now()
	return e
}

// benchmark keeps 256 messages on their way through a store in which so many
// wait for another peer, as QUEUED says.
func benchmark(b *testing.B, settle bool) {
	s := open(b, pgtest.Database(b))
	o := settleIn(b, s)
	n, _ := strconv.Atoi(os.Getenv("QUEUED")) // none
	if b.N > 1 {                              // not for the trial
		fill(b, s, o, n)
	}
	slots := make(chan struct{}, 256)
	for range cap(slots) {
		slots <- struct{}{}
	}
	start, err := s.Stats(bg)
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for range b.N {
		<-slots
		m := o.message()
		s.Accept(m, func(a broker.Accepted, err error) {
			if err != nil || a.Duplicate {
				b.Error(err, a.Duplicate)
			}
			if !settle || err != nil {
				slots <- struct{}{}
				return
			}
			s.Settle([]broker.Settlement{o.end(m, a.First)}, func(settled []bool, err error) {
				if err != nil || !settled[0] {
					b.Error(err)
				}
				slots <- struct{}{}
			})
		})
	}
	for range cap(slots) {
		<-slots
	}
	b.StopTimer()
	st, err := s.Stats(bg)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(st.CommittedOps-start.CommittedOps)/float64(st.Commits-start.Commits), "ops/commit")
}

// fill queues n messages for a peer that does not come.
func fill(b *testing.B, s *postgres.Store, o office, n int) {
	b.Helper()
	to, err := s.PutPeer(bg, broker.Peer{Mesh: o.mesh, Key: random[wire.Key](), Member: random[wire.Key](), LastSeen: time.Now()})
	if err != nil {
		b.Fatal(err)
	}
	o.to = to
	slots := make(chan struct{}, 4096)
	for range n {
		slots <- struct{}{}
		s.Accept(o.message(), func(_ broker.Accepted, err error) {
			if err != nil {
				b.Error(fmt.Errorf("fill: %w", err))
			}
			<-slots
		})
	}
	for range cap(slots) {
		slots <- struct{}{}
	}
}

func BenchmarkAccept(b *testing.B)       { benchmark(b, false) }
func BenchmarkAcceptSettle(b *testing.B) { benchmark(b, true) }
