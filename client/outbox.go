package client

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/wire"
)

const (
	drainPage   = 64              // messages in flight to the broker
	orphanAge   = 2 * time.Second // after which another process's message is carried
	orphanEvery = 5 * time.Second // how often such are looked for
	retryAtMost = 30 * time.Second
)

// drainLoop hands stored messages to the broker whenever there is a
// connection: this session's own at once, and those that other sessions of the member have left.
func (c *Client) drainLoop() {
	tick := time.NewTicker(orphanEvery)
	defer tick.Stop()
	changes := c.box.Watch(c.ctx)
	for {
		wait := c.drain(c.ctx)
		var retry <-chan time.Time
		if wait > 0 {
			retry = time.After(wait)
		}
		select {
		case <-c.ctx.Done():
			return
		case <-c.kick:
		case <-changes:
		case <-tick.C:
		case <-retry:
		}
	}
}

// drain sends what is pending, in order, and returns how long to wait before
// trying what was put off. Every process that shares the mailbox may drain the
// same rows: each sends them in order, and the broker takes each id once.
func (c *Client) drain(ctx context.Context) (wait time.Duration) {
	k, err := c.online()
	if err != nil {
		return 0
	}
	if c.withheldNow() != nil || !c.PausedUntil().IsZero() {
		return 0
	}
	wait = c.drainLane(ctx, k, c.self, 0)
	if ctx.Err() == nil && c.role != Observer {
		other := c.drainLane(ctx, k, Key{}, c.clock()-orphanAge.Milliseconds())
		if wait == 0 || (other > 0 && other < wait) {
			wait = other
		}
	}
	return wait
}

func (c *Client) withheldNow() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.withheld > c.roster.Generation() {
		return wire.Faultf(wire.CodeRemovalWithheld, "nothing is sent until it shows it")
	}
	return nil
}

// Release lets n more messages of a held outbox (Options.Hold) go.
func (c *Client) Release(n int) {
	c.allowed.Add(int64(n))
	c.poke()
}

// allow reports whether one more message may leave, and counts it.
func (c *Client) allow() bool {
	if !c.hold {
		return true
	}
	if c.allowed.Add(-1) < 0 {
		c.allowed.Add(1)
		return false
	}
	return true
}

// flight is one message on its way to the broker.
type flight struct {
	out   mailbox.Outgoing
	reply chan wire.Frame
}

// lane walks the pending messages of one sender, or of all, in order.
type lane struct {
	c        *Client
	sender   Key
	notAfter int64
	full     map[Key]time.Duration // recipients whose queue is full, and how long to leave them
	page     []mailbox.Outgoing
	after    int64
	done     bool
}

// next returns the next message that is worth sending; ok is false at the end.
func (l *lane) next(ctx context.Context) (out mailbox.Outgoing, ok bool, err error) {
	for {
		if len(l.page) == 0 {
			if l.done {
				return out, false, nil
			}
			l.page, err = l.c.box.Pending(ctx, l.c.m.MeshID, l.sender, l.after, l.notAfter, drainPage)
			if err != nil {
				return out, false, err
			}
			l.done = len(l.page) < drainPage
			continue
		}
		out = l.page[0]
		if out.Expires > l.c.clock() && l.behind(out) {
			l.page, l.after = l.page[1:], out.Number
			continue
		}
		if out.Expires > l.c.clock() && !l.c.allow() {
			return out, false, nil
		}
		l.page, l.after = l.page[1:], out.Number
		if out.Expires > l.c.clock() {
			return out, true, nil
		}
		l.c.settleAll(ctx, out, Bounced, wire.CodeExpired)
	}
}

// behind reports whether a message must wait: a recipient's queue is full.
func (l *lane) behind(out mailbox.Outgoing) bool {
	return slices.ContainsFunc(out.Recipients, func(r mailbox.OutRecipient) bool { _, full := l.full[r.Key]; return full })
}

// drainLane sends the pending messages of one sender, or of all (zero), up to
// drainPage of them in flight. It stops at the first that is put off, so that
// order holds, and says for how long; what a full queue puts off holds up no
// more than what else goes there.
func (c *Client) drainLane(ctx context.Context, k *conn, sender Key, notAfter int64) (wait time.Duration) {
	l := &lane{c: c, sender: sender, notAfter: notAfter, full: map[Key]time.Duration{}}
	var flights []flight
	for {
		for wait == 0 && len(flights) < drainPage {
			out, ok, err := l.next(ctx)
			if err != nil {
				if ctx.Err() == nil {
					c.log.Error("the outbox does not read", "error", err)
				}
				return retryAtMost
			}
			if !ok {
				break
			}
			ch, err := k.request(c.sendFrame(out))
			if err != nil {
				return 0 // the next connection drains again
			}
			flights = append(flights, flight{out, ch})
		}
		if len(flights) == 0 {
			for _, w := range l.full {
				wait = max(wait, w)
			}
			return wait
		}
		f := flights[0]
		code, w, lost := c.land(ctx, f)
		switch {
		case lost:
			return 0
		case code == wire.CodeQueueFull:
			for _, r := range f.out.Recipients {
				l.full[r.Key] = w
			}
		default:
			wait = max(wait, w)
		}
		flights = flights[1:]
	}
}

// sendFrame is a stored message as it goes to the broker, for those recipients
// that have not got it yet.
func (c *Client) sendFrame(out mailbox.Outgoing) *wire.Send {
	f := &wire.Send{
		ID: out.ID, Mode: out.Mode, Priority: out.Priority, Expires: out.Expires, Nonce: out.Nonce, Ciphertext: out.Ciphertext,
	}
	if out.Sender != c.self {
		f.From = out.Sender
	}
	for _, r := range out.Recipients {
		switch {
		case out.Mode.Direct():
			f.To = r.Key
		case (r.State == Stored || r.State == Accepted) && len(r.Wrap) > 0:
			f.Wraps = append(f.Wraps, wire.Wrap{To: r.Key, Box: r.Wrap})
		}
	}
	return f
}

// land waits for the broker's word on one message and notes it. One that is put
// off comes with the code and the wait.
func (c *Client) land(ctx context.Context, f flight) (code wire.Code, wait time.Duration, lost bool) {
	t := time.NewTimer(replyTimeout)
	defer t.Stop()
	select {
	case r, ok := <-f.reply:
		if !ok {
			return "", 0, true
		}
		switch r := r.(type) {
		case *wire.Ack:
			if r.ID != f.out.ID || !r.Queued {
				c.caught(wire.CodeBadAck, "")
				return "", time.Second, false
			}
			c.accepted(ctx, f.out, r)
		case *wire.Error:
			return r.Code, c.refused(ctx, f.out, r), false
		}
		return "", 0, false
	case <-t.C:
		return "", time.Second, false
	case <-ctx.Done():
		return "", 0, true
	}
}

// accepted notes what an acknowledgement says of each recipient.
func (c *Client) accepted(ctx context.Context, out mailbox.Outgoing, a *wire.Ack) {
	now := c.clock()
	for _, r := range a.Recipients {
		c.advance(ctx, out.ID, r.Key, Accepted, "", r.Online, now)
		switch r.State {
		case wire.StateDelivered:
			c.advance(ctx, out.ID, r.Key, Delivered, "", r.Online, now)
		case wire.StateBounced:
			c.advance(ctx, out.ID, r.Key, Bounced, r.Code, false, now)
		}
	}
	for _, s := range a.Skipped {
		c.advance(ctx, out.ID, s.Key, Bounced, s.Code, false, now)
	}
}

// refused puts a message off, or gives it up, as the code says.
func (c *Client) refused(ctx context.Context, out mailbox.Outgoing, e *wire.Error) (wait time.Duration) {
	if e.Code.Info().Retryable {
		c.log.Debug("send put off", "code", e.Code, "retry_after_ms", e.RetryAfterMs)
		return min(max(time.Duration(e.RetryAfterMs)*time.Millisecond, time.Second), retryAtMost)
	}
	c.settleAll(ctx, out, Bounced, e.Code)
	return 0
}

func (c *Client) settleAll(ctx context.Context, out mailbox.Outgoing, s MessageState, code wire.Code) {
	for _, r := range out.Recipients {
		c.advance(ctx, out.ID, r.Key, s, code, false, c.clock())
	}
}

// advance notes a state, and re-seals to the member what its dead session cannot take.
func (c *Client) advance(ctx context.Context, id ID, recipient Key, s MessageState, code wire.Code, online bool, at int64) {
	changed, err := c.box.Advance(ctx, c.m.MeshID, id, recipient, s, code, online, at)
	if err != nil {
		if !errors.Is(err, mailbox.ErrNotFound) && ctx.Err() == nil {
			c.log.Error("state is not noted", "error", err)
		}
		return
	}
	if changed && s == Bounced && (code == wire.CodeSessionGone || code == wire.CodeUnknownRecipient) {
		if err := c.reseal(ctx, id, recipient); err != nil && ctx.Err() == nil {
			c.log.Warn("message to a gone session is not re-sealed", "error", err)
		}
	}
}

// reseal sends a direct that was meant for a person, and bounced off that
// person's gone session, to the member's own key: under a new id that names the old one.
func (c *Client) reseal(ctx context.Context, id ID, recipient Key) error {
	out, err := c.box.Outgoing(ctx, id)
	if err != nil || out.Mode != wire.ModeDM || !out.ToPerson || out.Sender != c.self || len(out.Recipients) != 1 {
		return err
	}
	member := out.Recipients[0].Member
	if member == recipient || member.IsZero() {
		return nil
	}
	c.mu.Lock()
	m, ok := c.roster.Member(member)
	c.mu.Unlock()
	if !ok {
		return nil
	}
	to := []resolved{{Recipient{Key: member, Member: member, Name: m.Name}, out.Target}}
	msg := Message{To: []string{m.Name}, Text: out.Text, Priority: out.Priority, ReplyTo: out.ReplyTo, Hop: out.Hop}
	h := c.newHeader(msg, to, false)
	h.Replaces = id
	if err := c.put(ctx, h, textContent(out.Text), to); err != nil {
		return err
	}
	c.poke()
	return nil
}

// receipt notes what the broker says became of a delivery.
func (c *Client) receipt(f *wire.Receipt) {
	switch f.State {
	case wire.StateDelivered:
		c.advance(c.ctx, f.ID, f.Recipient, Delivered, "", false, f.At)
	case wire.StateBounced:
		c.advance(c.ctx, f.ID, f.Recipient, Bounced, f.Code, false, f.At)
	}
}

// askBack is how long after its expiry a message is asked about: the broker
// remembers it for a day, and one that expired while its sender was away has bounced.
const askBack = 23 * time.Hour

// askStatuses asks what became of every message that was accepted and not yet
// delivered: a receipt that came while this client was away is not repeated. One
// that the broker knows nothing of was lost with it, in a restore from a backup: it is
// sent again.
func (c *Client) askStatuses(ctx context.Context, k *conn) error {
	ids, err := c.box.Unsettled(ctx, c.m.MeshID, c.clock()-askBack.Milliseconds(), 10_000)
	if err != nil {
		return err
	}
	for len(ids) > 0 {
		n := min(len(ids), wire.MaxStatusIDs)
		known, err := c.askStatus(ctx, k, ids[:n])
		if err != nil {
			return err
		}
		for _, id := range ids[:n] {
			if !known[id] {
				if err := c.sendAgain(ctx, k, id); err != nil {
					return err
				}
			}
		}
		ids = ids[n:]
	}
	return nil
}

// sendAgain hands over a message that the broker has forgotten.
func (c *Client) sendAgain(ctx context.Context, k *conn, id ID) error {
	out, err := c.box.Outgoing(ctx, id)
	if err != nil {
		return err
	}
	ch, err := k.request(c.sendFrame(out))
	if err != nil {
		return err
	}
	c.log.Info("the broker has forgotten a message; it is sent again", "id", id.String()[:8])
	_, _, _ = c.land(ctx, flight{out, ch})
	return nil
}

// askStatus notes what the broker knows of some messages and says which it knows.
func (c *Client) askStatus(ctx context.Context, k *conn, ids []ID) (known map[ID]bool, err error) {
	reply, err := k.ask(ctx, &wire.MessageStatus{IDs: ids})
	if err != nil {
		return nil, err
	}
	known = map[ID]bool{}
	if l, ok := reply.(*wire.StatusList); ok {
		for i := range l.Statuses {
			known[l.Statuses[i].ID] = true
			c.receipt(&l.Statuses[i])
		}
	}
	return known, nil
}
