// Package storetest is the contract of broker.Store as tests. Every store runs
// all of them.
package storetest

import (
	"context"
	"encoding/binary"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// Opener opens a fresh, empty store that is closed when t ends. reopen opens
// what a crash at that moment would leave, as another store; the first stays
// open. It may be called from the writer, in a done callback.
type Opener func(t testing.TB) (s broker.Store, reopen func() broker.Store)

// Run runs the suite.
func Run(t *testing.T, open Opener) {
	for _, group := range [][]test{brokerTests, memberTests, removeTests, governTests, inviteTests, peerTests, acceptTests, settleTests, endTests, raceTests} {
		for _, tt := range group {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, open)
				tt.run(w)
				w.recount()
			})
		}
	}
}

type test struct {
	name string
	run  func(w *world)
}

// t0 is when every test begins.
var t0 = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// world is a store with one mesh, and what a test needs to speak about it.
type world struct {
	testing.TB
	ctx    context.Context
	s      broker.Store
	reopen func() broker.Store
	n      uint64

	mesh    broker.Mesh
	founder broker.Member
	alice   broker.PeerID // sessions of the founder
	bob     broker.PeerID
	peers   map[broker.PeerID]broker.Peer // every peer that was put
	meshes  []wire.ID
	stored  map[int64]broker.Settlement // of what accept stored, by delivery
}

func newWorld(t *testing.T, open Opener) *world {
	w := &world{TB: t, ctx: t.Context(), peers: make(map[broker.PeerID]broker.Peer), stored: make(map[int64]broker.Settlement)}
	w.s, w.reopen = open(t)
	w.mesh, w.founder = w.newMesh()
	w.alice = w.session(w.founder.Key)
	w.bob = w.session(w.founder.Key)
	return w
}

// bytes returns n bytes that no other call returns.
func (w *world) bytes(n int) []byte {
	w.n++
	b := make([]byte, max(n, 8))
	for i := range b {
		b[i] = byte(w.n) ^ byte(i*7)
	}
	binary.BigEndian.PutUint64(b, w.n<<8|0xa5)
	return b[:n]
}

func (w *world) key() (k wire.Key) { copy(k[:], w.bytes(32)); return k }
func (w *world) id() (id wire.ID)  { copy(id[:], w.bytes(16)); return id }

func (w *world) signed() (s wire.Signed) {
	s.Body = w.bytes(40)
	copy(s.Sig[:], w.bytes(64))
	return s
}

func (w *world) newMesh() (broker.Mesh, broker.Member) {
	w.Helper()
	m := broker.Mesh{ID: w.id(), Owner: w.key(), Name: "mesh", Genesis: w.signed(), Created: t0}
	f := broker.Member{Mesh: m.ID, Key: w.key(), Name: "founder", Role: "owner", Certificate: wire.Certificate{w.signed()}, Joined: t0}
	w.ok(w.s.CreateMesh(w.ctx, m, f))
	w.meshes = append(w.meshes, m.ID)
	m.MembersVersion, m.Generation = 1, 1
	return m, f
}

// getMesh returns the mesh as stored.
func (w *world) getMesh() broker.Mesh {
	w.Helper()
	m, err := w.s.Mesh(w.ctx, w.mesh.ID)
	w.ok(err)
	return m
}

func (w *world) newInvite(uses int) broker.Invite {
	w.Helper()
	in := broker.Invite{Mesh: w.mesh.ID, ID: w.id(), Capability: w.signed(), Blob: w.bytes(48), Generation: w.getMesh().Generation,
		MaxUses: uses, Expires: t0.Add(time.Hour), Created: t0}
	w.ok(w.s.PutInvite(w.ctx, in))
	return in
}

// joining makes a join by an invite.
func (w *world) joining(in broker.Invite, name string) broker.Join {
	return broker.Join{Invite: in.ID, Now: t0, Member: broker.Member{Mesh: in.Mesh, Key: w.key(), Name: name, Role: "member", Invite: in.ID,
		Certificate: wire.Certificate{in.Capability, w.signed(), w.signed()}, Joined: t0}}
}

// join admits a member by an invite of its own.
func (w *world) join(name string) broker.Member {
	w.Helper()
	j := w.joining(w.newInvite(1), name)
	_, err := w.s.Join(w.ctx, j)
	w.ok(err)
	return j.Member
}

func (w *world) put(p broker.Peer) broker.PeerID {
	w.Helper()
	id, err := w.s.PutPeer(w.ctx, p)
	w.ok(err)
	if _, known := w.peers[id]; !known {
		w.peers[id] = p
	}
	return id
}

// session puts a new session of a member, seen at t0.
func (w *world) session(member wire.Key) broker.PeerID {
	w.Helper()
	return w.put(broker.Peer{Mesh: w.mesh.ID, Key: w.key(), Member: member, LastSeen: t0})
}

// message makes a direct from alice.
func (w *world) message(to ...broker.PeerID) *broker.Message {
	m := &broker.Message{Mesh: w.mesh.ID, Sender: w.alice, ID: w.id(), Mode: wire.ModeDM, Priority: wire.PriorityNext,
		Created: t0, Expires: t0.Add(time.Hour), Nonce: w.bytes(24), Ciphertext: w.bytes(100)}
	copy(m.Hash[:], w.bytes(32))
	for _, p := range to {
		d := broker.NewDelivery{Recipient: p}
		if len(to) > 1 {
			m.Mode = wire.ModeGroup
			d.Wrap = w.bytes(72)
		}
		m.Deliveries = append(m.Deliveries, d)
	}
	return m
}

type acceptResult struct {
	broker.Accepted
	err error
}

// accept waits for done.
func (w *world) accept(m *broker.Message) (broker.Accepted, error) {
	w.Helper()
	got := make(chan acceptResult, 2)
	w.s.Accept(m, func(a broker.Accepted, err error) { got <- acceptResult{a, err} })
	r := wait(w, got)
	if r.err == nil && !r.Duplicate {
		for i := range m.Deliveries {
			w.stored[r.First+int64(i)] = end(m, r.First, i)
		}
	}
	return r.Accepted, r.err
}

// end is a settlement of a message's i-th delivery.
func end(m *broker.Message, first int64, i int) broker.Settlement {
	d := m.Delivery(i, first)
	e := d.Settlement(m.Mesh, m.Deliveries[i].Recipient)
	e.State, e.At = wire.StateDelivered, t0.Add(time.Second)
	return e
}

// send accepts a message that must be stored.
func (w *world) send(m *broker.Message) int64 {
	w.Helper()
	a, err := w.accept(m)
	w.ok(err)
	if a.Duplicate || a.First <= 0 || a.Outcomes != nil {
		w.Fatalf("accepted as %+v, want a new message", a)
	}
	return a.First
}

func (w *world) settle(s ...broker.Settlement) []bool {
	w.Helper()
	got := make(chan []bool, 2)
	w.s.Settle(s, func(settled []bool, err error) {
		if err != nil {
			w.Error(err)
		}
		got <- settled
	})
	return wait(w, got)
}

// delivered is a settlement of a delivery that send or accept stored, or of one
// that is not there.
func (w *world) delivered(n int64, to broker.PeerID) broker.Settlement {
	e, ok := w.stored[n]
	if !ok {
		e = broker.Settlement{Mesh: w.mesh.ID, Message: n, Delivery: n, Mode: wire.ModeDM, State: wire.StateDelivered, At: t0.Add(time.Second)}
	}
	e.Recipient = to
	return e
}

// bounced is likewise, with a code.
func (w *world) bounced(n int64, to broker.PeerID, code wire.Code, at time.Time) broker.Settlement {
	e := w.delivered(n, to)
	e.State, e.Code, e.At = wire.StateBounced, code, at
	return e
}

// queue returns the numbers that are queued for a peer.
func (w *world) queue(to broker.PeerID) (numbers []int64) {
	w.Helper()
	for _, d := range w.queued(to, 1<<20) {
		numbers = append(numbers, d.Number)
	}
	return numbers
}

func (w *world) queued(to broker.PeerID, limit int) []broker.Delivery {
	w.Helper()
	q, _, err := w.s.Queued(w.ctx, to, broker.Place{}, limit, 1<<40)
	w.ok(err)
	return q
}

// lookup returns the outcomes of a stored message.
func (w *world) lookup(m *broker.Message) []broker.Outcome {
	w.Helper()
	hash, known, err := w.s.Lookup(w.ctx, m.Sender, m.ID)
	w.ok(err)
	if hash != m.Hash {
		w.Errorf("hash %x, want %x", hash, m.Hash)
	}
	return known
}

// outcome is what the store should know of delivery i of a message.
func (w *world) outcome(m *broker.Message, first int64, i int, state wire.State, code wire.Code, at time.Time) broker.Outcome {
	d := m.Deliveries[i]
	return broker.Outcome{Delivery: first + int64(i), Mesh: m.Mesh, Sender: m.Sender, SenderKey: w.peers[m.Sender].Key, ID: m.ID,
		Recipient: d.Recipient, RecipientKey: w.peers[d.Recipient].Key, State: state, Code: code, At: at, Size: m.Size(d)}
}

// recount holds the counters of every mesh against the queues of every peer.
func (w *world) recount() {
	w.Helper()
	var all int64
	for _, id := range w.meshes {
		var count, bytes int64
		for p, peer := range w.peers {
			if peer.Mesh != id {
				continue
			}
			usage := make(map[broker.PeerID]broker.Usage)
			for _, d := range w.queued(p, 1<<20) {
				u := usage[d.Sender]
				usage[d.Sender] = broker.Usage{Sender: d.Sender, Count: u.Count + 1, Bytes: u.Bytes + d.Size()}
				count++
				bytes += d.Size()
			}
			got, err := w.s.Usage(w.ctx, p)
			w.ok(err)
			for _, u := range got {
				w.equal(u, usage[u.Sender])
			}
			w.equal(len(got), len(usage))
		}
		m, err := w.s.Mesh(w.ctx, id)
		w.ok(err)
		if m.Queued != count || m.QueuedBytes != bytes {
			w.Errorf("mesh counts %d deliveries of %d bytes, its queues hold %d of %d", m.Queued, m.QueuedBytes, count, bytes)
		}
		all += count
	}
	st, err := w.s.Stats(w.ctx)
	w.ok(err)
	if st.Queued != all || int(st.Meshes) != len(w.meshes) || st.OldestQueued.IsZero() != (all == 0) {
		w.Errorf("stats %+v, want %d meshes and %d queued", st, len(w.meshes), all)
	}
}

func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) fails(err, want error) {
	w.Helper()
	if !errors.Is(err, want) {
		w.Errorf("error %v, want %v", err, want)
	}
}

func (w *world) equal(got, want any) {
	w.Helper()
	if !reflect.DeepEqual(got, want) {
		w.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func (w *world) sameNumbers(got []int64, want ...int64) {
	w.Helper()
	if !slices.Equal(got, want) {
		w.Errorf("deliveries %d, want %d", got, want)
	}
}

// wait returns what arrives on c, which must be soon.
func wait[T any](w *world, c <-chan T) (v T) {
	w.Helper()
	select {
	case v = <-c:
	case <-time.After(30 * time.Second):
		w.Fatal("done was not called")
	}
	return v
}
