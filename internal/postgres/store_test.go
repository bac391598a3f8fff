package postgres_test

import (
	"context"
	"os"
	"testing"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/pgtest"
	"github.com/claudemesh/claudemesh/internal/postgres"
	"github.com/claudemesh/claudemesh/internal/storetest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func TestStore(t *testing.T) {
	storetest.Run(t, func(t testing.TB) (broker.Store, func() broker.Store) {
		url := pgtest.Database(t)
		return open(t, url), func() broker.Store { return open(t, pgtest.Shared(t).Snapshot(t, url)) }
	})
}

func open(t testing.TB, url string) *postgres.Store {
	t.Helper()
	// Not t.Context: done callbacks open stores too, at any time.
	s, err := postgres.Open(context.Background(), url, postgres.Options{})
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
