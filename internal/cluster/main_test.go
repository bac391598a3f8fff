//go:build unix

package cluster

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/internal/clustertest"
	"github.com/claudemesh/claudemesh/internal/natstest"
	"github.com/claudemesh/claudemesh/internal/pgtest"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() && !clustertest.Long() {
		fmt.Println("without -short, clusters are tested here")
		os.Exit(0)
	}
	code := pgtest.Main(m)
	clustertest.Clean()
	os.Exit(code)
}

// onEach runs a test on each bus.
func onEach(t *testing.T, run func(t *testing.T, bus string)) {
	t.Run("postgres", func(t *testing.T) { run(t, "postgres") })
	t.Run("nats", func(t *testing.T) { run(t, natstest.New(t, nil).URL) })
}

// three starts three nodes on a database.
func three(t *testing.T, db, bus string) *clustertest.Cluster {
	t.Helper()
	c := clustertest.NewCluster(t, db, bus, 3)
	c.Start()
	return c
}

// trial has a crowd talk by way of every node and the balancer while something
// goes wrong again and again, and audits that nothing that was acknowledged is lost
// and nothing is shown twice. It logs the figures. Recovery is how long the
// slowest delivery took of those that were sent around a fault; the longest is returned.
func trial(t *testing.T, c *clustertest.Cluster, rounds int, wrong func(round int)) time.Duration {
	t.Helper()
	crowd := clustertest.NewCrowd(t)
	everywhere := c.Everywhere(clustertest.Found(t, c.Nodes[0].URL, 2))
	senders := crowd.Add(everywhere, 8, true, nil)
	recipients := crowd.Add(everywhere, 16, true, nil)
	met := crowd.Meet(senders, recipients)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	began := time.Now()
	load := crowd.Load(ctx, senders, recipients, 60)
	var faults []time.Time
	for n := range rounds {
		time.Sleep(2*time.Second + rand.N(2*time.Second))
		faults = append(faults, time.Now())
		wrong(n)
	}
	time.Sleep(5 * time.Second)
	cancel()
	load.Wait()
	took := time.Since(began)
	f := crowd.Settle(clustertest.Pick(90*time.Second, 5*time.Minute), clustertest.OfSend)
	var recovery []time.Duration
	for i, at := range faults {
		until := began.Add(took)
		if i+1 < len(faults) {
			until = faults[i+1]
		}
		recovery = append(recovery, crowd.Ledger.Slowest(at.Add(-500*time.Millisecond), until).Round(time.Millisecond))
	}
	slices.Sort(recovery)
	t.Logf("%s: %d faults in %s; messages %d, deliveries acked %d, shown %d, bounced %d, lost %d, twice %d; recovery p50 %s, max %s; before, all were known after %s",
		t.Name(), rounds, took.Round(time.Second), f.Kept, f.Acked, f.Shown, f.Bounced, f.Lost, f.Twice,
		recovery[len(recovery)/2], recovery[len(recovery)-1], met.Round(time.Millisecond))
	if f.Bounced > 0 || f.Shown == 0 {
		t.Errorf("nothing is to bounce, and all to be shown: %+v", f)
	}
	return recovery[len(recovery)-1]
}
