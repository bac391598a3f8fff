package broker

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// cluster is a broker's part among those that share its store: its lease, what
// it knows of the other nodes, and the hints between them. A nil cluster is a
// broker that has its store alone.
type cluster struct {
	b     *Broker
	store ClusterStore
	cfg   ClusterConfig
	hints *hints

	began   time.Time    // what renewed counts from, by a clock that does not jump
	renewed atomic.Int64 // when the latest renewal that succeeded was begun
	wall    atomic.Int64 // likewise in Unix ns: the other clock may stand still while a machine sleeps
	up      atomic.Bool  // enlisted, and serving
	beat    chan struct{}
	look    chan struct{}

	mu      sync.Mutex // guards the following
	self    Node
	nodes   map[string]int64 // name to epoch, of the others
	company time.Time        // when another node was last seen
}

// ClusterConfig makes a broker one of several on one store.
type ClusterConfig struct {
	// Node is the name by which the others know this broker: no two may share one.
	// Empty: the broker has its store alone.
	Node string
	Bus  Bus // nil: no hints, what others did is found within Poll
	// Lease is how long the others wait for a node that is not heard of. A node
	// that cannot renew its own for 7 tenths of it closes its sockets. Default 10 s.
	Lease time.Duration
	// Poll is the longest time until something is found of which no hint came. Default 15 s.
	Poll time.Duration
	// OnReplaced is called when another broker has taken the name: this one serves no more.
	OnReplaced func(error)
}

// newCluster prepares a node; begin starts it.
func newCluster(b *Broker) *cluster {
	cfg := b.cfg.Cluster
	def(&cfg.Lease, 10*time.Second)
	def(&cfg.Poll, 15*time.Second)
	if cfg.OnReplaced == nil {
		cfg.OnReplaced = func(error) {}
	}
	c := &cluster{
		b: b, store: b.store.(ClusterStore), cfg: cfg, began: time.Now(), nodes: map[string]int64{},
		beat: make(chan struct{}, 1), look: make(chan struct{}, 1),
	}
	c.hints = newHints(c)
	return c
}

// begin enlists the node and starts its goroutines. They end with the broker's
// context.
func (c *cluster) begin(ctx context.Context) error {
	if c.cfg.Bus != nil {
		c.cfg.Bus.Listen(c.b.ctx, c.cfg.Node, c.hints.got, c.catchUp)
	}
	if err := c.enlist(ctx); err != nil {
		return err
	}
	c.b.routines.run(c.keep)
	c.b.routines.run(c.poll)
	c.b.routines.run(c.hints.send)
	c.b.routines.run(c.hints.follow)
	return nil
}

func (c *cluster) enlist(ctx context.Context) error {
	at := time.Now()
	n, err := c.store.Enlist(ctx, c.cfg.Node, c.cfg.Lease)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.self = n
	c.mu.Unlock()
	c.prolonged(at)
	nodes, err := c.store.Renew(ctx)
	if err != nil {
		return err
	}
	c.met(nodes)
	c.up.Store(true)
	c.hints.all(hintNodes, wire.ID{}) // or they would not tell this one anything until they renew
	c.b.log.Info("enlisted", "node", n.Name, "epoch", n.Epoch, "nodes", len(nodes))
	return nil
}

func (c *cluster) prolonged(at time.Time) {
	c.renewed.Store(int64(at.Sub(c.began)))
	c.wall.Store(at.UnixNano())
}

// holds reports whether the node may act as the holder of its mailboxes: its
// lease has a good while left. A process that was stopped finds it false
// before it does anything else with its sockets.
func (c *cluster) holds() bool {
	if c == nil {
		return true
	}
	now, most := time.Now(), int64(c.cfg.Lease)*7/10
	return c.up.Load() && int64(now.Sub(c.began))-c.renewed.Load() < most && now.UnixNano()-c.wall.Load() < most
}

// open returns why no connection is taken now, or nil.
func (c *cluster) open() error {
	if c == nil || c.holds() {
		return nil
	}
	return wire.Faultf(wire.CodeShuttingDown, "")
}

// me returns this node; zero before it has enlisted.
func (c *cluster) me() Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.self
}

// alone reports whether no other node has been there for so long that nothing
// of theirs can be unknown here.
func (c *cluster) alone() bool {
	if c == nil {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.nodes) == 0 && time.Since(c.company) > 4*c.cfg.Poll
}

// keep renews the lease until the broker ends, and enlists anew when it was lost.
func (c *cluster) keep() {
	every := c.cfg.Lease * 3 / 10
	tick := time.NewTimer(every)
	defer tick.Stop()
	for {
		select {
		case <-c.b.ctx.Done():
			return
		case <-tick.C:
		case <-c.beat:
		}
		next := every
		err := c.renew()
		if err != nil {
			next = every / 10
		}
		if err != nil && !c.b.stopping.Load() { // else it gives its lease up, or has
			c.b.log.Error("the lease is not renewed", "error", err)
			switch {
			case errors.Is(err, ErrReplaced):
				c.replaced()
				return
			case errors.Is(err, ErrFenced), !c.holds():
				c.lost()
			}
		}
		tick.Reset(next)
	}
}

func (c *cluster) renew() error {
	ctx, cancel := context.WithTimeout(c.b.ctx, c.cfg.Lease/5)
	defer cancel()
	at := time.Now()
	nodes, err := c.store.Renew(ctx)
	if err != nil {
		return err
	}
	c.prolonged(at)
	c.met(nodes)
	return nil
}

// met notes which nodes stand. What one that is gone held is nobody's now.
func (c *cluster) met(nodes []Node) {
	c.mu.Lock()
	before := c.nodes
	c.nodes = make(map[string]int64, len(nodes))
	for _, n := range nodes {
		if n.Name != c.self.Name {
			c.nodes[n.Name] = n.Epoch
		}
	}
	if len(c.nodes) > 0 || len(before) > 0 {
		c.company = time.Now()
	}
	standing := maps.Clone(c.nodes)
	c.mu.Unlock()
	for name, epoch := range standing {
		if before[name] != epoch { // what changed here since it came, nobody has told it
			c.hints.tell(name, hintNodes, wire.ID{})
		}
	}
	for name, epoch := range before {
		if standing[name] != epoch {
			c.b.log.Info("node gone", "node", name, "epoch", epoch)
			for _, m := range c.b.loadedMeshes() {
				m.nodeGone(epoch)
			}
		}
	}
}

// size counts the nodes that stand.
func (c *cluster) size() int {
	if c == nil {
		return 1
	}
	return 1 + len(c.others())
}

// others returns the names of the other nodes.
func (c *cluster) others() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]string, 0, len(c.nodes))
	for name := range c.nodes {
		out = append(out, name)
	}
	return out
}

// lost ends what the node holds: every socket, and with them what it has in
// memory, which others may change from now on. Then it enlists anew.
func (c *cluster) lost() {
	c.up.Store(false)
	c.b.log.Error("the lease is lost; closing all connections")
	c.b.waitConns(c.b.ctx, c.cut())
	c.b.mu.Lock()
	c.b.meshes = map[wire.ID]*mesh{}
	c.b.mu.Unlock()
	for pause := 100 * time.Millisecond; c.b.ctx.Err() == nil; pause = min(2*pause, time.Second) {
		err := c.enlist(c.b.ctx)
		if err == nil {
			return
		}
		c.b.logUnlessStopping("not enlisted yet", err)
		select {
		case <-c.b.ctx.Done():
		case <-time.After(pause):
		}
	}
}

// replaced gives up: two brokers under one name would put each other out for ever.
func (c *cluster) replaced() {
	c.up.Store(false)
	c.b.log.Error("another broker has taken this node's name", "node", c.cfg.Node)
	c.cut()
	c.cfg.OnReplaced(ErrReplaced)
}

// cut ends all connections at once: what waits for their sockets must not go out.
func (c *cluster) cut() []*conn {
	conns := c.b.connections()
	for _, k := range conns {
		k.cancel()
	}
	return conns
}

// resign ends the lease at a shutdown, so that nobody waits for it to pass.
func (c *cluster) resign(ctx context.Context) {
	if c == nil || !c.up.Swap(false) {
		return
	}
	others := c.others()
	if err := c.store.Resign(ctx); err != nil {
		c.b.log.Warn("the lease is left to pass", "error", err)
		return
	}
	for _, name := range others {
		c.hints.now(ctx, name, hint{Kind: hintNodes})
	}
}

// lookSoon has the store asked for news now: hints may have been lost.
func (c *cluster) lookSoon() {
	if c != nil {
		poke(c.look)
	}
}

// catchUp has the store asked who is there and what is new: hints were lost, or
// a node has come.
func (c *cluster) catchUp() {
	poke(c.beat)
	poke(c.look)
}

// poke wakes whoever waits for a channel of one.
func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// poll asks the store for news until the broker ends.
func (c *cluster) poll() {
	var since int64
	for c.b.ctx.Err() == nil {
		// Up to two thirds of it: the rest is for the answer, and for what comes of it.
		t := time.NewTimer(c.cfg.Poll/3 + rand.N(c.cfg.Poll/3))
		select {
		case <-c.b.ctx.Done():
		case <-t.C:
		case <-c.look:
		}
		t.Stop()
		if !c.holds() {
			since = 0
			continue
		}
		at, err := c.news(since)
		if err != nil {
			c.b.logUnlessStopping("no news from the store", err)
			continue
		}
		since = at
	}
}
