package sqlite_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/disktest"
	"github.com/claudemesh/claudemesh/internal/sqlite"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// newDisk makes a disk whose power can be cut, and a directory for its files.
func newDisk(t testing.TB) (d *disktest.Disk, path string) {
	t.Helper()
	dir := shmDir(t)
	t.Cleanup(func() { os.RemoveAll(dir) })
	d, err := disktest.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, filepath.Join(dir, "broker.db")
}

// on are the options of a store on such a disk. A machine without power runs no
// OnFatal.
func on(d *disktest.Disk, query string) sqlite.Options {
	return sqlite.Options{OnFatal: func(error) {}}.With("&vfs=" + d.Name() + query)
}

// smallWAL makes SQLite fold the WAL into the file after a few commits.
const smallWAL = "&_pragma=wal_autocheckpoint(40)"

// note is one message and what its store has said of it.
type note struct {
	*broker.Message
	first    int64
	accepted bool // the store said so, or was found to have it after a cut
	tried    bool // to settle
	settled  bool // the store said so
}

// notes hold a store to its word, over any number of cuts.
type notes struct {
	mu   sync.Mutex
	list []*note

	accepts, settles, lost, late int // late: stored, and cut before it said so
}

// send accepts messages, some in flight at once, and settles some, until the store
// fails; or, should it never do what the power is cut at, long enough to tell.
func (n *notes) send(s *sqlite.Store, mesh wire.ID, peer broker.PeerID, rng *rand.Rand) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, 1+rng.IntN(8))
	stop := make(chan struct{})
	var once sync.Once
	fail := func() { once.Do(func() { close(stop) }) }
	for range 1000 {
		select {
		case slots <- struct{}{}:
		case <-stop:
			return
		}
		m := message(mesh, peer, rng.IntN(3000))
		for range rng.IntN(3) {
			m.Mode, m.Deliveries = wire.ModeGroup, append(m.Deliveries, broker.NewDelivery{Recipient: peer, Wrap: m.Hash[:]})
		}
		for i := range m.Ciphertext {
			m.Ciphertext[i] = m.ID[i%8]
		}
		one, end := &note{Message: m}, rng.IntN(3) == 0
		n.mu.Lock()
		n.list = append(n.list, one)
		n.mu.Unlock()
		wg.Add(1)
		done := func() { <-slots; wg.Done() }
		s.Accept(m, func(a broker.Accepted, err error) {
			if err != nil {
				fail()
				done()
				return
			}
			n.mu.Lock()
			defer n.mu.Unlock()
			one.first, one.accepted, one.tried = a.First, true, end
			n.accepts++
			if !end {
				done()
				return
			}
			s.Settle(one.ends(), func(_ []bool, err error) {
				n.mu.Lock()
				defer n.mu.Unlock()
				if one.settled = err == nil; one.settled {
					n.settles++
				}
				done()
			})
		})
	}
}

// ends settles all deliveries of a message.
func (o *note) ends() (e []broker.Settlement) {
	for i := range o.Deliveries {
		e = append(e, delivered(o.Message, o.first, i))
	}
	return e
}

// audit returns every word that a store, opened again, does not keep.
func (n *notes) audit(s *sqlite.Store, peer broker.PeerID) (broken []error) {
	q, err := queued(s, peer)
	if err != nil {
		return []error{err}
	}
	waiting := make(map[int64]broker.Delivery)
	for _, d := range q {
		waiting[d.Number] = d
	}
	for _, o := range n.list {
		if err := n.auditOne(s, o, waiting); err != nil {
			broken = append(broken, fmt.Errorf("message %x: %w", o.ID[:8], err))
		}
	}
	if len(waiting) > 0 {
		broken = append(broken, fmt.Errorf("%d deliveries wait that nobody sent", len(waiting)))
	}
	return broken
}

func (n *notes) auditOne(s *sqlite.Store, o *note, waiting map[int64]broker.Delivery) error {
	hash, out, err := s.Lookup(bg, o.Sender, o.ID)
	switch {
	case errors.Is(err, broker.ErrNotFound) && o.accepted:
		n.lost++
		o.accepted, o.settled, o.tried = false, false, false // told once
		return errors.New("accepted and lost")
	case errors.Is(err, broker.ErrNotFound):
		return nil
	case err != nil:
		return err
	case hash != o.Hash || len(out) != len(o.Deliveries):
		return fmt.Errorf("another hash, or %d deliveries of %d", len(out), len(o.Deliveries))
	case o.accepted && o.first != out[0].Delivery:
		return fmt.Errorf("number %d, was %d", out[0].Delivery, o.first)
	case !o.accepted:
		n.late++
		o.first, o.accepted = out[0].Delivery, true
	}
	for i, d := range out {
		held, there := waiting[d.Delivery]
		delete(waiting, d.Delivery)
		switch {
		case d.State != out[0].State:
			return fmt.Errorf("half settled")
		case there != (d.State == wire.StateQueued):
			return fmt.Errorf("%s, and waits: %v", d.State, there)
		case !there && !o.tried:
			return errors.New("settled by nobody")
		case there && o.settled:
			n.lost++
			o.settled = false
			return errors.New("settled, and waits again")
		case there && (!bytes.Equal(held.Ciphertext, o.Ciphertext) || !bytes.Equal(held.Wrap, o.Deliveries[i].Wrap)):
			return errors.New("another body")
		}
	}
	return nil
}

// moments are when the power is cut: at the nth of some operations.
var moments = []struct {
	name string
	most int
	is   func(disktest.Op) bool
}{
	{"any", 300, func(disktest.Op) bool { return true }},
	{"sync", 60, func(o disktest.Op) bool { return o.Action == disktest.Sync }},
	{"commit", 60, func(o disktest.Op) bool { return o.Action == disktest.Sync && o.File == disktest.WAL }},
	{"checkpoint", 60, func(o disktest.Op) bool { return o.Action == disktest.Write && o.File == disktest.Database }},
	{"checkpoint's sync", 4, func(o disktest.Op) bool { return o.Action == disktest.Sync && o.File == disktest.Database }},
	{"close", 40, nil},
}

// nth holds at the nth operation of a kind.
func nth(n int, is func(disktest.Op) bool) func(disktest.Op) bool {
	return func(o disktest.Op) bool {
		if is(o) {
			n--
		}
		return n <= 0
	}
}

// trial is the life of one database under load, with many cuts.
type trial struct {
	notes
	disk  *disktest.Disk
	path  string
	query string // of the store's connections
	torn  bool   // part of what was not synced survives
	cuts  map[string]int
	seen  []error // broken promises
}

// life opens the store, holds it to its word, loads it and cuts the power.
func (tr *trial) life(t *testing.T, seed uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 3))
	s, err := sqlite.Open(bg, tr.path, on(tr.disk, tr.query))
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	id, peer := mesh(t, s)
	for _, err := range tr.audit(s, peer) {
		tr.seen = append(tr.seen, fmt.Errorf("seed %d: %w", seed, err))
	}
	moment := moments[seed%uint64(len(moments))]
	tr.cuts[moment.name]++
	n := 1 + rng.IntN(moment.most)
	if moment.is != nil {
		tr.disk.CutAt(nth(n, moment.is))
		var wg sync.WaitGroup
		for range 8 {
			own := rand.New(rand.NewPCG(rng.Uint64(), 4))
			wg.Go(func() { tr.send(s, id, peer, own) })
		}
		wg.Wait()
	} else {
		for range 30 {
			m := message(id, peer, 500)
			first, err := accept(s, m)
			if err != nil {
				t.Fatal(err)
			}
			tr.accepts++
			tr.list = append(tr.list, &note{Message: m, first: first, accepted: true})
		}
		tr.disk.CutAt(nth(n, func(disktest.Op) bool { return true }))
	}
	_ = s.Close() // what it says is heard by nobody
	tr.disk.Cut()
	var some *rand.Rand
	if tr.torn {
		some = rng
	}
	if err := tr.disk.PowerOn(some); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	if err := sqlite.Check(bg, crash(t, tr.path)); err != nil {
		t.Errorf("seed %d, at %s %d: %v", seed, moment.name, n, err)
	}
}

// powerCuts runs lives, a new database after every ten, and returns what was broken.
func powerCuts(t *testing.T, cuts int, query string, torn bool) *trial {
	all := &trial{cuts: map[string]int{}}
	for from := 0; from < cuts; from += 10 {
		tr := trial{query: query, torn: torn, cuts: all.cuts}
		tr.disk, tr.path = newDisk(t)
		for i := from; i < min(from+10, cuts); i++ {
			tr.life(t, uint64(i))
		}
		s, err := sqlite.Open(bg, tr.path, on(tr.disk, query))
		if err != nil {
			t.Fatal(err)
		}
		_, peer := mesh(t, s)
		all.seen = append(append(all.seen, tr.seen...), tr.audit(s, peer)...)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		all.accepts, all.settles, all.lost, all.late = all.accepts+tr.accepts, all.settles+tr.settles, all.lost+tr.lost, all.late+tr.late
	}
	t.Logf("%d cuts %v: %d messages accepted, %d settled, %d of both lost; %d stored that the store had no time to accept",
		cuts, all.cuts, all.accepts, all.settles, all.lost, all.late)
	return all
}

// TestPowerCutAtStart: a new database, cut at every operation of its making, starts
// again; and so it does while it is being started again.
func TestPowerCutAtStart(t *testing.T) {
	t.Parallel()
	var cuts, again int
	step := 1
	if slow {
		step = 13
	}
	for seed := range uint64(long(3, 20)) {
		for n, tripped := 1, true; tripped; n += step {
			tripped = cutAtStart(t, seed, n, &again)
			cuts++
		}
	}
	t.Logf("%d cuts of first starts, %d of the starts after", cuts, again)
}

// cutAtStart cuts a first start at its nth operation, if it has as many.
func cutAtStart(t *testing.T, seed uint64, n int, again *int) (tripped bool) {
	t.Helper()
	d, path := newDisk(t)
	rng := rand.New(rand.NewPCG(seed, uint64(n)))
	var some *rand.Rand
	if seed > 0 {
		some = rng
	}
	d.CutAt(nth(n, func(disktest.Op) bool { return true }))
	for i := range 3 {
		err := firstLife(d, path)
		select {
		case <-d.Dark():
		default:
			if err == nil {
				err = sqlite.Check(bg, path)
			}
			if err != nil {
				t.Fatalf("seed %d, after a cut at %d of the first start: %v", seed, n, err)
			}
			return i > 0
		}
		*again += min(i, 1)
		if err := d.PowerOn(some); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			d.CutAt(nth(1+rng.IntN(3*n), func(disktest.Op) bool { return true }))
		}
	}
	t.Fatalf("seed %d, at %d: three cuts", seed, n)
	return false
}

// firstLife starts a store, writes a little and stops it.
func firstLife(d *disktest.Disk, path string) error {
	ctx, cancel := context.WithCancel(bg)
	defer cancel()
	go func(dark <-chan struct{}) { // goose would try for three seconds
		select {
		case <-dark:
			cancel()
		case <-ctx.Done():
		}
	}(d.Dark())
	s, err := sqlite.Open(ctx, path, on(d, ""))
	if err != nil {
		return err
	}
	err = s.CreateMesh(bg, broker.Mesh{ID: wire.ID{1}, Owner: wire.Key{1}, Name: "m", Created: now},
		broker.Member{Mesh: wire.ID{1}, Key: wire.Key{2}, Name: "f", Role: "owner", Joined: now})
	return errors.Join(err, s.Close())
}

// long is how often a test does what it does.
func long(short, soak int) int {
	switch {
	case os.Getenv("SOAK") != "":
		return soak
	case slow:
		return max(1, short/4)
	}
	return short
}

// TestPowerCut: what was accepted or settled is so after a power cut, at any moment,
// that takes every write since the last sync, or all but some of their sectors. A
// store that commits without fsync would be found.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	for _, torn := range []bool{false, true} {
		t.Run(fmt.Sprintf("torn=%v", torn), func(t *testing.T) {
			for _, err := range powerCuts(t, long(20, 300), smallWAL, torn).seen {
				t.Error(err)
			}
		})
	}
	t.Run("synchronous=NORMAL is caught", func(t *testing.T) {
		if all := powerCuts(t, long(12, 60), smallWAL+"&_sync=NORMAL", false); all.lost == 0 {
			t.Error("nothing was lost: this test cannot fail")
		}
	})
}
