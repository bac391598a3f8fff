package bench

import (
	"bytes"
	"io"
	"path/filepath"
	"testing"

	"github.com/claudemesh/claudemesh/internal/sqlite"
)

// TestPark: what is parked waits in a whole database, and a second call adds only what is missing.
func TestPark(t *testing.T) {
	path := filepath.Join(t.TempDir(), "parked.db")
	s, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, n := range []int{300, 500, 400} {
		if err := Park(t.Context(), s, n, 400, io.Discard); err != nil {
			t.Fatal(err)
		}
	}
	if err := sqlite.Check(t.Context(), path); err != nil {
		t.Error(err)
	}
	st, err := s.Stats(t.Context())
	if err != nil || st.Queued != 500 || st.Meshes != 2 {
		t.Errorf("%+v, %v; want 500 messages in the meshes of two calls", st, err)
	}
}

// TestIDAt: ids of later times are greater, and say their version and variant.
func TestIDAt(t *testing.T) {
	a, b := idAt(1_700_000_000_000), idAt(1_700_000_000_001)
	if bytes.Compare(a[:], b[:]) >= 0 || a[6]>>4 != 7 || a[8]>>6 != 2 {
		t.Errorf("%x, then %x", a, b)
	}
}
