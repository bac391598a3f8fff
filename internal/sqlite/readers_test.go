package sqlite_test

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/sqlite"
)

// The first reads of a broker come together, when its peers come back. Each
// holds a connection of the pool, and none may wait for a second one.
func TestFirstReadsTogether(t *testing.T) {
	t.Parallel()
	for range 10 {
		s, err := sqlite.Open(context.Background(), filepath.Join(t.TempDir(), "mesh.db"), sqlite.Options{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		start := make(chan struct{})
		var wg sync.WaitGroup
		for n := range 16 {
			wg.Go(func() {
				<-start
				if _, _, err := s.Queued(ctx, broker.PeerID(n+1), broker.Place{}, 10, 1000); err != nil {
					t.Error(err)
				}
			})
		}
		close(start)
		wg.Wait()
		cancel()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			return
		}
	}
}
