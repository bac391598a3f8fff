package sqlite_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/claudemesh/claudemesh/internal/sqlite"
)

// A damaged number that stands for a name: the read must fail, not panic, and
// Check must find it.
func TestDamagedNumbers(t *testing.T) {
	for _, statement := range []string{"UPDATE message SET mode = 99", "UPDATE message SET mode = 0", "UPDATE delivery SET priority = 9"} {
		path := filepath.Join(t.TempDir(), "broker.db")
		s := open(t, path)
		id, peer := mesh(t, s)
		if _, err := accept(s, message(id, peer, 100)); err != nil {
			t.Fatal(err)
		}
		s.Close()
		edit(t, path, statement)
		if err := sqlite.Check(bg, path); !errors.Is(err, sqlite.ErrCorrupt) {
			t.Errorf("%s: Check: %v", statement, err)
		}
		func() {
			defer func() {
				if p := recover(); p != nil {
					t.Errorf("%s: Queued panics: %v", statement, p)
				}
			}()
			if _, err := queued(open(t, path), peer); !errors.Is(err, sqlite.ErrCorrupt) {
				t.Errorf("%s: Queued: %v", statement, err)
			}
		}()
	}
}

// A database file cut to nothing beside a WAL that is full: Open must not take
// it for a new one, for SQLite then deletes the WAL.
func TestEmptyFileBesideWAL(t *testing.T) {
	path := filepath.Join(t.TempDir(), "broker.db")
	s := open(t, path)
	id, peer := mesh(t, s)
	if _, err := accept(s, message(id, peer, 100)); err != nil {
		t.Fatal(err)
	}
	path = crash(t, path)
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	refused(t, path, sqlite.ErrCorrupt, "restore")
}

// Every refusal of a damaged file says what to do.
func TestRefusalsSayWhatToDo(t *testing.T) {
	intact := filepath.Join(t.TempDir(), "intact.db")
	open(t, intact).Close()
	raw, err := os.ReadFile(intact)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(path string) error{
		"first byte": func(path string) error { return os.WriteFile(path, append([]byte{raw[0] ^ 1}, raw[1:]...), 0o600) },
		"cut":        func(path string) error { return os.WriteFile(path, raw[:8192+3000], 0o600) },
		"no counter": func(path string) error {
			if err := os.WriteFile(path, raw, 0o600); err != nil {
				return err
			}
			edit(t, path, "DELETE FROM counter")
			return nil
		},
	} {
		path := filepath.Join(t.TempDir(), "broker.db")
		if err := change(path); err != nil {
			t.Fatal(err)
		}
		s, err := sqlite.Open(bg, path, sqlite.Options{})
		if err == nil {
			s.Close()
		}
		if !errors.Is(err, sqlite.ErrCorrupt) || !strings.Contains(err.Error(), "restore") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// On 32 MiB the WAL fills the file system before SQLite folds it for the first
// time, with nothing waiting: the store must fold it then, and go on.
func TestWALFillsTheDisk(t *testing.T) {
	s := open(t, filepath.Join(smallDisk(t, "32m"), "broker.db"))
	id, peer := mesh(t, s)
	for i := range 4000 {
		m := message(id, peer, 4000)
		n, err := accept(s, m)
		if err == nil {
			err = settle(s, delivered(m, n, 0))
		}
		if err != nil {
			t.Fatalf("after %d messages, of which none waits: %v; ready: %v", i, err, s.Ready(bg))
		}
	}
}
