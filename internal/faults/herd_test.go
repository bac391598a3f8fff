package faults

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/internal/clustertest"
)

// herd says what is wrong with how peers arrive, by the time of each since the
// broker was there again: they are to spread over a while, evenly.
func herd(arrivals []time.Duration, n int, least time.Duration) (breaches []error) {
	if len(arrivals) < n {
		breaches = append(breaches, fmt.Errorf("%d of %d are back", len(arrivals), n))
	}
	if len(arrivals) == 0 {
		return breaches
	}
	if over := slices.Max(arrivals) - slices.Min(arrivals); over < least {
		breaches = append(breaches, fmt.Errorf("they come back within %s; want %s or more", over, least))
	}
	if most := slices.Max(bySecond(arrivals)); most*4 > n {
		breaches = append(breaches, fmt.Errorf("%d of %d come back within one second; at most a quarter should", most, n))
	}
	return breaches
}

// bySecond counts arrivals in each second since the first.
func bySecond(arrivals []time.Duration) []int {
	first := slices.Min(arrivals)
	counts := make([]int, (slices.Max(arrivals)-first)/time.Second+1)
	for _, a := range arrivals {
		counts[(a-first)/time.Second]++
	}
	return counts
}

func TestHerdCanFail(t *testing.T) {
	even := func(n int, over time.Duration) (out []time.Duration) {
		for i := range n {
			out = append(out, over*time.Duration(i)/time.Duration(n-1))
		}
		return out
	}
	for _, c := range []struct {
		name     string
		arrivals []time.Duration
		bad      int
	}{
		{"even", even(1000, 12*time.Second), 0},
		{"all at once", even(1000, time.Second), 2},
		{"too soon", even(1000, 9*time.Second), 1},
		{"all but one at once", append(even(999, time.Second), 15*time.Second), 1},
		{"one is missing", even(999, 12*time.Second), 1},
		{"none", nil, 1},
	} {
		if got := herd(c.arrivals, 1000, 10*time.Second); len(got) != c.bad {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// TestReconnects kills the broker of a thousand peers and looks at how they come
// back, and at what some of them send through it.
func TestReconnects(t *testing.T) {
	clustertest.Aside(t)
	const n, each = 1000, 50
	b := clustertest.NewProcess(t)
	c := clustertest.NewCrowd(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var loads []*sync.WaitGroup
	var senders [][]*clustertest.Peer
	for range n / each {
		all := c.Add(clustertest.Found(t, b.URL, 2), each, false, nil)
		senders = append(senders, all[:6])
	}
	for _, s := range senders[:5] { // the subset that sends
		loads = append(loads, c.Load(ctx, s[:2], s[2:], 8))
	}
	time.Sleep(2 * time.Second) // senders learn who is there, and the first how many they are
	restarts := func(name string, outage time.Duration) {
		b.Kill()
		time.Sleep(outage)
		b.Start()
		open := time.Now()
		back, last := arrivals(b, open, n, 75*time.Second)
		for _, err := range herd(back, n, 10*time.Second) {
			t.Errorf("%s: %v", name, err)
		}
		if len(back) == 0 {
			return
		}
		t.Logf("%s: %d of %d peers come back %s to %s after it; by second %v", name, len(back), n,
			back[0].Round(time.Millisecond), last.Round(time.Millisecond), bySecond(back))
	}
	restarts("a restart", 0)
	if clustertest.Long() {
		for range 5 {
			time.Sleep(3 * time.Second)
			restarts("a restart", 0)
			restarts("an outage", 30*time.Second)
		}
	}
	cancel()
	for _, wg := range loads {
		wg.Wait()
	}
	f := c.Settle(clustertest.Pick(20*time.Second, 2*time.Minute), clustertest.OfSend)
	t.Logf("%+v", f)
}

// arrivals watches, at the broker, sessions come back: the time of each since open.
// Those that came between two looks, which a busy machine draws apart, came evenly.
func arrivals(b *clustertest.Process, open time.Time, n int, within time.Duration) (back []time.Duration, last time.Duration) {
	var looked time.Duration
	for end := open.Add(within); len(back) < n && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		now := min(n, int(b.Metric(`claudemesh_connections{role="session"}`)))
		at := time.Since(open)
		since, came := at-looked, now-len(back)
		looked = at
		for i := range came {
			back = append(back, at-since*time.Duration(came-1-i)/time.Duration(came))
			last = at
		}
	}
	return back, last
}
