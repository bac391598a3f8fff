package storetest

import (
	"bytes"
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// ModelOpener opens a fresh, empty store that is closed when t ends. crash ends
// the latest store like a kill and opens what that leaves; restart closes it and
// opens it again. A store before the latest is never used again.
type ModelOpener func(t testing.TB) (s broker.Store, crash, restart func() broker.Store)

// soakChecks is how many checks RunModel makes with SOAK set, unless
// -rapid.checks says otherwise.
const soakChecks = "10000"

// RunModel drives a store and a model of it in memory by random steps, and
// compares all that both know after each step.
func RunModel(t *testing.T, open ModelOpener) {
	if os.Getenv("SOAK") != "" && !given("rapid.checks") {
		defer setFlag(t, "rapid.checks", soakChecks)()
	}
	checks, steps := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(t, rt, open)
		rt.Repeat(m.actions())
		checks, steps = checks+1, steps+m.step
	})
	t.Logf("%d checks, %d steps, each followed by a comparison", checks, steps)
}

// ModelFinds runs the model on a store that is wrong on purpose and returns how
// the difference was reported. A checker that cannot fail proves nothing.
func ModelFinds(t *testing.T, open ModelOpener) string {
	t.Helper()
	// The failure is wanted: neither keep nor shrink it.
	defer setFlag(t, "rapid.nofailfile", "true")()
	defer setFlag(t, "rapid.shrinktime", "0s")()
	r := &recorder{T: t}
	done := make(chan struct{})
	go func() { // FailNow ends its goroutine
		defer close(done)
		rapid.Check(r, func(rt *rapid.T) {
			m := newModel(t, rt, open)
			rt.Repeat(m.actions())
		})
	}()
	<-done
	return r.text
}

func given(name string) (found bool) {
	flag.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}

// setFlag sets one of rapid's flags and returns what undoes it.
func setFlag(t *testing.T, name, value string) (undo func()) {
	t.Helper()
	before := flag.Lookup(name).Value.String()
	if err := flag.Set(name, value); err != nil {
		t.Fatal(err)
	}
	return func() { _ = flag.Set(name, before) }
}

// recorder is a rapid.TB whose failure is data.
type recorder struct {
	*testing.T
	failed bool
	text   string
}

func (r *recorder) Logf(string, ...any)          {}
func (r *recorder) Log(...any)                   {}
func (r *recorder) Fail()                        { r.failed = true }
func (r *recorder) Failed() bool                 { return r.failed }
func (r *recorder) FailNow()                     { r.failed = true; runtime.Goexit() }
func (r *recorder) Error(args ...any)            { r.failed, r.text = true, r.text+fmt.Sprintln(args...) }
func (r *recorder) Errorf(f string, args ...any) { r.Error(fmt.Sprintf(f, args...)) }
func (r *recorder) Fatal(args ...any)            { r.Error(args...); r.FailNow() }
func (r *recorder) Fatalf(f string, args ...any) { r.Error(fmt.Sprintf(f, args...)); r.FailNow() }

// scope is the testing.TB of one check: rapid's T has no TempDir, and what a
// check opens must end with the check and not with the test.
type scope struct {
	testing.TB // the test; for its private method alone
	rt         *rapid.T
}

func (s scope) Helper()                 { s.rt.Helper() }
func (s scope) Name() string            { return s.TB.Name() }
func (s scope) Log(a ...any)            { s.rt.Log(a...) }
func (s scope) Logf(f string, a ...any) { s.rt.Logf(f, a...) }

// The first difference ends a check: what follows from it explains nothing.
func (s scope) Error(a ...any)            { s.rt.Fatal(a...) }
func (s scope) Errorf(f string, a ...any) { s.rt.Fatalf(f, a...) }
func (s scope) Fatal(a ...any)            { s.rt.Fatal(a...) }
func (s scope) Fatalf(f string, a ...any) { s.rt.Fatalf(f, a...) }
func (s scope) Fail()                     { s.rt.Fail() }
func (s scope) FailNow()                  { s.rt.FailNow() }
func (s scope) Failed() bool              { return s.rt.Failed() }
func (s scope) Cleanup(f func())          { s.rt.Cleanup(f) }
func (s scope) Context() context.Context  { return s.rt.Context() }
func (s scope) TempDir() string {
	// In memory where that is easy: what counts here is what the store tells, and
	// it waits for the disk thousands of times.
	dir, err := os.MkdirTemp("/dev/shm", "model")
	if err != nil {
		dir, err = os.MkdirTemp("", "model")
	}
	if err != nil {
		s.rt.Fatal(err)
	}
	s.rt.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// model is what the store must hold, in the plainest form: lists that are
// searched from end to end.
type model struct {
	*world
	crash, restart func() broker.Store

	now     time.Time
	step    int
	members []broker.Member // of every mesh, without the removed
	blocks  []broker.Block  // of the first mesh
	pauses  []broker.Pause  // likewise, resumes among them
	version map[wire.ID]int64
	gen     map[wire.ID]uint64
	known   []*modelPeer      // every key that was ever put
	stored  []*modelMessage   // tombstones included, in the order of their numbers
	pruned  []*broker.Message // what must be unknown
	last    int64             // the highest number that was given
	names   int
}

type modelPeer struct {
	broker.Peer
	forgotten bool
	removed   bool // its member was: the broker admits it no more
}

type modelMessage struct {
	*broker.Message
	first int64
	ends  []modelEnd // by delivery
}

type modelEnd struct {
	state    wire.State
	code     wire.Code
	at       time.Time
	attempts int
}

func newModel(t *testing.T, rt *rapid.T, open ModelOpener) *model {
	tb := scope{t, rt}
	w := &world{TB: tb, ctx: context.Background(), peers: make(map[broker.PeerID]broker.Peer)}
	m := &model{world: w, now: t0, version: make(map[wire.ID]int64), gen: make(map[wire.ID]uint64)}
	w.s, m.crash, m.restart = open(tb)
	w.mesh, w.founder = w.newMesh()
	other, stranger := w.newMesh()
	for _, f := range []broker.Member{w.founder, stranger} {
		m.members = append(m.members, f)
		m.version[f.Mesh], m.gen[f.Mesh] = 1, 1
		m.addPeer(f)
	}
	m.addPeer(w.founder)
	w.equal(other.Generation, uint64(1))
	return m
}

// addPeer puts a new session of a member.
func (m *model) addPeer(of broker.Member) {
	m.Helper()
	p := &modelPeer{Peer: broker.Peer{Mesh: of.Mesh, Key: m.key(), Member: of.Key, LastSeen: m.now}}
	m.register(p, m.put(p.Peer))
}

// register notes the number a new row got, which must be nobody else's.
func (m *model) register(p *modelPeer, id broker.PeerID) {
	m.Helper()
	for _, q := range m.known {
		if q != p && q.ID == id {
			m.Fatalf("number %d was given to a second key", id)
		}
	}
	p.ID = id
	if !slices.Contains(m.known, p) {
		m.known = append(m.known, p)
	}
}

// live returns the peers of a mesh that can send and receive.
func (m *model) live(mesh wire.ID) (out []*modelPeer) {
	for _, p := range m.known {
		if p.Mesh == mesh && !p.forgotten {
			out = append(out, p)
		}
	}
	return out
}

// named reports whether a stored message names a peer.
func (m *model) named(id broker.PeerID) bool {
	return slices.ContainsFunc(m.stored, func(s *modelMessage) bool {
		return s.Sender == id || slices.ContainsFunc(s.Deliveries, func(d broker.NewDelivery) bool { return d.Recipient == id })
	})
}

func (s *modelMessage) live() bool {
	return slices.ContainsFunc(s.ends, func(e modelEnd) bool { return e.state == wire.StateQueued })
}

// find returns the message and the index of a delivery.
func (m *model) find(number int64) (*modelMessage, int) {
	for _, s := range m.stored {
		if i := number - s.first; i >= 0 && i < int64(len(s.ends)) {
			return s, int(i)
		}
	}
	return nil, 0
}

func (m *model) message(sender broker.PeerID, id wire.ID) *modelMessage {
	for _, s := range m.stored {
		if s.Sender == sender && s.ID == id {
			return s
		}
	}
	return nil
}

// known returns what a message's sender may be told, in order of deliveries.
func (m *model) outcomes(s *modelMessage) (out []broker.Outcome) {
	for i, e := range s.ends {
		out = append(out, m.outcome(s.Message, s.first, i, e.state, e.code, e.at))
	}
	return out
}

// queuedFor returns the deliveries that wait for a peer, in the order they are pushed.
func (m *model) queuedFor(to broker.PeerID) (out []broker.Delivery) {
	for _, s := range m.stored {
		for i, e := range s.ends {
			if s.Deliveries[i].Recipient == to && e.state == wire.StateQueued {
				out = append(out, broker.Delivery{Number: s.first + int64(i), Message: s.first, Sender: s.Sender, ID: s.ID, Mode: s.Mode, Priority: s.Priority,
					Created: s.Created, Expires: s.Expires, Nonce: s.Nonce, Ciphertext: s.Ciphertext, Wrap: s.Deliveries[i].Wrap, Attempts: e.attempts})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b broker.Delivery) int {
		return cmp.Or(cmp.Compare(a.Priority.Rank(), b.Priority.Rank()), cmp.Compare(a.Number, b.Number))
	})
	return out
}

// compare holds everything that the store tells against the model.
func (m *model) compare(*rapid.T) {
	m.step++
	var all int64
	var oldest time.Time
	for _, id := range m.meshes {
		var want broker.Mesh
		for _, s := range m.stored {
			for i, e := range s.ends {
				if s.Mesh == id && e.state == wire.StateQueued {
					want.Queued, want.QueuedBytes = want.Queued+1, want.QueuedBytes+s.Size(s.Deliveries[i])
					if oldest.IsZero() || s.Created.Before(oldest) {
						oldest = s.Created
					}
				}
			}
		}
		got, err := m.s.Mesh(m.ctx, id)
		m.ok(err)
		m.equal([]int64{got.Queued, got.QueuedBytes, got.MembersVersion, int64(got.Generation)},
			[]int64{want.Queued, want.QueuedBytes, m.version[id], int64(m.gen[id])})
		all += want.Queued
		m.compareGovern(id)
		m.comparePeers(id)
	}
	st, err := m.s.Stats(m.ctx)
	m.ok(err)
	m.equal([]int64{st.Meshes, st.Members, st.Queued}, []int64{int64(len(m.meshes)), int64(len(m.members)), all})
	m.equal(st.OldestQueued, oldest)
	m.compareMessages()
}

func (m *model) comparePeers(mesh wire.ID) {
	m.Helper()
	got, err := m.s.Peers(m.ctx, mesh)
	m.ok(err)
	var want []broker.Peer
	for _, p := range m.live(mesh) {
		want = append(want, p.Peer)
	}
	byID := func(a, b broker.Peer) int { return cmp.Compare(a.ID, b.ID) }
	slices.SortFunc(want, byID)
	slices.SortFunc(got, byID)
	m.equal(got, want)
	for _, p := range m.known {
		if p.Mesh == mesh {
			m.compareQueue(p.ID, 1<<20)
		}
	}
}

func (m *model) compareQueue(to broker.PeerID, limit int) {
	m.Helper()
	want := m.queuedFor(to)
	usage := make(map[broker.PeerID]broker.Usage)
	for _, d := range want {
		u := usage[d.Sender]
		usage[d.Sender] = broker.Usage{Sender: d.Sender, Count: u.Count + 1, Bytes: u.Bytes + d.Size()}
	}
	got := m.queued(to, limit)
	want = want[:min(limit, len(want))]
	if len(got) != len(want) {
		m.Fatalf("%d deliveries wait for peer %d, want %d", len(got), to, len(want))
	}
	for i := range got {
		g, e := got[i], want[i]
		if !bytes.Equal(g.Nonce, e.Nonce) || !bytes.Equal(g.Ciphertext, e.Ciphertext) || !bytes.Equal(g.Wrap, e.Wrap) {
			m.Errorf("delivery %d has another content", g.Number)
		}
		g.Nonce, g.Ciphertext, g.Wrap, e.Nonce, e.Ciphertext, e.Wrap = nil, nil, nil, nil, nil, nil
		m.equal(g, e)
	}
	sums, err := m.s.Usage(m.ctx, to)
	m.ok(err)
	m.equal(len(sums), len(usage))
	for _, u := range sums {
		m.equal(u, usage[u.Sender])
	}
}

// compareMessages asks Status for everything, as each member, and Lookup for
// some: which ones changes from step to step.
func (m *model) compareMessages() {
	m.Helper()
	var ids []wire.ID
	for _, s := range m.stored {
		if !slices.Contains(ids, s.ID) {
			ids = append(ids, s.ID)
		}
	}
	for _, p := range m.pruned {
		if !slices.Contains(ids, p.ID) {
			ids = append(ids, p.ID)
		}
	}
	for _, member := range m.members {
		var want []broker.Outcome
		for _, id := range ids {
			for _, s := range m.stored {
				if s.ID == id && s.Mesh == member.Mesh && m.peers[s.Sender].Member == member.Key {
					want = append(want, m.outcomes(s)...)
				}
			}
		}
		got, err := m.s.Status(m.ctx, member.Mesh, member.Key, ids)
		m.ok(err)
		m.same(got, want)
	}
	for i := range min(4, len(m.stored)) {
		s := m.stored[(m.step*4+i)%len(m.stored)]
		m.same(m.lookup(s.Message), m.outcomes(s))
	}
	for _, p := range m.pruned {
		if m.message(p.Sender, p.ID) == nil {
			_, _, err := m.s.Lookup(m.ctx, p.Sender, p.ID)
			m.fails(err, broker.ErrNotFound)
		}
	}
}

// same compares outcomes; none is none, nil or empty.
func (m *model) same(got, want []broker.Outcome) {
	m.Helper()
	if len(got)+len(want) > 0 {
		m.equal(got, want)
	}
}
