package simulation

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestSimulation runs a plan for each seed: 200, or 10,000 with SOAK, or the one of
// SIM_SEED with everything that happened.
func TestSimulation(t *testing.T) {
	first, n := 1, seeds
	if os.Getenv("SOAK") != "" {
		n = 10_000
	}
	if s := os.Getenv("SIM_SEEDS"); s != "" {
		n, _ = strconv.Atoi(s)
	}
	one := os.Getenv("SIM_SEED")
	if one != "" {
		var err error
		if first, err = strconv.Atoi(one); err != nil {
			t.Fatal(err)
		}
		n = 1
	}
	f := found(t)
	var mu sync.Mutex
	var sum figures
	began := time.Now()
	t.Run("seeds", func(t *testing.T) {
		for seed := first; seed < first+n; seed++ {
			t.Run(strconv.Itoa(seed), func(t *testing.T) {
				t.Parallel()
				p := newPlan(uint64(seed))
				problems, notes, fig := simulate(t, f, p, bugs{})
				if len(problems) > 0 || one != "" {
					report(t, p, problems, notes, one != "")
				}
				mu.Lock()
				defer mu.Unlock()
				sum.add(fig)
			})
		}
	})
	t.Logf("%s in %s", sum, time.Since(began).Round(time.Millisecond))
}

// report prints a run: what was planned, what went wrong, and how to see it again.
func report(t *testing.T, p plan, problems, notes []string, all bool) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %s", p.seed, p)
	if all {
		fmt.Fprintf(&b, "what happened:\n%s\n", strings.Join(notes, "\n"))
	}
	if len(problems) == 0 {
		t.Log(b.String())
		return
	}
	fmt.Fprintf(&b, "what went wrong:\n%s\nreplay: SIM_SEED=%d go test -count=1 -run 'TestSimulation$' -v ./internal/simulation\n",
		strings.Join(problems, "\n"), p.seed)
	t.Error(b.String())
}
