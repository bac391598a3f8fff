package storetest

import (
	"context"
	"strings"
	"testing"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// RunModelCanFail makes sure that the model finds stores that are wrong in one thing.
func RunModelCanFail(t *testing.T, open ModelOpener) {
	for name, wrap := range map[string]func(broker.Store) broker.Store{
		"settles for any recipient": func(s broker.Store) broker.Store { return anyRecipient{s} },
		"a bounce is a delivery":    func(s broker.Store) broker.Store { return bouncedAsDelivered{s} },
		"a settlement is lost":      func(s broker.Store) broker.Store { return &losesSettlements{Store: s} },
	} {
		text := ModelFinds(t, func(t testing.TB) (broker.Store, func() broker.Store, func() broker.Store) {
			s, crash, restart := open(t)
			return wrap(s), func() broker.Store { return wrap(crash()) }, func() broker.Store { return wrap(restart()) }
		})
		if !strings.Contains(text, "want") {
			t.Errorf("%s: not found: %q", name, text)
		}
	}
	// And a crash that loses the last commits.
	text := ModelFinds(t, func(t testing.TB) (broker.Store, func() broker.Store, func() broker.Store) {
		s, crash, restart := open(t)
		return s, func() broker.Store {
			c := crash()
			out, err := c.Expire(context.Background(), t0.AddDate(10, 0, 0), 1) // as though a row were gone
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

// anyRecipient settles a delivery whoever acknowledges it.
type anyRecipient struct{ broker.Store }

func (s anyRecipient) Settle(ends []broker.Settlement, done func([]bool, error)) {
	fixed := append([]broker.Settlement(nil), ends...)
	for i := range fixed {
		for peer := range broker.PeerID(40) {
			q, _, err := s.Queued(context.Background(), peer, broker.Place{}, 1<<20, 1<<40)
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
type bouncedAsDelivered struct{ broker.Store }

func (s bouncedAsDelivered) Settle(ends []broker.Settlement, done func([]bool, error)) {
	fixed := append([]broker.Settlement(nil), ends...)
	for i := range fixed {
		fixed[i].State, fixed[i].Code = wire.StateDelivered, ""
	}
	s.Store.Settle(fixed, done)
}

// losesSettlements says that it settled every third time without doing it.
type losesSettlements struct {
	broker.Store
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
