package broker

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// hint tells another node where to look in the store. All of it may be lost, or
// come twice or late.
type hint struct {
	Kind hintKind `json:"k"`
	Mesh wire.ID  `json:"m,omitzero"`
	// Numbers are, by kind: of hintQueue triples of peer, priority rank and
	// delivery; of hintOutcome deliveries; else peers.
	Numbers []int64 `json:"n,omitempty"`
}

type hintKind string

const (
	hintQueue   hintKind = "q" // something waits for peers that the node holds
	hintPeers   hintKind = "p" // peers came, went or changed
	hintMembers hintKind = "m" // the membership changed
	hintOutcome hintKind = "o" // deliveries were settled whose senders the node has
	hintYield   hintKind = "y" // a person waits elsewhere for a member's own mailbox
	hintMoved   hintKind = "t" // sessions have connected elsewhere, for good
	hintKick    hintKind = "k" // members, by their own mailboxes, were kicked
	hintNodes   hintKind = "g" // a node has come or gone: look who is there, and what is new
)

// hintKey is what hints are gathered by.
type hintKey struct {
	kind hintKind
	mesh wire.ID
}

const (
	// hintPace is the least time between two payloads to the nodes: a bus may
	// be a database, which pays for each.
	hintPace = 20 * time.Millisecond
	// maxHints bounds what waits for the bus: beyond it hints are dropped.
	maxHints = 100_000
	// hintEntries is how many numbers one hint carries at most; a payload holds several hints.
	hintEntries = 300
)

// hints gathers what goes to each node, and what has come from them.
type hints struct {
	c *cluster

	mu      sync.Mutex // guards the following
	out     map[string]map[hintKey][]int64
	waiting int
	in      map[hintKey]map[int64]bool

	wake, come chan struct{}
}

func newHints(c *cluster) *hints {
	return &hints{
		c: c, out: map[string]map[hintKey][]int64{}, in: map[hintKey]map[int64]bool{},
		wake: make(chan struct{}, 1), come: make(chan struct{}, 1),
	}
}

// tell notes a hint for a node. It never waits and may be called under any lock.
func (h *hints) tell(node string, kind hintKind, mesh wire.ID, numbers ...int64) {
	if h.c.cfg.Bus == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.waiting > maxHints {
		h.c.b.metrics.hintsLost.Inc()
		return
	}
	to := h.out[node]
	if to == nil {
		to = map[hintKey][]int64{}
		h.out[node] = to
	}
	k := hintKey{kind, mesh}
	to[k] = append(to[k], numbers...)
	h.waiting += len(numbers) + 1
	poke(h.wake)
}

// all notes a hint for every other node.
func (h *hints) all(kind hintKind, mesh wire.ID, numbers ...int64) {
	for _, name := range h.c.others() {
		h.tell(name, kind, mesh, numbers...)
	}
}

// send gives the bus what has gathered, at a bounded pace.
func (h *hints) send() {
	ctx := h.c.b.ctx
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case <-h.wake:
		}
		h.mu.Lock()
		out := h.out
		h.out, h.waiting = map[string]map[hintKey][]int64{}, 0
		h.mu.Unlock()
		for node, keyed := range out {
			h.sendTo(ctx, node, keyed)
		}
		select {
		case <-ctx.Done():
		case <-time.After(hintPace):
		}
	}
}

// sendTo packs a node's hints into payloads.
func (h *hints) sendTo(ctx context.Context, node string, keyed map[hintKey][]int64) {
	var list []hint
	for k, numbers := range keyed {
		for first := true; first || len(numbers) > 0; first = false {
			n := min(len(numbers), hintEntries)
			list = append(list, hint{k.kind, k.mesh, numbers[:n]})
			numbers = numbers[n:]
		}
	}
	payload := []byte("[")
	for i, one := range list {
		raw, _ := json.Marshal(one) // plain data encodes
		if len(payload)+len(raw)+1 > h.c.cfg.Bus.MaxPayload() {
			h.give(ctx, node, append(payload[:len(payload)-1], ']'))
			payload = []byte("[")
		}
		payload = append(append(payload, raw...), ',')
		if i == len(list)-1 {
			h.give(ctx, node, append(payload[:len(payload)-1], ']'))
		}
	}
}

func (h *hints) give(ctx context.Context, node string, raw []byte) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := h.c.cfg.Bus.Send(ctx, node, raw); err != nil {
		h.c.b.metrics.hintsLost.Inc()
		h.c.b.log.Debug("hints lost", "node", node, "error", err)
		return
	}
	h.c.b.metrics.hintsSent.Inc()
}

// now sends one hint at once, past what gathers.
func (h *hints) now(ctx context.Context, node string, one hint) {
	if h.c.cfg.Bus == nil {
		return
	}
	raw, _ := json.Marshal([]hint{one})
	h.give(ctx, node, raw)
}

// got takes a payload from the bus. Those of queues cost no look into the store
// here; the others are gathered for follow.
func (h *hints) got(payload []byte) {
	var list []hint
	if err := json.Unmarshal(payload, &list); err != nil {
		h.c.b.log.Warn("a payload of the bus does not decode", "error", err)
		return
	}
	h.c.b.metrics.hintsReceived.Inc()
	for _, one := range list {
		switch one.Kind {
		case hintNodes:
			h.c.catchUp()
		case hintQueue:
			if m := h.c.b.loadedMesh(one.Mesh); m != nil {
				m.hintedQueue(one.Numbers)
			}
		default:
			h.mu.Lock()
			k := hintKey{one.Kind, one.Mesh}
			if h.in[k] == nil {
				h.in[k] = map[int64]bool{}
			}
			for _, n := range one.Numbers {
				h.in[k][n] = true
			}
			h.mu.Unlock()
			poke(h.come)
		}
	}
}

// follow looks into the store for what hints speak of.
func (h *hints) follow() {
	ctx := h.c.b.ctx
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.come:
		}
		h.mu.Lock()
		in := h.in
		h.in = map[hintKey]map[int64]bool{}
		h.mu.Unlock()
		for k, set := range in {
			m := h.c.b.loadedMesh(k.mesh)
			if m == nil || !h.c.holds() {
				continue // what is not in memory is read when it is needed
			}
			numbers := make([]int64, 0, len(set))
			for n := range set {
				numbers = append(numbers, n)
			}
			if err := m.follow(ctx, k.kind, numbers); err != nil {
				h.c.b.logUnlessStopping("a hint is not followed", err)
				h.c.lookSoon()
			}
		}
	}
}
