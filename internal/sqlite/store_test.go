package sqlite_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/sqlite"
	"github.com/claudemesh/claudemesh/internal/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStore(t *testing.T) {
	storetest.Run(t, func(t testing.TB) (broker.Store, func() broker.Store) {
		path := filepath.Join(t.TempDir(), "broker.db")
		s := open(t, path)
		return s, func() broker.Store { return open(t, crash(t, path)) }
	})
}

func open(t testing.TB, path string) *sqlite.Store {
	t.Helper()
	// Not t.Context: done callbacks open stores too, at any time.
	s, err := sqlite.Open(context.Background(), path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// crash copies what a kill -9 would leave at this moment and returns the copy's
// path. The writer must be idle or inside a done callback.
func crash(t testing.TB, path string) string {
	t.Helper()
	dest := filepath.Join(t.TempDir(), "crashed.db")
	for _, suffix := range []string{"", "-wal"} {
		from, err := os.Open(path + suffix)
		if os.IsNotExist(err) && suffix != "" {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		to, err := os.OpenFile(dest+suffix, os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(to, from); err != nil {
			t.Fatal(err)
		}
		from.Close()
		to.Close()
	}
	return dest
}
