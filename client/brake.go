package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/claudemesh/claudemesh/internal/audit"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/seal"
	"github.com/claudemesh/claudemesh/internal/secrets"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// Author says who made a message, and with that what is looked at before it goes.
type Author int

// The authors.
const (
	ByProgram Author = iota // goes as it is: for gateways
	ByPerson                // held when it seems to hold a secret
	ByAgent                 // also counted and held as what could run in circles or spread
)

const (
	// recentTalk is within which what an agent has read makes what it sends to the
	// same peer an answer, said so or not, and the same text to others a spread.
	recentTalk = 10 * time.Minute
	// spreadMost is to how many peers a text may go on that was not new here.
	spreadMost = 2
)

// HeldError says that a message was not sent: it waits for a person to look at it.
type HeldError struct {
	Number int64  // in the mailbox
	Reason string // in a few words
}

func (e *HeldError) Error() string { return "held for a person to look at: " + e.Reason }

// brake decides whether a message goes: it returns its hop, or why it does not.
func (c *Client) brake(ctx context.Context, m *Message, to []resolved) (hop uint64, err error) {
	if m.By == ByAgent {
		if hop, err = c.hop(ctx, m.ReplyTo, to); err != nil {
			return 0, err
		}
		if hop >= seal.MaxHop {
			return 0, wire.Faultf(wire.CodeTooManyHops, "")
		}
	}
	if m.Hop > hop { // of one that was held
		hop = m.Hop
	}
	reason, err := c.suspect(ctx, m, to)
	if err != nil || reason == "" {
		return hop, err
	}
	h := mailbox.Held{
		Mesh: c.m.MeshID, Sender: c.self, To: m.To, Text: m.Text, Priority: m.Priority, ReplyTo: m.ReplyTo, Hop: hop,
		Expires: m.Expires.Milliseconds(), Reason: reason, At: c.now().UnixMilli(),
	}
	number, err := c.box.Hold(ctx, h)
	if err != nil {
		return 0, err
	}
	c.note(ctx, audit.Entry{Event: audit.Held, Member: c.member.Public(), Note: reason})
	return 0, &HeldError{number, reason}
}

// hop is one more than that of the message which is answered. What an agent
// sends to somebody whose message it has just read is automatic too, though it
// does not say what it answers.
func (c *Client) hop(ctx context.Context, replyTo ID, to []resolved) (uint64, error) {
	if !replyTo.IsZero() {
		in, err := c.box.Message(ctx, replyTo, c.Addresses())
		if err == nil {
			return in.Hop + 1, nil
		}
		if !errors.Is(err, mailbox.ErrNotFound) {
			return 0, err
		}
	}
	var from []Key
	for _, r := range to {
		from = append(from, r.Key)
	}
	_, recent, err := c.box.HopOf(ctx, c.Addresses(), ID{}, from, c.now().Add(-recentTalk).UnixMilli())
	if err != nil || !recent {
		return 0, err
	}
	return 1, nil
}

// suspect says why a person should look at a message before it goes; "" if none needs to.
func (c *Client) suspect(ctx context.Context, m *Message, to []resolved) (string, error) {
	if m.By == ByProgram || m.Looked {
		return "", nil
	}
	if found := secrets.Find(m.Text); len(found) > 0 {
		return "it seems to hold " + found[0].String(), nil
	}
	if m.By != ByAgent {
		return "", nil
	}
	since := c.now().Add(-recentTalk).UnixMilli()
	peers, known, err := c.box.Spread(ctx, c.m.MeshID, c.self, mailbox.Digest(m.Text), since)
	if err != nil || !known {
		return "", err
	}
	have := map[Key]bool{}
	for _, k := range peers {
		have[k] = true
	}
	for _, r := range to {
		have[r.Key] = true
	}
	if len(have) > spreadMost {
		return fmt.Sprintf("the same text to %d peers within ten minutes", len(have)), nil
	}
	return "", nil
}
