package broker_test

import (
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
)

func TestSpread(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]time.Duration{
		0: time.Second, 1: time.Second, 80: time.Second, 160: 2 * time.Second,
		1000: 12500 * time.Millisecond, 1e6: 30 * time.Second,
	} {
		if got := broker.Spread(n); got != want {
			t.Errorf("%d clients: %s, want %s", n, got, want)
		}
	}
	// Who came first is told when the crowd has become another one.
	w := newWorld(t, nil)
	p := w.founder.session()
	if p.ack.SpreadMs != 1000 {
		t.Errorf("alone: %d", p.ack.SpreadMs)
	}
	broker.Crowd(w.Broker, 999)
	w.tick()
	if f := want[*wire.Spread](p); f.SpreadMs != 12500 {
		t.Errorf("of a thousand: %d", f.SpreadMs)
	}
	if q := w.founder.session(); q.ack.SpreadMs != 12512 {
		t.Errorf("one more: %d", q.ack.SpreadMs)
	}
	w.tick() // next to nothing has changed
	broker.Crowd(w.Broker, -999)
	w.tick()
	if f := want[*wire.Spread](p); f.SpreadMs != 1000 {
		t.Errorf("alone again: %d", f.SpreadMs)
	}
}
