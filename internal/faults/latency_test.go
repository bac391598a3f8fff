package faults

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/internal/clustertest"
)

// stopwatch times messages from the call that sends them to their showing.
type stopwatch struct {
	mu      sync.Mutex
	begun   map[string]time.Time
	running map[string]string // message to phase
	took    map[string][]time.Duration
	phase   string // of what is sent now; "" is not timed
}

func newStopwatch(c *clustertest.Crowd) *stopwatch {
	s := &stopwatch{begun: map[string]time.Time{}, running: map[string]string{}, took: map[string][]time.Duration{}}
	c.OnShow = s.shown
	return s
}

func (s *stopwatch) begin(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != "" {
		s.begun[text], s.running[text] = time.Now(), s.phase
	}
}

func (s *stopwatch) shown(text string) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, ok := s.begun[text]; ok {
		s.took[s.running[text]] = append(s.took[s.running[text]], now.Sub(at))
		delete(s.begun, text)
		delete(s.running, text)
	}
}

func (s *stopwatch) enter(phase string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phase = phase
}

// p99 is the 99th percentile of a phase.
func (s *stopwatch) p99(phase string) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return percentile(s.took[phase], 99)
}

func percentile(took []time.Duration, p int) time.Duration {
	if len(took) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(took))
	return sorted[min(len(sorted)-1, len(sorted)*p/100)]
}

// noise is a difference of latencies that says nothing on a machine that does
// other things too.
const noise = 5 * time.Millisecond

// alike says whether latencies with a fault are those without it: the median of
// the phases' 99th percentiles is at most a fifth higher, or by no more than noise.
func alike(without, with []time.Duration) bool {
	a, b := percentile(without, 50), percentile(with, 50)
	return b <= a+max(a/5, noise)
}

// unharmed says whether the others are served with a fault as without it: the
// latencies are alike, or differ by no more than those of a busy machine do by
// chance (a rank sum more than 2 standard deviations off counts as no chance).
func unharmed(without, with []time.Duration) error {
	if len(without) == 0 || len(with) == 0 || slices.Contains(with, 0) || slices.Contains(without, 0) {
		return fmt.Errorf("nothing was measured: %v, %v", without, with)
	}
	var above float64
	for _, a := range without {
		for _, b := range with {
			switch {
			case b > a:
				above++
			case b == a:
				above += 0.5
			}
		}
	}
	pairs := float64(len(without) * len(with))
	off := (above - pairs/2) / math.Sqrt(pairs*float64(len(without)+len(with)+1)/12)
	if alike(without, with) || off <= 2 {
		return nil
	}
	return fmt.Errorf("99 %% arrive within %s, and within %s without the fault (%.1f standard deviations)", percentile(with, 50), percentile(without, 50), off)
}

func TestUnharmedCanFail(t *testing.T) {
	ms := func(n ...time.Duration) (out []time.Duration) {
		for _, d := range n {
			out = append(out, d*time.Millisecond)
		}
		return out
	}
	for _, c := range []struct {
		name          string
		without, with []time.Duration
		ok            bool
	}{
		{"the same", ms(40, 50, 60, 70), ms(70, 60, 50, 40), true},
		{"within a fifth", ms(100, 100, 100, 100), ms(119, 119, 119, 119), true},
		{"more than a fifth", ms(100, 100, 100, 100), ms(122, 122, 122, 122), false},
		{"one bad phase", ms(100, 100, 100, 100), ms(100, 100, 900, 100), true},
		{"within noise", ms(3, 3, 3, 3), ms(7, 7, 7, 7), true},
		{"beyond noise", ms(3, 3, 3, 3), ms(9, 9, 9, 9), false},
		{"a stall of a second", ms(30, 40, 50, 60), ms(1030, 1040, 1050, 1060), false},
		// As measured: with a sleep of 100 ms planted into the broker, and without.
		{"a fault on a busy machine", ms(26, 132, 622, 151, 55, 78, 22, 15, 24, 230), ms(477, 60, 354, 54, 243, 142, 318, 302, 525, 282), false},
		{"a busy machine", ms(26, 76, 25, 31, 24, 81, 13, 427, 9, 121), ms(109, 83, 125, 67, 126, 56, 31, 175, 20, 48), true},
		{"nothing arrived", ms(30, 40, 50), ms(0, 0, 0), false},
		{"nothing measured", nil, nil, false},
	} {
		if err := unharmed(c.without, c.with); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// compare runs phases with and without a fault in turn, and holds the latencies
// of one kind against the other's. A machine that does other things tells little
// in a few phases: it goes on for as long as they differ, and fails when they
// still do after the last.
func (s *stopwatch) compare(t *testing.T, phase, settle time.Duration, fault func(on bool)) {
	t.Helper()
	least, most := clustertest.Pick(3, 10), clustertest.Pick(10, 30)
	var without, with []time.Duration
	for n := range most {
		for _, on := range []bool{n%2 == 1, n%2 == 0} { // who is first takes turns
			fault(on)
			time.Sleep(settle)
			name := fmt.Sprint(n, on)
			s.enter(name)
			time.Sleep(phase)
			s.enter("")
			time.Sleep(200 * time.Millisecond) // the last arrive
			p99 := s.p99(name)
			if p99 == 0 {
				p99 = phase // whoever stalled: what was sent took longer than that
			}
			if on {
				with = append(with, p99)
			} else {
				without = append(without, p99)
			}
		}
		if n+1 >= least && alike(without, with) {
			break
		}
	}
	fault(false)
	t.Logf("99th percentiles of %d phases of %s each: without %v, median %s; with %v, median %s", len(with), phase,
		rounded(without), percentile(without, 50).Round(100*time.Microsecond), rounded(with), percentile(with, 50).Round(100*time.Microsecond))
	if err := unharmed(without, with); err != nil {
		t.Error(err)
	}
}

func rounded(list []time.Duration) (out []time.Duration) {
	for _, d := range list {
		out = append(out, d.Round(100*time.Microsecond))
	}
	return out
}

// pace calls send of each sender rate times a second in all, evenly, until ctx ends.
func pace(ctx context.Context, senders []*clustertest.Peer, rate float64, send func(p *clustertest.Peer, n int)) *sync.WaitGroup {
	wg := new(sync.WaitGroup)
	every := time.Duration(float64(time.Second) * float64(len(senders)) / rate)
	for i, p := range senders {
		wg.Go(func() {
			offset := time.NewTimer(every * time.Duration(i) / time.Duration(len(senders)))
			defer offset.Stop()
			select {
			case <-offset.C:
			case <-ctx.Done():
				return
			}
			tick := time.NewTicker(every)
			defer tick.Stop()
			for n := 0; ; n++ {
				send(p, n)
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	return wg
}
