package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/seal"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// Priority says how soon a message should be seen: now, next or low.
type Priority = wire.Priority

// The priorities.
const (
	Now  = wire.PriorityNow
	Next = wire.PriorityNext
	Low  = wire.PriorityLow
)

// MessageState is what is known of a message at one recipient.
type MessageState = mailbox.State

// The states, in the order in which a message goes through them; Bounced ends
// any before Delivered.
const (
	Stored    = mailbox.Stored
	Accepted  = mailbox.Accepted
	Delivered = mailbox.Delivered
	Read      = mailbox.Read
	Bounced   = mailbox.Bounced
)

// Message is what Send takes.
type Message struct {
	To       []string // targets: names, keys, @groups, *
	Text     string
	Priority Priority      // default Next
	ReplyTo  ID            // zero when it answers nothing
	Expires  time.Duration // default 7 days, for Now 1 hour; at most 30 days
	By       Author        // who made it; default ByProgram
	Looked   bool          // a person has looked at it: it is not held
	Hop      uint64        // at least; of a message that was held
}

// Sent says what became of a message so far.
type Sent struct {
	ID       ID
	Mesh     string
	Priority Priority
	Targets  []SentTarget
}

// SentTarget is one recipient, or one target that did not resolve (Err set).
type SentTarget struct {
	Target   string // as it was given
	Name     string
	Key      Key
	State    MessageState
	Code     wire.Code // of a bounce
	Online   bool
	LastSeen time.Time // of a recipient that is not online; zero when never seen
	Err      error     // a *TargetError
	Wakeability
}

// OK reports whether every target has resolved and no recipient has refused.
func (s *Sent) OK() bool {
	return !slices.ContainsFunc(s.Targets, func(t SentTarget) bool { return t.Err != nil || t.State == Bounced })
}

// acceptWait bounds how long Send waits for the broker's word when online.
const acceptWait = 10 * time.Second

// Resolve finds who the targets mean, without sending. Targets that do not
// resolve carry an Err; a recipient named twice stands once.
func (c *Client) Resolve(ctx context.Context, targets []string) (to []SentTarget, multi bool, err error) {
	d, err := c.directory(ctx)
	if err != nil {
		return nil, false, err
	}
	recipients, failed, multi := d.all(targets)
	for _, r := range recipients {
		to = append(to, SentTarget{Target: r.target, Name: r.Name, Key: r.Key, Online: r.Online, LastSeen: r.LastSeen, Wakeability: r.Wakeability})
	}
	return append(to, failed...), multi, nil
}

// directory is the resolver's input, as fresh as the connection allows.
func (c *Client) directory(ctx context.Context) (*directory, error) {
	peers, _, err := c.Peers(ctx, true)
	if err != nil {
		return nil, err
	}
	return &directory{self: c.self, members: c.Members(), peers: peers, now: c.now()}, nil
}

// resolved is a recipient with the target that named it first.
type resolved struct {
	Recipient
	target string
}

// all resolves a list. Multi is true when a group or * is in it.
func (d *directory) all(targets []string) (to []resolved, failed []SentTarget, multi bool) {
	seen := map[Key]bool{}
	for _, t := range targets {
		rs, many, err := d.resolve(t)
		if err != nil {
			failed = append(failed, SentTarget{Target: t, Err: err})
			continue
		}
		multi = multi || many
		for _, r := range rs {
			if !seen[r.Key] {
				seen[r.Key] = true
				to = append(to, resolved{r, t})
			}
		}
	}
	return to, failed, multi
}

// Send resolves, seals and stores a message, and hands it to the broker when
// it can. It returns what is known by then: accepted by the broker, or stored
// here when the broker is away. Targets that do not resolve are refused, each
// with its reason; the others are sent all the same. When none resolves, the
// error is the first one's. *HeldError when a person is to look at it first;
// *RemovedError and *Fault when nothing of this member's is taken now.
func (c *Client) Send(ctx context.Context, m Message) (*Sent, error) {
	if m.Priority == "" {
		m.Priority = Next
	}
	if m.Priority.Rank() < 0 {
		return nil, fmt.Errorf("priority is now, next or low, not %q", m.Priority)
	}
	if len(m.Text) > wire.MaxBodyBytes {
		return nil, wire.Faultf(wire.CodeTooLarge, fmt.Sprintf("a message holds at most %d bytes, this one has %d", wire.MaxBodyBytes, len(m.Text)))
	}
	if err := c.refusal(); err != nil {
		return nil, err
	}
	d, err := c.directory(ctx)
	if err != nil {
		return nil, err
	}
	to, failed, multi := d.all(m.To)
	if slices.ContainsFunc(failed, notFound) && c.lookAgain(ctx) == nil {
		if d, err = c.directory(ctx); err != nil {
			return nil, err
		}
		to, failed, multi = d.all(m.To)
	}
	if len(to) == 0 {
		if len(failed) == 0 {
			return nil, &TargetError{Reason: ReasonInvalid}
		}
		return &Sent{Mesh: c.m.Mesh, Targets: failed}, failed[0].Err
	}
	if len(to) > wire.MaxWraps {
		return nil, wire.Faultf(wire.CodeAudienceTooLarge, fmt.Sprintf("%d recipients, at most %d", len(to), wire.MaxWraps))
	}
	if m.Hop, err = c.brake(ctx, &m, to); err != nil {
		return nil, err
	}
	id, err := c.store(ctx, m, to, multi)
	if err != nil {
		return nil, err
	}
	c.poke()
	if !c.hold {
		c.awaitAccept(ctx, id)
	}
	return c.sent(ctx, id, to, failed)
}

func notFound(t SentTarget) bool {
	var e *TargetError
	return errors.As(t.Err, &e) && e.Reason == ReasonNotFound
}

// lookAgain asks the broker for members and peers afresh, before somebody is
// said not to be there.
func (c *Client) lookAgain(ctx context.Context) error {
	k, err := c.online()
	if err != nil {
		return err
	}
	if err := c.refreshMembers(ctx, k); err != nil {
		return err
	}
	c.mu.Lock()
	c.watching = false // the list is asked for again; the broker goes on telling of changes
	c.mu.Unlock()
	return c.fetchPeers(ctx, k)
}

// store seals a message and puts it into the outbox, in one transaction with
// the numbers that order it.
func (c *Client) store(ctx context.Context, m Message, to []resolved, multi bool) (ID, error) {
	h := c.newHeader(m, to, multi)
	return h.ID, c.put(ctx, h, seal.Content{Type: "text/plain", Body: []byte(m.Text)}, to)
}

func (c *Client) newHeader(m Message, to []resolved, multi bool) seal.Header {
	age := m.Expires
	if age <= 0 {
		age = 7 * 24 * time.Hour
		if m.Priority == Now {
			age = time.Hour
		}
	}
	age = min(age, seal.MaxLifetime*time.Millisecond)
	sent := c.clock()
	c.mu.Lock()
	gen := c.roster.Generation()
	c.mu.Unlock()
	h := seal.Header{
		Mode: wire.ModeDM, Mesh: c.m.MeshID, SenderMember: c.member.Public(), SenderSession: c.self,
		Target: strings.Join(m.To, ","), Sent: sent, Expires: sent + age.Milliseconds(), Priority: m.Priority,
		ReplyTo: m.ReplyTo, Generation: gen, ID: newID(sent), Hop: m.Hop,
	}
	switch {
	case slices.Contains(m.To, "*") || slices.Contains(m.To, "@all"):
		h.Mode = wire.ModeBroadcast
	case multi || len(to) > 1:
		h.Mode = wire.ModeGroup
	default:
		h.Recipient, h.Target = to[0].Key, to[0].Name
	}
	return h
}

// newID makes a UUID of version 7 (RFC 9562): milliseconds, then 74 random bits.
// In the order of time, what a broker and an inbox keep by id lies together.
func newID(now int64) (id ID) {
	rand.Read(id[6:]) // crypto/rand.Read never fails
	id[6], id[8] = id[6]&0x0f|0x70, id[8]&0x3f|0x80
	for i := range 6 {
		id[i] = byte(now >> (40 - 8*i))
	}
	return id
}

// put seals and stores; it is the one way into the outbox.
func (c *Client) put(ctx context.Context, h seal.Header, content seal.Content, to []resolved) error {
	shared := make([]*seal.Shared, len(to))
	lanes := make([]mailbox.Lane, len(to))
	for i, r := range to {
		s, err := c.sharedWith(c.session, r.Key)
		if err != nil {
			return err
		}
		shared[i] = s
		lanes[i] = mailbox.Lane{Mesh: h.Mesh, Sender: c.self, Recipient: r.Key, Priority: h.Priority}
	}
	if h.Mode == wire.ModeReceipt {
		lanes = nil // receipts stand outside the order of messages
	}
	_, err := c.box.Put(ctx, lanes, func(seqs []uint64) (mailbox.Outgoing, error) {
		return c.sealOut(h, content, to, shared, seqs)
	})
	return err
}

func (c *Client) sealOut(h seal.Header, content seal.Content, to []resolved, shared []*seal.Shared, seqs []uint64) (mailbox.Outgoing, error) {
	sender := seal.Sender{Session: c.session, Attestation: c.attestation}
	var env seal.Sealed
	var err error
	if h.Mode.Direct() {
		if len(seqs) > 0 {
			h.Seq = seqs[0]
		}
		env, err = seal.Direct(h, content, sender, shared[0])
	} else {
		rs := make([]seal.GroupRecipient, len(to))
		for i, r := range to {
			rs[i] = seal.GroupRecipient{Key: r.Key, Shared: shared[i], Seq: seqs[i]}
		}
		env, err = seal.Group(h, content, sender, rs)
	}
	if err != nil {
		return mailbox.Outgoing{}, err
	}
	out := mailbox.Outgoing{
		Mesh: h.Mesh, Sender: c.self, ID: h.ID, Mode: h.Mode, Target: h.Target, Priority: h.Priority, Sent: h.Sent,
		Expires: h.Expires, ReplyTo: h.ReplyTo, Replaces: h.Replaces, Hop: h.Hop, Nonce: env.Nonce, Ciphertext: env.Ciphertext,
	}
	if h.Mode != wire.ModeReceipt {
		out.Text = string(content.Body)
	}
	for i, r := range to {
		o := mailbox.OutRecipient{Key: r.Key, Member: r.Member, Name: r.Name, State: Stored, At: h.Sent}
		if i < len(env.Wraps) {
			o.Wrap = env.Wraps[i].Box
		}
		out.ToPerson = out.ToPerson || r.person
		out.Recipients = append(out.Recipients, o)
	}
	return out, nil
}

// awaitAccept waits, while online, until every recipient of a message is past stored.
func (c *Client) awaitAccept(ctx context.Context, id ID) {
	ctx, cancel := context.WithTimeout(ctx, acceptWait)
	defer cancel()
	changes := c.box.Watch(ctx)
	for {
		out, err := c.box.Outgoing(ctx, id)
		if err != nil || !slices.ContainsFunc(out.Recipients, func(r mailbox.OutRecipient) bool { return r.State == Stored }) {
			return
		}
		c.mu.Lock()
		online, ch := c.conn != nil, c.changed
		c.mu.Unlock()
		if !online {
			return
		}
		select {
		case <-changes:
		case <-ch:
		case <-ctx.Done():
			return
		case <-c.ctx.Done():
			return
		}
	}
}

// sent describes a stored message with what was known when it was resolved.
func (c *Client) sent(ctx context.Context, id ID, to []resolved, failed []SentTarget) (*Sent, error) {
	out, err := c.box.Outgoing(context.WithoutCancel(ctx), id)
	if err != nil {
		return nil, err
	}
	s := &Sent{ID: id, Mesh: c.m.Mesh, Priority: out.Priority}
	for i, r := range out.Recipients {
		t := SentTarget{Name: r.Name, Key: r.Key, State: r.State, Code: r.Code, Online: r.Online}
		if i < len(to) {
			t.Target, t.LastSeen, t.Wakeability = to[i].target, to[i].LastSeen, to[i].Wakeability
		}
		switch r.State {
		case Stored:
			t.Online = false // nobody has said so
		case Delivered, Read:
			t.Online = true // it took the message just now; the receipt may overtake the broker's acknowledgement
		}
		s.Targets = append(s.Targets, t)
	}
	s.Targets = append(s.Targets, failed...)
	return s, nil
}

// Status returns what is known of a message that was sent from this machine.
// Online it asks the broker first. ErrNoMessage when there is none of that id.
func (c *Client) Status(ctx context.Context, id ID) (*Sent, time.Time, error) {
	if k, err := c.online(); err == nil {
		if _, err := c.askStatus(ctx, k, []ID{id}); err != nil {
			c.log.Debug("status from memory", "error", err)
		}
	}
	out, err := c.box.Outgoing(ctx, id)
	if errors.Is(err, mailbox.ErrNotFound) || (err == nil && out.Mesh != c.m.MeshID) {
		return nil, time.Time{}, ErrNoMessage
	}
	if err != nil {
		return nil, time.Time{}, err
	}
	s := &Sent{ID: id, Mesh: c.m.Mesh, Priority: out.Priority}
	for _, r := range out.Recipients {
		s.Targets = append(s.Targets, SentTarget{
			Target: out.Target, Name: r.Name, Key: r.Key, State: r.State, Code: r.Code, Online: r.Online,
			LastSeen: time.UnixMilli(r.At),
		})
	}
	return s, time.UnixMilli(out.Sent), nil
}

// ErrNoMessage says that no message has that id here.
var ErrNoMessage = errors.New("no message of that id was sent from here")
