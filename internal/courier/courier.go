// Package courier brings messages from the mailbox into agents: what it leases,
// how it is put before a model, and when that counts as read. It knows nothing
// of the network.
package courier

import (
	"context"
	"crypto/rand"
	"strings"
	"time"

	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/wire"
)

const (
	// maxBatch and maxText bound what enters an agent at once; the rest is counted.
	maxBatch = 20
	maxText  = 32 << 10
	// LeaseFor is how long a message is held by a courier that does not renew it.
	LeaseFor = 30 * time.Second
)

// Courier is one way into one agent, in this process.
type Courier struct {
	Box    mailbox.Mailbox
	Path   mailbox.Path
	Size   int // bytes of text that enter at once
	pid    int
	holder string
	now    func() time.Time
}

// New returns a courier to the agent of a process.
func New(box mailbox.Mailbox, pid int, path mailbox.Path) *Courier {
	return &Courier{
		Box: box, Path: path, Size: maxText, pid: pid, now: time.Now,
		holder: mailbox.HolderOf(pid) + string(path) + "/" + rand.Text()[:8],
	}
}

// Resume returns the courier that had this name in a process that has ended:
// what that leased is its own. Nil if the agent's path has no such name.
func Resume(box mailbox.Mailbox, pid int, path mailbox.Path, holder string) *Courier {
	if !strings.HasPrefix(holder, mailbox.HolderOf(pid)+string(path)+"/") {
		return nil
	}
	c := New(box, pid, path)
	c.holder = holder
	return c
}

// Clock makes the courier go by another clock.
func (c *Courier) Clock(now func() time.Time) *Courier {
	c.now = now
	return c
}

// NewBatch is messages for an agent as if they had been taken.
func NewBatch(a mailbox.Agent, msgs []mailbox.Incoming) *Batch { return &Batch{Messages: msgs, a: a} }

// Holder is the courier's name in leases: what its process leases stays its own.
func (c *Courier) Holder() string { return c.holder }

// Agent returns the agent's record as it is now. mailbox.ErrNoAgent.
func (c *Courier) Agent(ctx context.Context) (mailbox.Agent, error) { return c.Box.Agent(ctx, c.pid) }

// Batch is messages that are brought in together.
type Batch struct {
	Messages []mailbox.Incoming
	Rest     int // others that wait
	a        mailbox.Agent
}

// query selects what comes as far as a gate now: under dnd only what is urgent.
func (c *Courier) query(a *mailbox.Agent, gate mailbox.Gate, least wire.Priority) mailbox.Query {
	if a.DND {
		least = wire.PriorityNow
	}
	q := mailbox.Query{
		Recipients: a.Recipients(), AtLeast: least, Gate: gate, Holder: c.holder, Now: c.now().UnixMilli(), Limit: maxBatch,
	}
	if a.Server.Alive() { // else nobody waits any more
		q.Except = a.Held
	}
	return q
}

// Waiting lists, without a lease, what least and more urgent messages may enter
// an agent and no other courier brings in.
func (c *Courier) Waiting(ctx context.Context, a mailbox.Agent, least wire.Priority) (*Batch, error) {
	return c.list(ctx, a, mailbox.OpenGate, least)
}

// Ringing is Waiting with those too that may only be told of: for a doorbell,
// not to begin anything.
func (c *Courier) Ringing(ctx context.Context, a mailbox.Agent, least wire.Priority) (*Batch, error) {
	return c.list(ctx, a, mailbox.Bell, least)
}

func (c *Courier) list(ctx context.Context, a mailbox.Agent, gate mailbox.Gate, least wire.Priority) (*Batch, error) {
	if len(a.Seats) == 0 {
		return &Batch{a: a}, nil
	}
	msgs, more, err := c.Box.List(ctx, c.query(&a, gate, least))
	return &Batch{Messages: msgs, Rest: more, a: a}, err
}

// Take leases what waits for an agent, as much as enters at once, until a time.
// What did not fit into the text is put back and counted.
func (c *Courier) Take(ctx context.Context, a mailbox.Agent, least wire.Priority, until time.Time) (*Batch, error) {
	b := &Batch{a: a}
	if len(a.Seats) == 0 {
		return b, nil
	}
	msgs, more, err := c.Box.Lease(ctx, c.query(&a, mailbox.OpenGate, least), until.UnixMilli())
	if err != nil {
		return nil, err
	}
	size, fit := 0, 0
	for ; fit < len(msgs); fit++ {
		size += len(b.block(&msgs[fit]))
		if fit > 0 && size > c.Size {
			break
		}
	}
	b.Messages, b.Rest = msgs[:fit], more+len(msgs)-fit
	if fit < len(msgs) {
		err = c.Box.Release(ctx, c.holder, (&Batch{Messages: msgs[fit:]}).Numbers())
	}
	return b, err
}

// Numbers are the messages' numbers in the mailbox.
func (b *Batch) Numbers() []int64 {
	numbers := make([]int64, len(b.Messages))
	for i := range b.Messages {
		numbers[i] = b.Messages[i].Number
	}
	return numbers
}

// Shown marks a batch read: the model has it. Its senders are told.
func (c *Courier) Shown(ctx context.Context, b *Batch) error {
	return markShown(ctx, c.Box, &b.a, c.holder, b.Messages, c.now())
}

func markShown(ctx context.Context, box mailbox.Mailbox, a *mailbox.Agent, holder string, msgs []mailbox.Incoming, now time.Time) error {
	var shown []mailbox.Showing
	for i := range msgs {
		if s := a.Seat(msgs[i].Mesh); s != nil { // else the mesh was left meanwhile
			shown = append(shown, mailbox.Showing{Number: msgs[i].Number, Reader: s.Key, At: now.UnixMilli() + s.Offset})
		}
	}
	_, err := box.MarkShown(ctx, holder, shown)
	return err
}

// Back puts a batch back for any courier to take.
func (c *Courier) Back(ctx context.Context, b *Batch) error {
	return c.Box.Release(ctx, c.holder, b.Numbers())
}
