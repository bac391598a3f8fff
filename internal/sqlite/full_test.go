package sqlite_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/meshtest"
	"github.com/claudemesh/claudemesh/internal/sqlite"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// diskSize is small, and leaves room beside the WAL, which takes some 8 MiB before
// SQLite folds it.
const diskSize = "32m"

// TestDiskFull fills a small file system five times and frees it again:
// sends are refused, deliveries go on, nothing that was accepted is lost, and the
// store takes messages again by itself.
func TestDiskFull(t *testing.T) {
	dir := smallDisk(t, diskSize)
	path, ballast := filepath.Join(dir, "broker.db"), filepath.Join(dir, "ballast")
	s := open(t, path)
	id, peer := mesh(t, s)
	kept := make(map[int64]*broker.Message) // accepted and not settled
	send := func() error {
		m := message(id, peer, 4000)
		n, err := accept(s, m)
		if err == nil {
			kept[n] = m
		}
		return err
	}
	var refusals, settledFull int
	var slowest time.Duration
	for round := range 5 {
		for range 200 {
			if err := send(); err != nil {
				t.Fatalf("round %d, with room: %v", round, err)
			}
		}
		fill(t, ballast)
		var err error
		for range 5000 { // the WAL's own room is used up first
			if err = send(); err != nil {
				break
			}
		}
		if !errors.Is(err, broker.ErrStorageFull) {
			t.Fatalf("round %d, full: %v", round, err)
		}
		if err := s.Ready(bg); !errors.Is(err, broker.ErrStorageFull) {
			t.Errorf("round %d: ready says %v", round, err)
		}
		refusals += refuseAll(t, s, id, peer)
		settledFull += settleSome(t, s, kept)
		sameQueue(t, s, peer, kept)

		freed := time.Now()
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		for s.Ready(bg) != nil && time.Since(freed) < 10*time.Second {
			time.Sleep(10 * time.Millisecond)
		}
		if err := send(); err != nil {
			t.Errorf("round %d, freed: %v", round, err)
		}
		slowest = max(slowest, time.Since(freed))
		sameQueue(t, s, peer, kept)
		for n, m := range kept { // or the next round would find the disk full of messages
			if err := settle(s, delivered(m, n, 0)); err != nil {
				t.Fatal(err)
			}
			delete(kept, n)
			if len(kept) < 50 {
				break
			}
		}
	}
	if slowest > 5*time.Second {
		t.Errorf("it took %v to recover", slowest)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := sqlite.Check(bg, path); err != nil {
		t.Error(err)
	}
	sameQueue(t, open(t, path), peer, kept)
	t.Logf("5 rounds: %d sends refused while full, %d of 100 settlements found room, the rest said that there is none; back after at most %v", refusals, settledFull, slowest)
}

// smallDisk mounts a little memory.
func smallDisk(t *testing.T, size string) string {
	dir := t.TempDir()
	if err := mount(dir, size); err != nil {
		t.Skipf("no file system of its own (TestStorageFull limits the file's pages instead): %v", err)
	}
	t.Cleanup(func() {
		if err := unmount(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill writes until nothing more fits.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 64<<10); len(block) > 0; {
		if _, err := f.Write(block); err != nil {
			block = block[:len(block)/2]
		}
	}
}

// refuseAll sends a batch to a full disk; each must be told so.
func refuseAll(t *testing.T, s *sqlite.Store, id wire.ID, peer broker.PeerID) int {
	t.Helper()
	const batch = 50
	var wg sync.WaitGroup
	errs := make(chan error, batch)
	for range batch {
		wg.Go(func() {
			_, err := accept(s, message(id, peer, 4000))
			errs <- err
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if !errors.Is(err, broker.ErrStorageFull) {
			t.Errorf("full: %v", err)
		}
	}
	return batch
}

// settleSome settles while the disk is full. It may find no room either, and
// then says so: what is not settled waits and is pushed again.
func settleSome(t *testing.T, s *sqlite.Store, kept map[int64]*broker.Message) (done int) {
	t.Helper()
	tried := 0
	for n, m := range kept {
		if tried++; tried > 20 {
			break
		}
		err := settle(s, delivered(m, n, 0))
		switch {
		case err == nil:
			delete(kept, n)
			done++
		case !errors.Is(err, broker.ErrStorageFull):
			t.Errorf("settle on a full disk: %v", err)
		}
	}
	return done
}

// sameQueue holds what waits against what was accepted and not settled.
func sameQueue(t *testing.T, s *sqlite.Store, peer broker.PeerID, kept map[int64]*broker.Message) {
	t.Helper()
	q, err := queued(s, peer)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range q {
		if kept[d.Number] == nil {
			t.Errorf("delivery %d waits, which was never accepted or is settled", d.Number)
		}
	}
	if len(q) != len(kept) {
		t.Errorf("%d deliveries wait, %d were accepted", len(q), len(kept))
	}
}

// TestDiskFullBroker: a broker on a full disk refuses sends and says that it is not
// ready, while what it holds is still delivered; it is ready again by itself, and
// nothing is lost. Five times over, on a disk that needs no file system of its own.
func TestDiskFullBroker(t *testing.T) {
	t.Parallel()
	m := &machine{t: t, query: smallWAL, addr: "127.0.0.1:0"}
	m.disk, m.path = newDisk(t)
	m.start()
	defer m.stop()
	w := &meshtest.World{T: t, URL: "ws://" + m.addr + "/ws", Logger: slog.New(slog.DiscardHandler)}
	sent, received := client.MemoryMailbox(), client.MemoryMailbox()
	alice := w.Dial(w.Found("full", "alice"), "web", func(o *client.Options) { o.Mailbox, o.Hold = sent, true })
	alice.Release(1 << 30) // or Send would wait for the word of a broker that refuses
	member := w.Join(alice, "member", "bob")
	var seed client.Secret
	bob := w.Dial(member, "api", func(o *client.Options) { seed, o.Mailbox = o.SessionSeed, received })
	key := bob.Key().String()
	var ids []client.ID
	send := func() client.ID {
		s, err := alice.Send(bg, client.Message{To: []string{key}, Text: fmt.Sprint(len(ids), strings.Repeat(".", 3000))})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, s.ID)
		return s.ID
	}
	got := 0
	next := func() {
		t.Helper()
		r, err := meshtest.Next(bob, time.Minute)
		if err != nil {
			t.Fatalf("message %d: %v", got, err)
		}
		if r.ID != ids[got] {
			t.Fatalf("%.10q instead of %d", r.Text, got)
		}
		got++
	}
	taken := func(id client.ID) bool {
		out, err := sent.Outgoing(bg, id)
		return err == nil && out.Recipients[0].State != client.Stored
	}
	var slowest time.Duration
	refused, whileFull, unready := 0, 0, 0
	for round := range 5 {
		if err := bob.Close(); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			last := send()
			within(t, "the broker has it", func() bool { return taken(last) })
		}
		m.disk.Fill(0)
		before, accepted := m.refusals(), len(ids)
		for m.refusals() == before { // the WAL's own room is used up first
			last := send()
			within(t, "an answer", func() bool { return taken(last) || m.refusals() > before })
			if taken(last) {
				accepted = len(ids)
			}
			if len(ids) > 5000 {
				t.Fatalf("round %d: the disk is never full", round)
			}
		}
		refused += m.refusals() - before
		// A checkpoint may have found room in the WAL again, and readiness with it.
		if m.ready() == http.StatusServiceUnavailable {
			unready++
		}
		bob = w.Dial(member, "api", func(o *client.Options) { o.SessionSeed, o.Mailbox = seed, received })
		for got < accepted {
			next()
			whileFull++
		}
		freed := time.Now()
		m.disk.Free()
		within(t, "ready again", func() bool { return m.ready() == http.StatusOK })
		slowest = max(slowest, time.Since(freed))
		for got < len(ids) {
			next()
		}
	}
	if unready == 0 {
		t.Error("readiness never said that the disk is full")
	}
	if slowest > 5*time.Second {
		t.Errorf("it took %v to recover", slowest)
	}
	t.Logf("5 rounds: %d messages, all delivered in order, %d of them while full; %d sends refused as storage_full; ready again after at most %v",
		len(ids), whileFull, refused, slowest)
}

// get asks the broker over HTTP.
func (m *machine) get(path string) (code int, body string) {
	m.t.Helper()
	req, err := http.NewRequestWithContext(bg, http.MethodGet, "http://"+m.addr+path, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		m.t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	return res.StatusCode, string(raw)
}

// ready is the status of readiness.
func (m *machine) ready() int {
	code, _ := m.get("/health/ready")
	return code
}

// refusals counts what was refused for want of room.
func (m *machine) refusals() (n int) {
	_, all := m.get("/metrics")
	if _, v, ok := strings.Cut(all, "claudemesh_requests_refused_total{code=\"storage_full\"} "); ok {
		v, _, _ = strings.Cut(v, "\n")
		n, _ = strconv.Atoi(v)
	}
	return n
}
