package sqlite_test

import (
	"errors"
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/claudemesh/claudemesh/internal/sqlite"
)

// A database is offline for one at a time, when it is of this version and whole.
func TestOffline(t *testing.T) {
	path := filepath.Join(t.TempDir(), "broker.db")
	if _, err := sqlite.OpenOffline(t.Context(), path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	s := open(t, path)
	if _, err := sqlite.OpenOffline(t.Context(), path); !errors.Is(err, sqlite.ErrLocked) {
		t.Errorf("beside a broker: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o, err := sqlite.OpenOffline(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.DB.ExecContext(t.Context(), "DELETE FROM counter"); err == nil {
		t.Error("it can be written")
	}
	if _, err := sqlite.Open(t.Context(), path, sqlite.Options{}); !errors.Is(err, sqlite.ErrLocked) {
		t.Errorf("a broker beside it: %v", err)
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	if _, err := sqlite.CreateOffline(t.Context(), path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a file: %v", err)
	}
	if err := sqlite.MigrateDown(t.Context(), path, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.OpenOffline(t.Context(), path); !errors.Is(err, sqlite.ErrOlder) {
		t.Errorf("of an older version: %v", err)
	}
}
