package simulation

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// catchWithin is how many seeds a planted bug may escape.
const catchWithin = 30

// TestSimulationCatches plants bugs, and wants each to be seen for what it is: a
// simulation that cannot fail proves nothing.
func TestSimulationCatches(t *testing.T) {
	f := found(t)
	for _, c := range []struct {
		name, want string
		bugs       bugs
	}{
		{"a store that drops one message in 50", "lost", bugs{store: func(s broker.Store) broker.Store { return &leaky{Store: s} }}},
		{"a store that keeps some of what was settled, and an inbox that does not know it", "shown under another id",
			bugs{store: func(s broker.Store) broker.Store { return &sticky{Store: s} }, mailbox: forgetful}},
		{"an inbox that does not know what it has seen", "shown under another id", bugs{mailbox: forgetful}},
		{"a store that numbers the latest first", "out of order", bugs{store: func(s broker.Store) broker.Store { return backward{s} }}},
		{"a disk that confirms what it does not keep", "lost", bugs{lies: true}},
		{"a store that says delivered of what is not", "was told", bugs{store: func(s broker.Store) broker.Store { return &hasty{Store: s} }}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= catchWithin; seed++ {
				p := newPlan(seed)
				if c.bugs.lies { // for long enough to be believed
					for i := range p.events {
						p.events[i].kind, p.events[i].pause = killBroker, 3*time.Second
					}
				}
				problems, _, _ := simulate(t, f, p, c.bugs)
				for _, p := range problems {
					if strings.Contains(p, c.want) {
						t.Logf("seed %d: %s", seed, p)
						return
					}
				}
			}
			t.Errorf("%d seeds did not see it", catchWithin)
		})
	}
}

// TestSimulationReplays: a seed makes the same plan each time, and another another.
func TestSimulationReplays(t *testing.T) {
	a, b, c := newPlan(7), newPlan(7), newPlan(8)
	if a.String() != b.String() || a.String() == c.String() {
		t.Errorf("plans of one seed differ, or those of two do not:\n%s\n%s", a, b)
	}
}

// leaky says that it has stored what it has not.
type leaky struct {
	broker.Store
	n atomic.Int64
}

func (s *leaky) Accept(m *broker.Message, done func(broker.Accepted, error)) int64 {
	if s.n.Add(1)%50 != 49 {
		return s.Store.Accept(m, done)
	}
	s.Store.Settle(nil, func([]bool, error) { done(broker.Accepted{First: 1 << 40}, nil) })
	return 0
}

// sticky forgets that it has settled every fifth.
type sticky struct {
	broker.Store
	n atomic.Int64
}

func (s *sticky) Settle(rows []broker.Settlement, done func([]bool, error)) {
	if len(rows) == 0 || s.n.Add(1)%5 > 0 {
		s.Store.Settle(rows, done)
		return
	}
	s.Store.Settle(nil, func([]bool, error) {
		settled := make([]bool, len(rows))
		for i := range settled {
			settled[i] = true
		}
		done(settled, nil)
	})
}

// backward gives the latest message the number of the first, by which the broker orders them.
type backward struct{ broker.Store }

func (s backward) Queued(ctx context.Context, recipient broker.PeerID, after broker.Place, rows int, bytes int64) ([]broker.Delivery, bool, error) {
	page, more, err := s.Store.Queued(ctx, recipient, after, rows, bytes)
	numbers := make([]int64, len(page))
	for i, d := range page {
		numbers[i] = d.Number
	}
	slices.Reverse(page)
	for i := range page {
		page[i].Number = numbers[i]
	}
	return page, more, err
}

// hasty settles every fifth message as it comes.
type hasty struct {
	broker.Store
	n atomic.Int64
}

func (s *hasty) Accept(m *broker.Message, done func(broker.Accepted, error)) int64 {
	first := s.Store.Accept(m, done)
	if s.n.Add(1)%5 == 4 {
		for i, to := range m.Deliveries {
			d := m.Delivery(i, first)
			end := d.Settlement(m.Mesh, to.Recipient)
			end.State, end.At = wire.StateDelivered, m.Created
			s.Store.Settle([]broker.Settlement{end}, func([]bool, error) {})
		}
		return 0
	}
	return first
}

// forgetful stores again what it has seen.
func forgetful(b mailbox.Mailbox) mailbox.Mailbox { return &amnesiac{b} }

type amnesiac struct{ mailbox.Mailbox }

func (b *amnesiac) Receive(ctx context.Context, in []mailbox.Incoming) ([]bool, []error, error) {
	fresh, errs, err := b.Mailbox.Receive(ctx, in)
	for i := range fresh {
		if err == nil && !fresh[i] && errs[i] == nil {
			again := in[i]
			rand.Read(again.ID[:])
			_, _, err = b.Mailbox.Receive(ctx, []mailbox.Incoming{again})
		}
	}
	return fresh, errs, err
}
