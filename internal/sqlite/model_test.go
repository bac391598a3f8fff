package sqlite_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/sqlite"
	"github.com/claudemesh/claudemesh/internal/storetest"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// opener opens stores for the model, each as wrap makes it.
func opener(wrap func(*sqlite.Store) broker.Store) storetest.ModelOpener {
	return func(t testing.TB) (broker.Store, func() broker.Store, func() broker.Store) {
		path := filepath.Join(t.TempDir(), "broker.db")
		s := open(t, path)
		crashed := func() broker.Store {
			path = crash(t, path)
			_ = s.Close() // of the file that nobody reads any more
			s = open(t, path)
			return wrap(s)
		}
		restart := func() broker.Store {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			s = open(t, path)
			return wrap(s)
		}
		return wrap(s), crashed, restart
	}
}

func TestModel(t *testing.T) {
	t.Parallel() // after TestModelCanFail has put rapid's flags back
	storetest.RunModel(t, opener(func(s *sqlite.Store) broker.Store { return s }))
}

// anyRecipient settles a delivery whoever acknowledges it.
type anyRecipient struct{ *sqlite.Store }

func (s anyRecipient) Settle(ends []broker.Settlement, done func([]bool, error)) {
	fixed := append([]broker.Settlement(nil), ends...)
	for i := range fixed {
		for peer := range broker.PeerID(40) {
			q, err := queued(s, peer)
			if err != nil {
				continue
			}
			for _, d := range q {
				if d.Number == fixed[i].Delivery {
					fixed[i].Recipient = peer
				}
			}
		}
	}
	s.Store.Settle(fixed, done)
}

// bouncedAsDelivered forgets that a delivery bounced.
type bouncedAsDelivered struct{ *sqlite.Store }

func (s bouncedAsDelivered) Settle(ends []broker.Settlement, done func([]bool, error)) {
	fixed := append([]broker.Settlement(nil), ends...)
	for i := range fixed {
		fixed[i].State, fixed[i].Code = wire.StateDelivered, ""
	}
	s.Store.Settle(fixed, done)
}

// TestModelCanFail: the model finds stores that are wrong in one thing.
func TestModelCanFail(t *testing.T) {
	for name, wrap := range map[string]func(*sqlite.Store) broker.Store{
		"settles for any recipient": func(s *sqlite.Store) broker.Store { return anyRecipient{s} },
		"a bounce is a delivery":    func(s *sqlite.Store) broker.Store { return bouncedAsDelivered{s} },
		"a settlement is lost":      func(s *sqlite.Store) broker.Store { return &losesSettlements{Store: s} },
	} {
		text := storetest.ModelFinds(t, opener(wrap))
		if !strings.Contains(text, "want") {
			t.Errorf("%s: not found: %q", name, text)
		}
	}
	// And a crash that loses the last commits.
	text := storetest.ModelFinds(t, func(t testing.TB) (broker.Store, func() broker.Store, func() broker.Store) {
		s, crashed, restart := opener(func(s *sqlite.Store) broker.Store { return s })(t)
		return s, func() broker.Store {
			c := crashed()
			out, err := c.Expire(bg, now.AddDate(10, 0, 0), 1) // as though a row were gone
			if err != nil {
				t.Error(err, out)
			}
			return c
		}, restart
	})
	if text == "" {
		t.Error("a crash that loses a delivery was not found")
	}
}

// losesSettlements says that it settled every third time without doing it.
type losesSettlements struct {
	*sqlite.Store
	n int
}

func (s *losesSettlements) Settle(ends []broker.Settlement, done func([]bool, error)) {
	if s.n++; s.n%3 != 0 {
		s.Store.Settle(ends, done)
		return
	}
	s.Store.Settle(nil, func([]bool, error) {
		all := make([]bool, len(ends))
		for i := range all {
			all[i] = true
		}
		done(all, nil)
	})
}
