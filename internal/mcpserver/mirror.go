package mcpserver

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/mailbox"
)

const (
	// proofEvery bounds how often a card is shown again only because its proof is newer.
	proofEvery = time.Minute
	showTime   = 5 * time.Second
)

// mirror shows in the agent's cards what couriers know of it: its status, and
// by which path a message gets in.
type mirror struct {
	log  *slog.Logger
	said map[*client.Client]*claim
}

// claim is what a card was last made to say.
type claim struct {
	status string // by the record; what the agent says itself stays until this changes
	proof  time.Time
	failed bool // the broker did not take it
}

// show brings the cards of all meshes up to date. A broker that does not answer
// holds up no other's.
func (m *mirror) show(ctx context.Context, a *mailbox.Agent, set client.Set) {
	var wg sync.WaitGroup
	next := map[*client.Client]*claim{}
	for _, cl := range set {
		said := m.said[cl]
		if said == nil {
			said = &claim{}
		}
		next[cl] = said
		change := said.change(a, cl, time.Now())
		if change == nil {
			continue
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, showTime)
			defer cancel()
			err := cl.SetCard(ctx, change)
			if said.failed = err != nil; said.failed {
				m.log.Debug("the card is not shown now", "mesh", cl.Mesh(), "error", err)
			}
		})
	}
	wg.Wait()
	m.said = next
}

// change returns how a client's card is to be changed, nil when it need not be,
// and notes that it was.
func (c *claim) change(a *mailbox.Agent, cl *client.Client, now time.Time) func(*client.Card) {
	card := cl.Card()
	status := statusOf(a)
	if status == c.status {
		status = ""
	}
	wake, proof := a.Wake(), a.Proven[a.Wake()]
	if proof > 0 {
		proof += cl.ClockOffset().Milliseconds()
		if wake == card.Wake && card.WokenAt > 0 && now.Sub(c.proof) < proofEvery {
			proof = card.WokenAt
		}
	}
	if !c.failed && (status == "" || status == card.Status) && wake == card.Wake && proof == card.WokenAt {
		c.status = cmp.Or(status, c.status)
		return nil
	}
	if proof != card.WokenAt {
		c.proof = now
	}
	c.status = cmp.Or(status, c.status)
	return func(k *client.Card) { k.Status, k.Wake, k.WokenAt = cmp.Or(status, k.Status), wake, proof }
}

// statusOf is the status by the record; "" when nobody has noted one.
func statusOf(a *mailbox.Agent) string {
	switch {
	case a.DND:
		return client.StatusDND
	case a.Status == client.StatusIdle || a.Status == client.StatusWorking:
		return a.Status
	}
	return ""
}
