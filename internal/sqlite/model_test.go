package sqlite_test

import (
	"path/filepath"
	"testing"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/storetest"
)

// modelled opens stores for the model.
func modelled(t testing.TB) (broker.Store, func() broker.Store, func() broker.Store) {
	path := filepath.Join(t.TempDir(), "broker.db")
	s := open(t, path)
	crashed := func() broker.Store {
		path = crash(t, path)
		_ = s.Close() // of the file that nobody reads any more
		s = open(t, path)
		return s
	}
	restart := func() broker.Store {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		s = open(t, path)
		return s
	}
	return s, crashed, restart
}

func TestModel(t *testing.T) {
	t.Parallel() // after TestModelCanFail has put rapid's flags back
	storetest.RunModel(t, modelled)
}

func TestModelCanFail(t *testing.T) { storetest.RunModelCanFail(t, modelled) }
