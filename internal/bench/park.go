package bench

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/seal"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// Who parked messages are for and from, and how much later than the first the last was sent.
const (
	parkedRecipients = 1000
	parkedSenders    = 100
	parkedOver       = time.Hour
)

// Park brings the messages that wait in a store up to n: for sessions that are
// away, in a mesh of their own. They go through the store and not through a broker,
// which takes a fraction of the time.
func Park(ctx context.Context, s broker.Store, n, size int, progress io.Writer) error {
	st, err := s.Stats(ctx)
	if err != nil {
		return err
	}
	missing := n - int(st.Queued)
	if missing <= 0 {
		return nil
	}
	fmt.Fprintf(progress, "  parking %d messages\n", missing)
	l, err := newLot(ctx, s, size)
	if err != nil {
		return err
	}
	return l.fill(ctx, missing, progress)
}

// lot is the mesh whose messages are parked.
type lot struct {
	s       broker.Store
	mesh    wire.ID
	peers   []broker.PeerID
	content int // bytes of ciphertext

	mu  sync.Mutex
	err error // the first refusal
}

func newLot(ctx context.Context, s broker.Store, size int) (*lot, error) {
	now, l := time.Now(), &lot{s: s}
	rand.Read(l.mesh[:])
	owner := trust.NewSecretKey()
	mesh := broker.Mesh{ID: l.mesh, Owner: owner.Public(), Name: "parked", Genesis: trust.SignGenesis(owner, "parked", now.UnixMilli()), Created: now}
	founder := broker.Member{Mesh: l.mesh, Key: owner.Public(), Name: "parked", Role: "owner", Joined: now,
		Certificate: wire.Certificate{trust.SignFounder(owner, owner.Public(), "parked", now.UnixMilli())}}
	if err := s.CreateMesh(ctx, mesh, founder); err != nil {
		return nil, err
	}
	for range parkedRecipients {
		session := trust.NewSecretKey()
		word := trust.SignAttestation(owner, l.mesh, session.Public(), now.UnixMilli())
		id, err := s.PutPeer(ctx, broker.Peer{Mesh: l.mesh, Key: session.Public(), Member: owner.Public(), Attestation: &word, LastSeen: now})
		if err != nil {
			return nil, err
		}
		l.peers = append(l.peers, id)
	}
	return l, l.measure(owner, now, size)
}

// measure seals one message to learn how long all of them are.
func (l *lot) measure(owner trust.SecretKey, now time.Time, size int) error {
	from, to := trust.NewSecretKey(), trust.NewSecretKey().Public()
	shared, err := seal.NewShared(from, to)
	if err != nil {
		return err
	}
	word := trust.SignAttestation(owner, l.mesh, from.Public(), now.UnixMilli())
	h := seal.Header{
		Mode: wire.ModeDM, Mesh: l.mesh, SenderMember: owner.Public(), SenderSession: from.Public(), Recipient: to, Target: "parked/p1",
		Sent: now.UnixMilli(), Expires: now.UnixMilli() + 1, Priority: wire.PriorityNext, Seq: 1, Generation: 1, ID: idAt(now.UnixMilli()),
	}
	body := slices.Repeat([]byte("x"), size)
	env, err := seal.Direct(h, seal.Content{Type: "text/plain", Body: body}, seal.Sender{Session: from, Attestation: &word}, shared)
	l.content = len(env.Ciphertext)
	return err
}

// fill parks n messages, a few batches of the writer at a time.
func (l *lot) fill(ctx context.Context, n int, progress io.Writer) error {
	began := time.Now().Add(-parkedOver)
	flying := make(chan struct{}, 4096)
	for i := range n {
		at := began.Add(parkedOver * time.Duration(i) / time.Duration(n))
		select {
		case flying <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		l.s.Accept(l.message(at), func(_ broker.Accepted, err error) {
			if err != nil {
				l.mu.Lock()
				if l.err == nil {
					l.err = err
				}
				l.mu.Unlock()
			}
			<-flying
		})
		if i%100_000 == 99_999 {
			fmt.Fprintf(progress, "  %d parked\n", i+1)
		}
	}
	for range cap(flying) { // the last ones
		flying <- struct{}{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// message is what the broker would have made of a direct that was sent then.
func (l *lot) message(at time.Time) *broker.Message {
	m := &broker.Message{
		Mesh: l.mesh, Sender: l.peers[mathrand.IntN(parkedSenders)], ID: idAt(at.UnixMilli()), Mode: wire.ModeDM, Priority: wire.PriorityNext,
		Created: at, Expires: at.Add(7 * 24 * time.Hour), Nonce: make([]byte, 24), Ciphertext: make([]byte, l.content),
		Deliveries: []broker.NewDelivery{{Recipient: l.peers[mathrand.IntN(parkedRecipients)]}},
	}
	rand.Read(m.Hash[:])
	rand.Read(m.Nonce)
	rand.Read(m.Ciphertext)
	return m
}

// idAt makes a message's id as package client does: a UUID of version 7, which
// is in the order of time.
func idAt(ms int64) (id wire.ID) {
	rand.Read(id[6:]) // crypto/rand.Read never fails
	id[6], id[8] = id[6]&0x0f|0x70, id[8]&0x3f|0x80
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return id
}
