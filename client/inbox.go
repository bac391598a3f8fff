package client

import (
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"github.com/claudemesh/claudemesh/internal/audit"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/seal"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// receiptType is the content type of a read receipt.
const receiptType = "application/claudemesh-receipt"

func textContent(s string) seal.Content { return seal.Content{Type: "text/plain", Body: []byte(s)} }

// receiptBody is the content of a read receipt: these messages of yours, which
// were addressed to that key, were shown.
type receiptBody struct {
	State     MessageState `json:"state"`
	Recipient Key          `json:"recipient"`
	IDs       []ID         `json:"ids"`
}

// ackWithin is how long an acknowledgement may wait for others to go with it, while
// less than half of the broker's window waits for them.
const ackWithin = 5 * time.Millisecond

// receive opens pushes in order, stores them, and only then acknowledges. What
// has gathered meanwhile is stored in one transaction.
func (k *conn) receive(ctx context.Context) {
	defer close(k.deaf)
	defer k.sendAcks()
	soon := time.NewTimer(ackWithin)
	defer soon.Stop()
	for {
		var batch []*wire.Push
		select {
		case p := <-k.pushes:
			batch = append(batch, p)
		case <-soon.C:
			k.sendAcks()
			continue
		case <-ctx.Done():
			return
		}
		for more := true; more && len(batch) < pushBatch; {
			select {
			case p := <-k.pushes:
				batch = append(batch, p)
			default:
				more = false
			}
		}
		if err := k.take(ctx, batch); err != nil {
			if ctx.Err() == nil { // else the connection ends anyway, and cleanly if it can
				k.c.log.Error("received messages are not stored; they will come again", "error", err)
				k.fail(err)
				_ = k.ws.CloseNow()
			}
			return
		}
		switch n := len(k.acks); {
		case n >= k.hello.Limits.Window/2:
			k.sendAcks()
		case n <= len(batch): // the first of them has just come
			soon.Reset(ackWithin)
		}
	}
}

// sendAcks acknowledges what is on disk.
func (k *conn) sendAcks() {
	if len(k.acks) > 0 {
		if k.send(&wire.ClientAck{Deliveries: k.acks}) != nil {
			_ = k.ws.CloseNow() // they come again on the next
		}
		k.acks = nil
	}
}

// take stores a batch and answers each push: an acknowledgement, which sendAcks
// sends, for what is on disk, whether it was new or seen before, a refusal with
// its code for the rest.
func (k *conn) take(ctx context.Context, batch []*wire.Push) error {
	c := k.c
	var in []mailbox.Incoming
	var from []*wire.Push
	for _, p := range batch {
		if c.relay != nil {
			if err := c.relay(p); err != nil {
				return err
			}
			k.acks = append(k.acks, p.Delivery)
			continue
		}
		o, err := c.openPush(ctx, k, p)
		if f := new(wire.Fault); errors.As(err, &f) {
			k.refuse(ctx, p, f.Code)
			continue
		}
		if err != nil {
			return err
		}
		if o.Header.Mode == wire.ModeReceipt {
			if err := c.readReceipt(ctx, o); err != nil {
				k.refuse(ctx, p, err.Code)
			} else {
				k.acks = append(k.acks, p.Delivery)
			}
			continue
		}
		c.introduce(ctx, k, o.Header.SenderMember, o.Header.SenderSession)
		in, from = append(in, c.incoming(p, o)), append(from, p)
	}
	if len(in) > 0 {
		_, errs, err := c.box.Receive(ctx, in)
		if err != nil {
			return err
		}
		for i, p := range from {
			if code := refusalCode(errs[i]); code != "" {
				k.nack(p, code)
			} else {
				k.acks = append(k.acks, p.Delivery)
			}
		}
	}
	return nil
}

// refusalCode is why the mailbox does not take a message; "" when it does.
func refusalCode(err error) wire.Code {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, mailbox.ErrBlocked):
		return wire.CodeBlocked
	case errors.Is(err, mailbox.ErrNotGranted):
		return wire.CodeNotGranted
	}
	return wire.CodeReplayed
}

// refuse is nack for what the mailbox has not seen, whose log has not got it.
func (k *conn) refuse(ctx context.Context, p *wire.Push, code wire.Code) {
	k.nack(p, code)
	k.c.note(ctx, audit.Entry{
		Event: audit.Refused, Member: p.SenderMember, Session: p.SenderPubkey, Message: p.ID, Code: string(code),
	})
}

// nack refuses a delivery for good and says so here: nothing of it reaches a model.
func (k *conn) nack(p *wire.Push, code wire.Code) {
	k.c.log.Warn("message refused", "code", code, "from", p.SenderPubkey.Short(), "id", p.ID.String()[:8])
	if !slices.Contains(innocent, code) {
		k.c.count(code, "a message")
	}
	_ = k.send(&wire.ClientNack{Delivery: p.Delivery, Code: code})
}

func vouch(member, session Key, a *wire.Attestation) vouched {
	v := vouched{member: member, session: session}
	if a != nil {
		v.attested, v.attestation = true, *a
	}
	return v
}

// readReceipt notes that messages were shown. Only the recipient itself, or a
// session of the member it belongs to, can say so.
func (c *Client) readReceipt(ctx context.Context, o seal.Opened) *wire.Fault {
	var r receiptBody
	if o.Content.Type != receiptType || wire.Unmarshal(o.Content.Body, &r) != nil || r.State != Read {
		return wire.Faultf(wire.CodeBadEnvelope, "receipt")
	}
	if r.Recipient != o.Header.SenderSession && r.Recipient != o.Header.SenderMember {
		return wire.Faultf(wire.CodeBadReceipt, "")
	}
	for _, id := range r.IDs {
		c.advance(ctx, id, r.Recipient, Read, "", false, o.Header.Sent)
	}
	return nil
}

// receiptLoop tells senders what was read here.
func (c *Client) receiptLoop() {
	if c.role == Observer {
		return
	}
	changes := c.box.Watch(c.ctx)
	for {
		if err := c.SendReceipts(c.ctx); err != nil && c.ctx.Err() == nil {
			c.log.Warn("read receipts are not sent", "error", err)
		}
		select {
		case <-changes:
		case <-c.ctx.Done():
			return
		}
	}
}

// SendReceipts puts read receipts into the outbox for what this client's keys
// have read, one for each sender. A Client does so by itself, but for an observer.
func (c *Client) SendReceipts(ctx context.Context) error {
	for {
		read, err := c.box.Unreceipted(ctx, c.m.MeshID, c.self, 200)
		if err != nil || len(read) == 0 {
			return err
		}
		type to struct{ session, recipient Key }
		groups := map[to][]mailbox.Incoming{}
		for _, m := range read {
			groups[to{m.SenderSession, m.Recipient}] = append(groups[to{m.SenderSession, m.Recipient}], m)
		}
		for t, msgs := range groups {
			if err := c.sendReceipt(ctx, t.session, t.recipient, msgs); err != nil {
				return err
			}
		}
	}
}

func (c *Client) sendReceipt(ctx context.Context, session, recipient Key, msgs []mailbox.Incoming) error {
	body := receiptBody{State: Read, Recipient: recipient}
	var numbers []int64
	for _, m := range msgs {
		body.IDs = append(body.IDs, m.ID)
		numbers = append(numbers, m.Number)
	}
	raw, err := wire.Marshal(body)
	if err != nil {
		return err
	}
	c.mu.Lock()
	_, member := c.roster.Member(msgs[0].SenderMember)
	c.mu.Unlock()
	if member && session != c.self {
		to := []resolved{{Recipient{Key: session, Member: msgs[0].SenderMember, Name: msgs[0].SenderName}, ""}}
		h := c.newHeader(Message{Priority: Low}, to, false)
		h.Mode, h.Target = wire.ModeReceipt, ""
		if err := c.put(ctx, h, seal.Content{Type: receiptType, Body: raw}, to); err != nil {
			return err
		}
		c.poke()
	}
	return c.box.Receipted(ctx, numbers)
}

// Received is a message for this client, verified and on disk.
type Received struct {
	mailbox.Incoming
	c *Client
}

// Ack marks the message read. Until then it is received again by the next
// Receive, also after a restart. The sender hears of it by a sealed receipt.
func (r *Received) Ack(ctx context.Context) error {
	_, err := r.c.box.MarkRead(ctx, r.Number, r.c.self, r.c.clock())
	return err
}

// Receive yields this client's unread messages, by priority and then in order, and goes
// on with what arrives until ctx ends. Each is yielded once per call; what
// is not acknowledged stays unread.
func (c *Client) Receive(ctx context.Context) iter.Seq2[*Received, error] {
	return func(yield func(*Received, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		changes := c.box.Watch(ctx)
		seen := map[int64]bool{}
		for {
			msgs, _, err := c.box.List(ctx, mailbox.Query{Mesh: c.m.MeshID, Recipients: c.Addresses(), Gate: mailbox.Shelf, Limit: 1000})
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				yield(nil, err)
				return
			}
			unread := make(map[int64]bool, len(msgs))
			for _, m := range msgs {
				unread[m.Number] = true
				if !seen[m.Number] && !yield(&Received{m, c}, nil) {
					return
				}
			}
			seen = unread
			select {
			case <-changes:
			case <-ctx.Done():
				return
			case <-c.ctx.Done():
				return
			}
		}
	}
}

// lookEvery is how often is looked without a hint: nothing hints at a courier's
// lease that has run out.
const lookEvery = 5 * time.Second

// AwaitReply waits for a message that answers id, from anyone, and marks it
// read; one that a courier is bringing in is the courier's. ok is false when ctx
// ended first.
func (c *Client) AwaitReply(ctx context.Context, id ID) (msg mailbox.Incoming, ok bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changes := c.box.Watch(ctx)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		q := mailbox.Query{
			Mesh: c.m.MeshID, Recipients: c.Addresses(), ReplyTo: id, Gate: mailbox.Shelf, Now: c.now().UnixMilli(), Limit: 1,
		}
		msgs, _, err := c.box.Take(context.WithoutCancel(ctx), q, c.self, c.clock())
		if err != nil {
			return msg, false, err
		}
		if len(msgs) > 0 {
			return msgs[0], true, nil
		}
		select {
		case <-changes:
		case <-tick.C:
		case <-ctx.Done():
			return msg, false, nil
		}
	}
}

// Gap is messages of one sender that are known to be missing.
type Gap = mailbox.Gap

// Missing returns what is missing between messages that have arrived, when it has
// been so for 30 seconds.
func (c *Client) Missing(ctx context.Context) ([]Gap, error) {
	return c.box.Missing(ctx, c.Addresses(), c.clock()-30*time.Second.Milliseconds())
}

// keepFor is how long read and settled messages stay in the mailbox.
const keepFor = 30 * 24 * time.Hour

// prune forgets what is old; every connection begins with it.
func (c *Client) prune(ctx context.Context) error {
	return c.box.Prune(ctx, keepFor, c.now().UnixMilli(), c.clock())
}
