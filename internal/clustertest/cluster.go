package clustertest

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/claudemesh/claudemesh/client"
)

// Cluster is brokers that share a Postgres database.
type Cluster struct {
	Nodes    []*Process
	Balancer *Proxy // before all nodes, in turns

	t testing.TB
}

// NewCluster prepares n brokers, node1 and so on, with raised limits.
func NewCluster(t testing.TB, db, bus string, n int, args ...string) *Cluster {
	t.Helper()
	c := &Cluster{t: t}
	for i := range n {
		own := []string{"--bus", bus, "--node", fmt.Sprintf("node%d", i+1)}
		c.Nodes = append(c.Nodes, newProcess(t, db, slices.Concat(raised, own, args)))
	}
	return c
}

// Start starts all brokers at the same instant, and returns when they listen.
func (c *Cluster) Start() {
	c.t.Helper()
	Program(c.t, "claudemesh-broker") // built first
	errs := make([]error, len(c.Nodes))
	var wg sync.WaitGroup
	for i, p := range c.Nodes {
		wg.Go(func() { errs[i] = p.launch() })
	}
	wg.Wait()
	var urls []string
	for i, err := range errs {
		Must(c.t, err)
		urls = append(urls, c.Nodes[i].URL)
	}
	if c.Balancer == nil {
		c.Balancer = NewProxy(c.t, urls...)
	}
}

// Everywhere returns each membership at each node, and by way of the balancer.
func (c *Cluster) Everywhere(members []client.Membership) (all []client.Membership) {
	for _, m := range members {
		for _, p := range c.Nodes {
			all = append(all, At(m, p.URL))
		}
		all = append(all, At(m, c.Balancer.URL))
	}
	return all
}

// At is a membership by way of a broker's URL.
func At(m client.Membership, url string) client.Membership {
	m.Broker = url
	return m
}
