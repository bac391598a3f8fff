package bus_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/bus"
	"github.com/claudemesh/claudemesh/internal/clustertest"
	"github.com/claudemesh/claudemesh/internal/meshtest"
	"github.com/claudemesh/claudemesh/internal/natstest"
	"github.com/claudemesh/claudemesh/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// medium is what a bus runs through, to be stopped and started.
type medium struct {
	spec, db    string
	addr        string // host:port
	stop, start func()
}

// at is the same by way of a proxy.
func (m medium) at(t testing.TB, addr string) medium {
	t.Helper()
	if m.db == "" {
		return medium{spec: "nats://" + addr}
	}
	url, err := pgtest.At(m.db, addr)
	must(t, err)
	return medium{spec: m.spec, db: url}
}

func viaNATS(t testing.TB) medium {
	s := natstest.New(t, nil)
	return medium{spec: s.URL, addr: s.Addr, stop: s.Stop, start: s.Start}
}

func viaPostgres(t testing.TB) medium {
	s := pgtest.Start(t, pgtest.Options{TCP: true})
	return medium{
		spec: "postgres", db: s.URL("postgres"), addr: s.Addr,
		stop:  func() { must(t, s.Stop(pgtest.Immediate)) },
		start: func() { must(t, s.Run()) },
	}
}

// overBoth runs a test over each of the buses.
func overBoth(t *testing.T, run func(t *testing.T, m medium)) {
	t.Run("postgres", func(t *testing.T) { t.Parallel(); run(t, viaPostgres(t)) })
	t.Run("nats", func(t *testing.T) { t.Parallel(); run(t, viaNATS(t)) })
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open opens a bus that is closed when the test ends.
func (m medium) open(t testing.TB) broker.Bus {
	t.Helper()
	b, err := bus.Open(m.spec, m.db, slog.New(slog.DiscardHandler))
	must(t, err)
	t.Cleanup(func() { must(t, b.Close()) })
	return b
}

// heard is what came for a node.
type heard struct {
	t testing.TB

	mu   sync.Mutex
	got  []string
	gaps int
	busy bool
}

// listen starts listening. What listen returns has been told of a gap: it hears.
func listen(t testing.TB, b broker.Bus, node string) *heard {
	t.Helper()
	h := hearken(t, b, node)
	h.until("the bus connects", func() bool { return h.gaps > 0 })
	return h
}

func hearken(t testing.TB, b broker.Bus, node string) *heard {
	h := &heard{t: t}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	b.Listen(ctx, node,
		func(p []byte) { h.alone(func() { h.got = append(h.got, string(p)) }) },
		func() { h.alone(func() { h.gaps++ }) })
	return h
}

// alone complains of two calls at a time.
func (h *heard) alone(fn func()) {
	h.mu.Lock()
	if h.busy {
		h.t.Error("two calls at a time")
	}
	h.busy = true
	h.mu.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	fn()
	h.busy = false
}

// until waits for a condition on what was heard.
func (h *heard) until(what string, ok func() bool) {
	h.t.Helper()
	meshtest.Eventually(h.t, what, func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return ok()
	})
}

func send(t testing.TB, b broker.Bus, node, payload string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := b.Send(ctx, node, []byte(payload)); err != nil {
		t.Fatalf("to %s: %v", node, err)
	}
}

func TestPayloadsArriveInOrder(t *testing.T) {
	overBoth(t, func(t *testing.T, m medium) {
		one, two := m.open(t), m.open(t)
		long := strings.Repeat("b: a name of any length, with 'quotes' and \x01 ", 10)
		nodes := []string{"b", "B", "", long}
		ears := []*heard{listen(t, one, nodes[0]), listen(t, one, nodes[1]), listen(t, two, nodes[2]), listen(t, two, nodes[3])}
		twin := listen(t, one, nodes[3])
		sender := m.open(t) // of several, each has an order of its own
		var want [4][]string
		for n := range 1000 {
			payload := fmt.Sprintf(`{"n":%d,"é":"\u0000"}`, n)
			send(t, sender, nodes[n%4], payload)
			want[n%4] = append(want[n%4], payload)
		}
		for i, h := range append(ears, twin) {
			i = min(i, 3)
			h.until("all arrive", func() bool { return len(h.got) >= len(want[i]) })
			if !slices.Equal(h.got, want[i]) {
				t.Errorf("%.20q was given something else, or in another order: %d, %.500q", nodes[i], len(h.got), h.got)
			}
		}
	})
}

func TestSizes(t *testing.T) {
	overBoth(t, func(t *testing.T, m medium) {
		b := m.open(t)
		h := listen(t, b, "n")
		most := strings.Repeat("é", b.MaxPayload()/2)
		send(t, b, "n", most)
		send(t, b, "n", "")
		h.until("both arrive", func() bool { return len(h.got) == 2 })
		if h.got[0] != most || h.got[1] != "" {
			t.Error("they arrive changed")
		}
		if err := b.Send(t.Context(), "n", make([]byte, b.MaxPayload()+1)); !errors.Is(err, bus.ErrSize) {
			t.Errorf("a byte too many: %v", err)
		}
	})
}

// TestServerRestarts: listeners are told of the gap, and hear again.
func TestServerRestarts(t *testing.T) {
	overBoth(t, func(t *testing.T, m medium) {
		b, other := m.open(t), m.open(t)
		h := listen(t, b, "n")
		send(t, other, "n", "before")
		h.until("the first arrives", func() bool { return len(h.got) == 1 })
		for n := range 3 {
			before := h.gaps
			m.stop()
			away(t, other)
			m.start()
			h.until("it is told of a gap", func() bool { return h.gaps > before })
			meshtest.Eventually(t, "sends pass again", func() bool {
				return other.Send(t.Context(), "n", fmt.Appendf(nil, "after %d", n)) == nil
			})
			h.until("what is sent after the gap arrives", func() bool { return h.got[len(h.got)-1] == fmt.Sprintf("after %d", n) })
		}
	})
}

// away waits until the bus has noticed that the server is away, and sends fail,
// soon, with an error.
func away(t testing.TB, b broker.Bus) {
	t.Helper()
	meshtest.Eventually(t, "sends fail", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		began := time.Now()
		err := b.Send(ctx, "n", []byte("x"))
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("it blocks for %s", took)
		}
		return err != nil
	})
}

// TestSlowListener: what is dropped because a listener is slow is a gap.
func TestSlowListener(t *testing.T) {
	b := viaNATS(t).open(t)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	release, gaps := make(chan struct{}), make(chan int, 1000)
	got := 0
	b.Listen(ctx, "n", func([]byte) { <-release; got++ }, func() { gaps <- got })
	<-gaps
	const sent = 100_000
	for range sent {
		send(t, b, "n", "x")
	}
	close(release)
	for at := 0; at == 0; { // the first connect may be told twice
		select {
		case at = <-gaps:
		case <-time.After(time.Minute):
			t.Fatal("no gap is told")
		}
	}
	cancel()
	must(t, b.Close())
	if got >= sent {
		t.Error("nothing was dropped: this tests nothing")
	}
}

// TestDeadConnection: a connection on which nothing passes any more, and of which
// nobody is told, is given up for a new one.
func TestDeadConnection(t *testing.T) {
	overBoth(t, func(t *testing.T, m medium) {
		px := clustertest.NewProxy(t, m.addr)
		b, other := m.at(t, px.Addr).open(t), m.open(t)
		h := listen(t, b, "n")
		send(t, b, "m", "connects the sender")
		before := h.gaps
		px.Freeze()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_ = b.Send(ctx, "n", []byte("x")) // it may be in a buffer, or fail; it does not hang
		h.until("it connects again", func() bool { return h.gaps > before })
		send(t, other, "n", "after")
		h.until("it hears again", func() bool { return slices.Contains(h.got, "after") })
		meshtest.Eventually(t, "it sends again", func() bool { return b.Send(t.Context(), "n", []byte("own")) == nil })
	})
}

// TestServerComesLater: a bus may be opened first, and closed without ever having connected.
func TestServerComesLater(t *testing.T) {
	overBoth(t, func(t *testing.T, m medium) {
		m.stop()
		never := m.open(t)
		hearken(t, never, "m")
		b := m.open(t)
		h := hearken(t, b, "n")
		away(t, b)
		m.start()
		h.until("it connects", func() bool { return h.gaps > 0 })
		meshtest.Eventually(t, "sends pass", func() bool { return b.Send(t.Context(), "n", []byte("late")) == nil })
		h.until("it arrives", func() bool { return slices.Contains(h.got, "late") })
	})
}

func TestClosed(t *testing.T) {
	overBoth(t, func(t *testing.T, m medium) {
		b, err := bus.Open(m.spec, m.db, slog.New(slog.DiscardHandler))
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		b.Listen(ctx, "n", func([]byte) {}, func() {})
		send(t, b, "n", "x")
		cancel()
		must(t, b.Close())
		if err := b.Send(t.Context(), "n", []byte("x")); !errors.Is(err, broker.ErrClosed) {
			t.Errorf("a send after Close: %v", err)
		}
	})
}

// TestOpen: what cannot be a bus is refused, and no refusal tells a password.
func TestOpen(t *testing.T) {
	for _, c := range []struct{ spec, db string }{
		{"", ""}, {"redis://u:s3cret@host", ""}, {"nats:// u:s3cret@host", ""}, {"nats://u:s3cret@host:port", ""}, {"nats://", ""},
		{"tls://u:s3cret@%zz", ""}, {"nats://good,http://u:s3cret@bad", ""},
		{"postgres", "postgres://u:s3cret@host:port/x"}, {"postgres", "postgres://u:s3cret@%zz"},
	} {
		b, err := bus.Open(c.spec, c.db, slog.New(slog.DiscardHandler))
		switch {
		case err == nil:
			t.Errorf("%q %q is taken", c.spec, c.db)
			_ = b.Close()
		case c.spec != "postgres" && !errors.Is(err, bus.ErrSpec), strings.Contains(err.Error(), "s3cret"):
			t.Errorf("%q %q: %v", c.spec, c.db, err)
		}
	}
}
