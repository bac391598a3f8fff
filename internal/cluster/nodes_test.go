//go:build unix

package cluster

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/internal/clustertest"
	"github.com/claudemesh/claudemesh/internal/natstest"
	"github.com/claudemesh/claudemesh/internal/pgtest"
)

// TestNodeKilled kills one node after the other with SIGKILL.
func TestNodeKilled(t *testing.T) {
	onEach(t, func(t *testing.T, bus string) {
		c := three(t, pgtest.Database(t), bus)
		trial(t, c, clustertest.Pick(3, 20), func(int) {
			p := c.Nodes[rand.N(len(c.Nodes))]
			p.Kill()
			time.Sleep(rand.N(3 * time.Second)) // its lease may pass before it is back, or not
			p.Start()
		})
	})
}

// TestRollingRestart restarts all nodes, one after the other.
func TestRollingRestart(t *testing.T) {
	onEach(t, func(t *testing.T, bus string) {
		c := three(t, pgtest.Database(t), bus)
		trial(t, c, clustertest.Pick(3, 10), func(int) {
			for _, p := range c.Nodes {
				p.Stop()
				p.Start()
				time.Sleep(500 * time.Millisecond)
			}
		})
	})
}

// TestNodePaused stops a node for longer than its lease, and lets it go on with
// what it believed before. At no commit does a write stand of a node that is buried.
func TestNodePaused(t *testing.T) {
	db := pgtest.Database(t)
	audit := clustertest.NewAudit(t, db)
	c := three(t, db, "postgres")
	trial(t, c, clustertest.Pick(3, 20), func(int) {
		p := c.Nodes[rand.N(len(c.Nodes))]
		p.Pause()
		time.Sleep(clustertest.Pick(13*time.Second, 20*time.Second))
		p.Continue()
		time.Sleep(2 * time.Second) // what it does first is watched
	})
	checked, breaches := audit.Result()
	t.Logf("%s: %d written rows checked, stale %d", t.Name(), checked, len(breaches))
	if checked < 100 {
		t.Error("that few rows prove nothing")
	}
	for _, b := range breaches {
		t.Errorf("%s: by %s, in the name of %s", b.What, number(b.Epoch), number(b.Claimed))
	}
}

func number(n *int64) string {
	if n == nil {
		return "nobody"
	}
	return fmt.Sprint(*n)
}

// TestBusCut takes the bus away. What is sent meanwhile, and nobody hints at,
// is found within the poll interval of 15 s; a machine under load may add to it.
func TestBusCut(t *testing.T) {
	nats := natstest.New(t, nil)
	c := three(t, pgtest.Database(t), nats.URL)
	cut := clustertest.Pick(40*time.Second, time.Minute)
	slowest := trial(t, c, 1, func(int) {
		nats.Stop()
		time.Sleep(cut)
		nats.Start()
	})
	if slowest > 20*time.Second {
		t.Errorf("what was sent without a bus was found after %s", slowest)
	}
}

// TestStartTogether has nodes find an empty database at the same instant.
func TestStartTogether(t *testing.T) {
	rounds := clustertest.Pick(3, 20)
	var most time.Duration
	for range rounds {
		c := clustertest.NewCluster(t, pgtest.Shared(t).Blank(t), "postgres", 2)
		began := time.Now()
		c.Start()
		most = max(most, time.Since(began))
		crowd := clustertest.NewCrowd(t)
		peers := crowd.Add(c.Everywhere(clustertest.Found(t, c.Nodes[0].URL, 1)), 2, false, nil)
		crowd.Meet(peers, peers)
		for i, p := range peers {
			crowd.Send(t.Context(), p, fmt.Sprintf("%s/hello", p.Name), "", peers[1-i])
		}
		crowd.Settle(time.Minute, clustertest.OfSend)
		for _, p := range c.Nodes {
			p.Stop()
		}
	}
	t.Logf("%s: %d times two nodes on an empty database; slowest start %s", t.Name(), rounds, most.Round(time.Millisecond))
}
