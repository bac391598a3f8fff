package client

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/claudemesh/claudemesh/internal/audit"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// Suspicion is something that the broker was caught at, or, where the code is one of
// a message, perhaps a member with an altered client. Nothing of it was taken.
type Suspicion struct {
	Code  wire.Code `json:"code"`
	What  string    `json:"what"`  // of the last time; may be empty
	Count int       `json:"count"` // how often since the client was started
	Last  time.Time `json:"last"`
}

// suspicions is what was noticed, one entry for each code: no broker makes it grow
// beyond the table of codes.
type suspicions struct {
	mu  sync.Mutex
	all map[wire.Code]Suspicion
}

// Suspicions returns what the broker was caught at since the client was started, by code.
func (c *Client) Suspicions() []Suspicion {
	c.suspicions.mu.Lock()
	defer c.suspicions.mu.Unlock()
	out := make([]Suspicion, 0, len(c.suspicions.all))
	for _, s := range c.suspicions.all {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Suspicion) int { return strings.Compare(string(a.Code), string(b.Code)) })
	return out
}

// saidAtMost bounds how many suspicions are said in a sentence.
const saidAtMost = 3

// Caught says for people what the broker was caught at: the latest first; "" when at nothing.
func (c *Client) Caught() string {
	all := c.Suspicions()
	slices.SortStableFunc(all, func(a, b Suspicion) int { return b.Last.Compare(a.Last) })
	var said []string
	for _, s := range all[:min(len(all), saidAtMost)] {
		said = append(said, fmt.Sprintf("%s (%s, times: %d)", s.Code.Info().Text, s.Code, s.Count))
	}
	if more := len(all) - saidAtMost; more > 0 {
		said = append(said, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(said, "; ")
}

// noteAgain is how long a code must not have come before it is noted anew: no broker
// fills the audit log.
const noteAgain = time.Minute

// caught notes what no honest broker does, here and in the audit log, and returns it
// as an error.
func (c *Client) caught(code wire.Code, what string) *wire.Fault {
	c.log.Warn("the broker shows what does not hold", "code", code, "what", what)
	if quiet := c.count(code, what); quiet > noteAgain {
		c.note(c.ctx, audit.Entry{Event: audit.Refused, Code: string(code), Note: what})
	}
	return wire.Faultf(code, what)
}

// count counts what was noticed and returns how long ago it was the last time.
func (c *Client) count(code wire.Code, what string) (quiet time.Duration) {
	c.suspicions.mu.Lock()
	defer c.suspicions.mu.Unlock()
	if c.suspicions.all == nil {
		c.suspicions.all = map[wire.Code]Suspicion{}
	}
	old, now := c.suspicions.all[code], c.now()
	c.suspicions.all[code] = Suspicion{code, what, old.Count + 1, now}
	return now.Sub(old.Last)
}

// innocent are the refusals of messages that an honest broker brings as well: of who
// was removed while the message was under way, of agents that go on for too long, and
// of whom this person does not want to hear.
var innocent = []wire.Code{wire.CodeRemoved, wire.CodeInviteClosed, wire.CodeTooManyHops, wire.CodeBlocked, wire.CodeNotGranted}

// undone says why a statement that the broker shows as new is none: what is known
// of the membership has undone it, or has it in a newer form.
func undone(r *trust.Roster, s mailbox.Statement) error {
	switch {
	case s.Certificate != nil:
		return r.Barred(s.Certificate)
	case s.Pause != nil && r.Lifted(*s.Pause):
		return wire.Faultf(wire.CodeReplayed, "a pause that was lifted")
	case s.Role != nil:
		if v, err := r.VerifyRole(*s.Role); err == nil && v.Issued < r.RoleIssued(v.Member) {
			return wire.Faultf(wire.CodeReplayed, "a role that was changed since")
		}
	}
	return nil
}

// taken is a message that was stored, as its recipient knows it.
type taken struct {
	sender, recipient Key
	id                ID
}

// checkOnce: a message that comes again is stored once whatever the broker does. Under
// the same number it comes again when an acknowledgement was lost; under another, on
// the same connection, it is replayed.
func (k *conn) checkOnce(p *wire.Push, fresh bool) {
	t := taken{p.SenderPubkey, p.To, p.ID}
	if was, ok := k.taken[t]; ok && !fresh && was != p.Delivery {
		k.c.caught(wire.CodeReplayed, "a message under another number")
	}
	if len(k.taken) >= maxShared {
		clear(k.taken)
	}
	k.taken[t] = p.Delivery
}
