package client_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/meshtest"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// A client that comes back shows the card that everyone has verified, until it
// has something else to say.
func TestReconnectShowsTheSameCard(t *testing.T) {
	w := meshtest.New(t, nil)
	m := w.Found("mesh", "alice")
	watcher := w.Dial(m, "watcher", nil)
	relay := w.Relay()
	var mu sync.Mutex
	var shown []wire.Card
	relay.Hook(func(_ bool, f wire.Frame) []wire.Frame {
		if h, ok := f.(*wire.Hello); ok {
			mu.Lock()
			shown = append(shown, *h.Card)
			mu.Unlock()
		}
		return []wire.Frame{f}
	})
	m.Broker = relay.URL
	c := w.Dial(m, "one", nil)
	summary := func() string {
		peers, _, err := watcher.Peers(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range peers {
			if p.Key == c.Key() {
				return fmt.Sprint(p.Online, p.Card.Summary)
			}
		}
		return ""
	}
	last := func() (int, wire.Card) {
		mu.Lock()
		defer mu.Unlock()
		return len(shown), shown[len(shown)-1]
	}
	restart := func(meanwhile func() error) wire.Card {
		n, _ := last()
		w.Stop()
		if err := meanwhile(); err != nil {
			t.Fatal(err)
		}
		w.Start()
		meshtest.Eventually(t, "it is back", func() bool {
			now, _ := last()
			return now > n && c.State().Online && watcher.State().Online
		})
		_, card := last()
		return card
	}
	_, first := last()
	second := restart(func() error { return nil })
	third := restart(func() error { return c.SetSummary(t.Context(), "new") })
	if second.Seq != first.Seq || second.Sig != first.Sig {
		t.Error("the same card was sealed again")
	}
	if third.Seq <= first.Seq {
		t.Error("another summary is in no newer card")
	}
	meshtest.Eventually(t, "the watcher sees it", func() bool { return summary() == "truenew" })
}

// A client waits as the broker asks it to, when it is lost; within reason.
func TestSpread(t *testing.T) {
	w := meshtest.New(t, nil)
	m := w.Found("mesh", "alice")
	relay := w.Relay()
	m.Broker = relay.URL
	for _, c := range []struct {
		ms          int64
		least, most time.Duration // of the limit of the first wait
	}{
		{0, time.Second, time.Second},
		{-5, time.Second, time.Second},
		{12_000, 12 * time.Second, 12 * time.Second},
		{1 << 62, 30 * time.Second, 30 * time.Second},
	} {
		relay.Hook(func(_ bool, f wire.Frame) []wire.Frame {
			if a, ok := f.(*wire.HelloAck); ok {
				a.SpreadMs = c.ms
			}
			return []wire.Frame{f}
		})
		k := w.Dial(m, "one", nil)
		if got := client.Backoff(k, 1); got < c.least || got > c.most {
			t.Errorf("asked for %d ms: up to %s", c.ms, got)
		}
		if got := client.Backoff(k, 40); got != 30*time.Second {
			t.Errorf("asked for %d ms: up to %s in the end", c.ms, got)
		}
		_ = k.Close()
	}
	relay.Hook(func(to bool, f wire.Frame) []wire.Frame {
		if _, ok := f.(*wire.HelloAck); ok {
			return []wire.Frame{f, &wire.Spread{SpreadMs: 7000}}
		}
		return []wire.Frame{f}
	})
	k := w.Dial(m, "one", nil)
	meshtest.Eventually(t, "it is told of another", func() bool { return client.Backoff(k, 1) == 7*time.Second })
}

// BenchmarkReconnect is what a restart of the broker costs 50 peers of a mesh
// that all look at each other.
func BenchmarkReconnect(b *testing.B) {
	w := meshtest.New(b, nil)
	m := w.Found("mesh", "alice")
	var all []*client.Client
	for i := range 50 {
		all = append(all, w.Dial(m, fmt.Sprintf("p%d", i), nil))
	}
	see := func() {
		var wg sync.WaitGroup
		for _, c := range all {
			wg.Go(func() {
				if err := c.Ready(b.Context()); err != nil {
					b.Error(err)
				}
				if _, _, err := c.Peers(b.Context(), true); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
	}
	see()
	for b.Loop() {
		w.Stop()
		w.Start()
		see()
	}
}
