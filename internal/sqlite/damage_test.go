package sqlite_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/sqlite"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// sent is one message of a history: the step that stored it and, per delivery,
// the step that ended it.
type sent struct {
	*broker.Message
	first    int64
	accepted int
	ends     []ended
}

type ended struct {
	step  int // 0: it waits
	state wire.State
	code  wire.Code
}

// history is a database and its WAL as a kill leaves them, and what they hold.
// Every step was one commit, those up to folded are in the database file.
type history struct {
	db, wal []byte
	mesh    wire.ID
	peers   []broker.PeerID
	sent    []*sent
	steps   int
	folded  int
}

// makeHistory sends and settles, folds the WAL into the file once, and copies
// both from a done callback, that is while the store runs.
func makeHistory(t *testing.T, messages int) *history {
	rng := rand.New(rand.NewPCG(7, 7))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	dir := shmDir(t)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "broker.db")
	s := open(t, path)
	defer s.Close()
	h := &history{}
	var peer broker.PeerID
	h.mesh, peer = mesh(t, s)
	h.peers = []broker.PeerID{peer}
	for i := range 3 {
		p, err := s.PutPeer(bg, broker.Peer{Mesh: h.mesh, Key: wire.Key{9, byte(i)}, Member: wire.Key{2}, LastSeen: now})
		if err != nil {
			t.Fatal(err)
		}
		h.peers = append(h.peers, p)
	}
	for i := range messages {
		if i == messages*9/10 { // the rest is in the WAL, which covers few of the file's pages
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			h.folded = h.steps
			s = open(t, path)
			defer s.Close()
		}
		m := message(h.mesh, h.peers[rng.IntN(4)], 0)
		m.Nonce, m.Ciphertext, m.Deliveries = random(24), random(100+rng.IntN(900)), nil
		copy(m.Hash[:], random(32))
		for range rng.IntN(3) {
			m.Mode = wire.ModeGroup
			m.Deliveries = append(m.Deliveries, broker.NewDelivery{Recipient: h.peers[rng.IntN(4)], Wrap: random(72)})
		}
		if m.Mode.Direct() {
			m.Deliveries = []broker.NewDelivery{{Recipient: h.peers[rng.IntN(4)]}}
		}
		first, err := accept(s, m)
		if err != nil {
			t.Fatal(err)
		}
		h.steps++
		h.sent = append(h.sent, &sent{m, first, h.steps, make([]ended, len(m.Deliveries))})
		if old := h.sent[max(0, i-10+rng.IntN(11))]; rng.IntN(3) > 0 {
			for d := range old.ends {
				if e := &old.ends[d]; e.step == 0 {
					h.steps++
					*e = ended{h.steps, wire.StateDelivered, ""}
					if rng.IntN(4) == 0 {
						e.state, e.code = wire.StateBounced, wire.CodeUndeliverable
					}
					end := delivered(old.Message, old.first, d)
					end.State, end.Code = e.state, e.code
					if err := settle(s, end); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
	copied := make(chan string, 1)
	s.Settle(nil, func([]bool, error) { copied <- crash(t, path) })
	path = <-copied
	for suffix, into := range map[string]*[]byte{"": &h.db, "-wal": &h.wal} {
		b, err := os.ReadFile(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		*into = b
	}
	return h
}

// damage is how a copy differs from the history.
type damage struct {
	what    string
	db, wal []byte
}

func (h *history) damage(rng *rand.Rand) damage {
	d := damage{db: slices.Clone(h.db), wal: slices.Clone(h.wal)}
	file, name := &d.db, "db"
	if rng.IntN(3) == 0 {
		file, name = &d.wal, "wal"
	}
	b, at := *file, rng.IntN(len(*file))
	switch rng.IntN(6) {
	case 0, 1:
		bit := rng.IntN(8)
		b[at] ^= 1 << bit
		d.what = fmt.Sprintf("%s: bit %d of byte %d", name, bit, at)
	case 2:
		n := 2 + rng.IntN(40)
		for range n {
			b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
		}
		d.what = fmt.Sprintf("%s: %d bits", name, n)
	case 3:
		at &^= 511 // a sector
		for i := at; i < min(at+512, len(b)); i++ {
			b[i] = byte(rng.Uint32())
		}
		d.what = fmt.Sprintf("%s: noise in the sector at %d", name, at)
	case 4:
		at &^= 8191
		clear(b[at:min(at+8192, len(b))])
		d.what = fmt.Sprintf("%s: zeros at %d", name, at)
	case 5:
		if rng.IntN(2) == 0 {
			at &^= 8191
		}
		*file = b[:max(at, 1)]
		d.what = fmt.Sprintf("%s: cut to %d of %d", name, len(*file), len(b))
	}
	return d
}

// verdict is what came of one damaged copy.
type verdict struct {
	refused  error    // by Open
	said     error    // by a read: damage that was met and told
	check    error    // by Check, on a copy of its own
	step     int      // of the history, which the state fits best
	content  int      // deliveries whose nonce, ciphertext or wrap differ
	details  []string // fields that no index or constraint covers and that differ
	wrong    []string // lost or invented rows, wrong states
	panicked string
}

func (h *history) try(t *testing.T, d damage) (v verdict) {
	dir := shmDir(t)
	defer os.RemoveAll(dir)
	write := func(name string) string {
		path := filepath.Join(dir, name)
		for suffix, b := range map[string][]byte{"": d.db, "-wal": d.wal} {
			if err := os.WriteFile(path+suffix, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	defer func() {
		if p := recover(); p != nil {
			v.panicked = fmt.Sprintf("%v\n%s", p, debug.Stack())
		}
	}()
	v.check = sqlite.Check(t.Context(), write("checked.db"))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	s, err := sqlite.Open(ctx, write("opened.db"), sqlite.Options{})
	if err != nil {
		v.refused = err
		return v
	}
	defer s.Close()
	h.read(ctx, s, &v)
	// What writes may fail too, but must end and must not panic.
	_, err = accept(s, message(h.mesh, h.peers[0], 100))
	v.said = errors.Join(v.said, err)
	for _, m := range h.sent {
		if m.ends[0].step == 0 {
			v.said = errors.Join(v.said, settle(s, delivered(m.Message, m.first, 0)))
		}
	}
	_, err = s.Expire(ctx, now.AddDate(1, 0, 0), 1000)
	v.said = errors.Join(v.said, err)
	return v
}

// read compares what a store tells with the history, at the step that fits best:
// a damaged WAL is cut by SQLite before its first bad frame, as after a power cut.
func (h *history) read(ctx context.Context, s *sqlite.Store, v *verdict) {
	known := make(map[int64][]broker.Outcome)
	failed := make(map[int64]bool)
	waiting := make(map[int64]broker.Delivery)
	unread := make(map[broker.PeerID]bool)
	for _, m := range h.sent {
		hash, out, err := s.Lookup(ctx, m.Sender, m.ID)
		if err != nil && !errors.Is(err, broker.ErrNotFound) {
			v.said, failed[m.first] = errors.Join(v.said, err), true
		}
		if err == nil && hash != m.Hash {
			v.details = append(v.details, fmt.Sprintf("hash of %d", m.first))
		}
		if err == nil {
			known[m.first] = append([]broker.Outcome{}, out...)
		}
	}
	for _, p := range h.peers {
		q, _, err := s.Queued(ctx, p, broker.Place{}, 1<<20, 1<<40)
		if err != nil {
			v.said, unread[p] = errors.Join(v.said, err), true
		}
		for _, d := range q {
			waiting[d.Number] = d
		}
	}
	best := -1
	for step := h.steps; step >= h.folded; step-- { // the latest of the best
		content, details, wrong := h.differ(step, known, failed, waiting, unread)
		if best < 0 || len(wrong) < best {
			best, v.step, v.content, v.wrong = len(wrong), step, content, wrong
			v.details = append(slices.DeleteFunc(v.details, func(d string) bool { return !strings.HasPrefix(d, "hash") }), details...)
		}
		if best == 0 {
			return
		}
	}
}

// differ lists where what was read is not what the history holds at a step.
func (h *history) differ(step int, known map[int64][]broker.Outcome, failed map[int64]bool, waiting map[int64]broker.Delivery, unread map[broker.PeerID]bool) (content int, details, wrong []string) {
	queued := 0
	for _, m := range h.sent {
		out, found := known[m.first]
		if failed[m.first] {
			for i := range m.ends {
				if _, there := waiting[m.first+int64(i)]; there {
					queued++
				}
			}
			continue
		}
		if found != (m.accepted <= step) {
			wrong = append(wrong, fmt.Sprintf("message %d there %v", m.first, found))
		}
		if !found || m.accepted > step {
			continue
		}
		if len(out) != len(m.ends) {
			wrong = append(wrong, fmt.Sprintf("message %d has %d deliveries", m.first, len(out)))
			continue
		}
		for i, e := range m.ends {
			want := wire.StateQueued
			if e.step > 0 && e.step <= step {
				want = e.state
			}
			n := m.first + int64(i)
			if o := out[i]; o.State != want || o.Delivery != n {
				wrong = append(wrong, fmt.Sprintf("delivery %d is %s, want %s", n, o.State, want))
			} else if o.Recipient != m.Deliveries[i].Recipient || o.Size != m.Size(m.Deliveries[i]) || want != wire.StateQueued && (o.Code != e.code || !o.At.Equal(now)) {
				details = append(details, fmt.Sprintf("outcome of %d", n))
			}
			d, there := waiting[n]
			if there {
				queued++
			}
			if there != (want == wire.StateQueued) && !unread[m.Deliveries[i].Recipient] {
				wrong = append(wrong, fmt.Sprintf("delivery %d waits %v", n, there))
			}
			if !there {
				continue
			}
			if !bytes.Equal(d.Nonce, m.Nonce) || !bytes.Equal(d.Ciphertext, m.Ciphertext) || !bytes.Equal(d.Wrap, m.Deliveries[i].Wrap) {
				content++
			}
			if d.Mode != m.Mode || d.Priority != m.Priority || !d.Created.Equal(m.Created) || !d.Expires.Equal(m.Expires) || d.Attempts != 0 {
				details = append(details, fmt.Sprintf("header of %d", n))
			}
			if d.ID != m.ID || d.Sender != m.Sender {
				wrong = append(wrong, fmt.Sprintf("delivery %d is of another message", n))
			}
		}
	}
	if queued != len(waiting) {
		wrong = append(wrong, fmt.Sprintf("%d deliveries wait that nobody sent", len(waiting)-queued))
	}
	return content, details, wrong
}

// shmDir makes a directory, in memory where that is easy.
func shmDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "damage")
	if err != nil {
		dir = t.TempDir()
	}
	return dir
}

// TestDamage: a damaged database is refused, or says so where it is met, or
// holds what it held; Check finds what Open did not. What neither can find is
// named: bytes inside a sealed body, which the recipient's authentication
// refuses, and a few columns that nothing depends on.
func TestDamage(t *testing.T) {
	t.Parallel()
	trials := 50
	if os.Getenv("SOAK") != "" {
		trials = 1000
	}
	h := makeHistory(t, 300)
	if v := h.try(t, damage{db: h.db, wal: h.wal}); v.refused != nil || v.said != nil || v.check != nil || len(v.wrong)+len(v.details)+v.content > 0 || v.step != h.steps {
		t.Fatalf("the undamaged copy: %+v", v)
	}
	var refused, unclear, said, checked, cut, content, details, unharmed int
	for seed := range trials {
		rng := rand.New(rand.NewPCG(uint64(seed), 1))
		d := h.damage(rng)
		began := time.Now()
		v := h.try(t, d)
		if took := time.Since(began); took > time.Second {
			t.Logf("seed %d, %s: took %v", seed, d.what, took)
		}
		name := fmt.Sprintf("seed %d, %s", seed, d.what)
		inDB := !bytes.Equal(d.db, h.db)
		switch {
		case v.panicked != "":
			t.Errorf("%s: panic %s", name, v.panicked)
		case v.refused != nil:
			refused++
			if !errors.Is(v.refused, sqlite.ErrCorrupt) || !strings.Contains(v.refused.Error(), "restore") {
				unclear++
				t.Errorf("%s: refused without the way out: %v", name, v.refused)
			}
		case v.said != nil && (v.check != nil || !inDB):
			said++
		case v.said != nil:
			t.Errorf("%s: Check finds nothing, but a read says %v", name, v.said)
		case len(v.wrong) > 0 && v.check == nil:
			t.Errorf("%s: silently wrong: %q", name, v.wrong)
		case v.check != nil:
			checked++
		case v.step < h.steps && inDB:
			t.Errorf("%s: back at step %d of %d", name, v.step, h.steps)
		case v.step < h.steps:
			cut++ // whole commits, from the end: senders hand them over again
		case v.content > 0:
			content++
		case len(v.details) > 0:
			details++
			t.Logf("%s: %q", name, v.details)
		default:
			unharmed++
		}
	}
	t.Logf("%d trials: %d refused at start (%d without the hint), %d told by a read and by Check, %d by Check alone, %d with the WAL cut to an earlier commit, "+
		"%d with other ciphertext (the recipient's to find), %d in a column nothing depends on, %d without effect",
		trials, refused, unclear, said, checked, cut, content, details, unharmed)
}

// TestDamageCanFail: what TestDamage must never see, it would see. A row is taken
// out by hand, with all that Check holds it against.
func TestDamageCanFail(t *testing.T) {
	h := makeHistory(t, 60)
	plant := func(statements ...string) verdict {
		path := filepath.Join(t.TempDir(), "planted.db")
		for suffix, b := range map[string][]byte{"": h.db, "-wal": h.wal} {
			if err := os.WriteFile(path+suffix, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		edit(t, path, append(statements, `UPDATE mesh SET (queued, queued_bytes) = (SELECT count(*), coalesce(sum(size), 0) FROM delivery WHERE state = 0)`)...)
		db, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return h.try(t, damage{db: db})
	}
	i := slices.IndexFunc(h.sent, func(m *sent) bool { return m.ends[0].step == 0 })
	first, n := h.sent[i].first, len(h.sent[i].ends)
	for name, v := range map[string]verdict{
		"a lost message": plant(fmt.Sprintf("DELETE FROM message WHERE seq = %d", first),
			fmt.Sprintf("DELETE FROM delivery WHERE id >= %d AND id < %d", first, first+int64(n))),
		"a wrong state":  plant(fmt.Sprintf("UPDATE delivery SET state = 1 WHERE id = %d", first)),
		"another sender": plant(fmt.Sprintf("UPDATE message SET sender = sender %% 4 + 1 WHERE seq = %d", first)),
	} {
		if v.refused != nil || v.check != nil || len(v.wrong) == 0 {
			t.Errorf("%s: not seen: %+v", name, v)
		}
	}
	if v := plant(fmt.Sprintf("UPDATE message SET body = zeroblob(length(body)) WHERE seq = %d", first),
		fmt.Sprintf("UPDATE delivery SET wrap = zeroblob(length(wrap)) WHERE message = %d", first)); v.content != n || len(v.wrong) > 0 {
		t.Errorf("another body: %+v", v)
	}
}
