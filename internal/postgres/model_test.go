package postgres_test

import (
	"testing"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/pgtest"
	"github.com/claudemesh/claudemesh/internal/storetest"
)

// modelled opens stores for the model. What a broker that was killed leaves
// is connections, which its store keeps until the check ends.
func modelled(t testing.TB) (broker.Store, func() broker.Store, func() broker.Store) {
	url := pgtest.Database(t)
	s := open(t, url)
	crashed := func() broker.Store {
		s = open(t, url)
		return s
	}
	restart := func() broker.Store {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		s = open(t, url)
		return s
	}
	return s, crashed, restart
}

func TestModel(t *testing.T) {
	t.Parallel() // after TestModelCanFail has put rapid's flags back
	storetest.RunModel(t, modelled)
}

func TestModelCanFail(t *testing.T) { storetest.RunModelCanFail(t, modelled) }
