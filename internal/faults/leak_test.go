package faults

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/clustertest"
	"github.com/claudemesh/claudemesh/internal/meshtest"
)

// holding is what this process holds.
type holding struct {
	goroutines, files int
	heap              int64
}

func (h holding) String() string {
	return fmt.Sprintf("%d goroutines, %d files, %.1f MiB", h.goroutines, h.files, float64(h.heap)/(1<<20))
}

// held collects garbage first: what is left is held.
func held() holding {
	http.DefaultClient.CloseIdleConnections()
	for range 2 { // the second time takes what finalizers let go
		runtime.GC()
	}
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	files, _ := os.ReadDir("/proc/self/fd") // none where there is no /proc
	return holding{runtime.NumGoroutine(), len(files), int64(m.HeapAlloc)}
}

// TestLeak has a broker and its peers, all in this process, give back what they
// took. The peers' mailboxes keep what they have got until they close.
func TestLeak(t *testing.T) {
	peers, lasts := clustertest.Pick(200, 1000), clustertest.Pick(8*time.Second, 30*time.Minute)
	run := func(peers int, lasts time.Duration) {
		t.Run(fmt.Sprintf("%d peers", peers), func(t *testing.T) {
			w := meshtest.New(t, nil)
			c := clustertest.NewCrowd(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var loads []*sync.WaitGroup
			const each = 20 // peers of a mesh: everyone verifies everyone once
			for i := range peers / each {
				members := []client.Membership{w.Found(fmt.Sprintf("mesh%d", i), "alice")}
				senders := c.Add(members, 2, true, nil) // a tenth on disk
				loads = append(loads, c.Load(ctx, senders, c.Add(members, each-2, false, nil), 100*each/peers))
			}
			time.Sleep(lasts / 4)
			early := held()
			time.Sleep(lasts - lasts/4)
			late := held()
			cancel()
			for _, wg := range loads {
				wg.Wait()
			}
			f := c.Settle(clustertest.Pick(20*time.Second, 5*time.Minute), clustertest.OfSend)
			t.Logf("%+v; a quarter in %v; at the end %v", f, early, late)
			if late.goroutines > early.goroutines*11/10+20 || late.files > early.files*11/10+20 {
				t.Errorf("it grows under an even load: %v, then %v", early, late)
			}
		})
	}
	run(20, time.Second) // what is made once and kept
	base := held()
	run(peers, lasts)
	var after holding
	clustertest.Eventually(t, 5*time.Second, "all is given back", func() bool {
		after = held()
		return after.goroutines <= base.goroutines+2 && after.files <= base.files+2 && after.heap <= base.heap+8<<20
	})
	t.Logf("before %v; after %v", base, after)
}
