package sqlite_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/broker"
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
