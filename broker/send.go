package broker

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// skew is how far a sender's clock may be off before its expiry is refused as
// too far ahead.
const skew = 48 * time.Hour

// sendFrame accepts one message: it checks the frame, finds sender and recipients,
// applies the limits and hands it to the store. The acknowledgement follows the commit.
func (c *conn) sendFrame(ctx context.Context, f *wire.Send) error {
	now := c.b.cfg.Now()
	sender, err := c.sender(ctx, f.From)
	if err == nil {
		err = c.checkSend(f)
	}
	if err != nil {
		c.refuseSend(f.ReqID, f.ID, err)
		return nil
	}
	msg := &Message{
		Mesh: c.mesh.id, Sender: sender.id, ID: f.ID, Hash: hashSend(f), Mode: f.Mode, Priority: f.Priority,
		Created: now, Expires: time.UnixMilli(f.Expires), Nonce: f.Nonce, Ciphertext: f.Ciphertext,
	}
	var peers []addressee
	var skipped []wire.Skipped
	if err = c.checkLifetime(f, now); err == nil {
		err = c.unpaused(f, sender, now)
	}
	if err == nil {
		peers, skipped, err = c.recipients(ctx, f, sender)
	}
	if err == nil {
		skipped, err = c.admit(msg, f, sender, peers, skipped, now)
	}
	if err != nil {
		return c.unlessRepeat(ctx, f, msg, sender, err)
	}
	if err := c.accept(f.ReqID, msg, sender, skipped); err != nil {
		c.mesh.unaccount(msg)
		return c.unlessRepeat(ctx, f, msg, sender, err)
	}
	return nil
}

// accept hands a message to the store, pushes it to those who take pushes live,
// and answers when it is on disk. A push may precede the commit: after a crash
// between them the sender, without an answer, sends the same id again, and the
// recipient knows it. It refuses what comes of a member that stands no more.
func (c *conn) accept(req string, msg *Message, sender *peer, skipped []wire.Skipped) error {
	m, began := c.mesh, time.Now()
	var first int64 // the lock orders it before its use in done
	m.mu.Lock()
	defer m.mu.Unlock() // numbers are given in the order of pushes
	if m.leaving[sender.member] > 0 {
		return sender.putOff(lane{}, msg.ID, wire.CodeStaleMembers, m.b.cfg.Now())
	}
	if err := m.roster.Standing(sender.member); err != nil {
		return err
	}
	first = c.b.store.Accept(msg, func(a Accepted, err error) {
		stored := err == nil && !a.Duplicate
		if !stored {
			m.unaccount(msg)
		}
		if errors.Is(err, ErrStorageFull) {
			m.mu.Lock()
			_ = sender.putOff(lane{}, msg.ID, wire.CodeStorageFull, m.b.cfg.Now())
			m.mu.Unlock()
		}
		if errors.Is(err, ErrStaleMembers) {
			m.mu.Lock()
			_ = sender.putOff(lane{}, msg.ID, wire.CodeStaleMembers, m.b.cfg.Now())
			m.mu.Unlock()
			m.b.routines.run(func() { _ = m.refresh(m.b.ctx) }) // the next hello or poll tries again
		}
		defer m.committed(c, msg, &first, a, stored)
		if err != nil {
			c.refuseSend(req, msg.ID, err)
			return
		}
		c.b.metrics.accepted(a.Duplicate, time.Since(began))
		c.send(m.ackFor(req, msg, a, skipped))
	})
	if sender.recent == nil {
		sender.recent = new(recentIDs)
	}
	m.arrived(msg, first, sender.recent.add(msg.ID))
	return nil
}

// checkSend checks what a frame says by itself.
func (c *conn) checkSend(f *wire.Send) error {
	l := c.b.cfg.Limits
	switch {
	case f.ID.IsZero() || !f.Mode.Valid() || f.Priority.Rank() < 0 || len(f.Nonce) != 24 || len(f.Ciphertext) < 16:
		return wire.Faultf(wire.CodeBadFrame, "send")
	case len(f.Ciphertext) > l.BodyBytes:
		return wire.Faultf(wire.CodeTooLarge, "body")
	case f.Mode.Direct() && (f.To.IsZero() || len(f.Wraps) > 0):
		return wire.Faultf(wire.CodeBadFrame, "a direct message has one recipient and no wraps")
	case !f.Mode.Direct() && (!f.To.IsZero() || len(f.Wraps) == 0):
		return wire.Faultf(wire.CodeBadFrame, "a group message has wraps")
	case len(f.Wraps) > l.Wraps:
		return wire.Faultf(wire.CodeAudienceTooLarge, "")
	}
	for _, w := range f.Wraps {
		if len(w.Box) == 0 || len(w.Box) > 256 {
			return wire.Faultf(wire.CodeBadFrame, "wrap")
		}
	}
	return nil
}

// checkLifetime checks what the passing of time changes: it does not concern a repeat.
func (c *conn) checkLifetime(f *wire.Send, now time.Time) error {
	switch {
	case f.Expires <= now.UnixMilli():
		return wire.Faultf(wire.CodeExpired, "")
	case f.Expires > now.Add(c.b.cfg.Limits.MaxAge+skew).UnixMilli():
		return wire.Faultf(wire.CodeBadLifetime, "")
	}
	return nil
}

// sender is this connection's peer, or another session of the same member
// whose sealed message it carries.
func (c *conn) sender(ctx context.Context, from wire.Key) (*peer, error) {
	if from.IsZero() || from == c.key {
		return c.self, nil
	}
	c.mesh.mu.Lock()
	p := c.mesh.peers[from]
	c.mesh.mu.Unlock()
	if p == nil {
		found, err := c.mesh.locate(ctx, from)
		if err != nil {
			return nil, err
		}
		p = found
	}
	if p == nil || p.member != c.member {
		return nil, wire.Faultf(wire.CodeForbidden, "the message is not from a session of this member")
	}
	return p, nil
}

// hashSend is what makes a repeat the same message. Wraps are not in it: they
// may shrink on a retry.
func hashSend(f *wire.Send) [32]byte {
	h := sha256.New()
	for _, b := range [][]byte{[]byte(f.Mode), f.To[:], f.Nonce, f.Ciphertext} {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	return [32]byte(h.Sum(nil))
}

// addressee is a recipient on its way into a message.
type addressee struct {
	peer *peer
	wrap []byte
}

// recipients finds the peers of a frame. For a direct an unknown recipient is
// an error; for a group message it is skipped.
func (c *conn) recipients(ctx context.Context, f *wire.Send, sender *peer) (to []addressee, skipped []wire.Skipped, err error) {
	if f.Mode.Direct() {
		p, err := c.recipient(ctx, f.To, sender)
		return []addressee{{p, nil}}, nil, err
	}
	seen := make(map[wire.Key]bool, len(f.Wraps))
	for _, w := range f.Wraps {
		if seen[w.To] {
			return nil, nil, wire.Faultf(wire.CodeBadFrame, "a recipient stands twice")
		}
		seen[w.To] = true
		p, err := c.recipient(ctx, w.To, sender)
		if fault := new(wire.Fault); errors.As(err, &fault) {
			skipped = append(skipped, wire.Skipped{Key: w.To, Code: fault.Code})
			continue
		} else if err != nil {
			return nil, nil, err
		}
		to = append(to, addressee{p, w.Box})
	}
	if len(to) == 0 {
		return nil, nil, wire.Faultf(skipped[0].Code, "no recipient is left")
	}
	return to, skipped, nil
}

func (c *conn) recipient(ctx context.Context, k wire.Key, sender *peer) (*peer, error) {
	if k == sender.key {
		return nil, wire.Faultf(wire.CodeBadFrame, "a message to oneself")
	}
	p, err := c.mesh.peerFor(ctx, k)
	if err != nil {
		return nil, err
	}
	if c.mesh.blocked(p.member, sender.member) {
		return nil, wire.Faultf(wire.CodeBlocked, "")
	}
	return p, c.mesh.loadUsage(ctx, p)
}

// admit applies rate and quotas, and counts the message as queued; unaccount
// takes that back. A group message skips recipients whose queue is full.
func (c *conn) admit(msg *Message, f *wire.Send, sender *peer, to []addressee, skipped []wire.Skipped, now time.Time) ([]wire.Skipped, error) {
	m, l := c.mesh, c.b.cfg.Limits
	m.mu.Lock()
	defer m.mu.Unlock()
	size, rank := int64(len(f.Nonce)+len(f.Ciphertext)), f.Priority.Rank()
	code := sender.heldUp(lane{}, f.ID, now)
	if c.b.diskFull.Load() {
		code = wire.CodeStorageFull
	}
	if code != "" {
		return nil, sender.putOff(lane{}, f.ID, code, now)
	}
	if wait := m.pace(c.member).take(now, f.Mode, int(size)); wait > 0 {
		return nil, &wire.Fault{Code: wire.CodeRateLimited, RetryAfterMs: wait.Milliseconds() + 1}
	}
	if m.queued+int64(len(to)) > l.MeshMessages || m.bytes+size > l.MeshBytes {
		return nil, sender.putOff(lane{}, f.ID, wire.CodeMeshFull, now)
	}
	for _, a := range to {
		n := size + int64(len(a.wrap))
		if sender.heldUp(lane{a.peer.id, rank}, f.ID, now) != "" || full(a.peer.usage, sender.id, n, l) {
			skipped = append(skipped, wire.Skipped{Key: a.peer.key, Code: wire.CodeQueueFull})
			continue
		}
		msg.Deliveries = append(msg.Deliveries, NewDelivery{Recipient: a.peer.id, Wrap: a.wrap})
		m.account(a.peer, sender.id, 1, n)
	}
	if len(msg.Deliveries) == 0 {
		for _, a := range to {
			_ = sender.putOff(lane{a.peer.id, rank}, f.ID, wire.CodeQueueFull, now)
		}
		return nil, wire.Faultf(wire.CodeQueueFull, "")
	}
	sender.letGo(f.ID)
	if m.b.cluster != nil {
		msg.MembersVersion = m.version
	}
	return skipped, nil
}

// full applies a recipient's quota: one sender may fill a quarter of it.
func full(u *usage, sender PeerID, n int64, l Limits) bool {
	if u.count+1 > l.QueueMessages || u.bytes+n > l.QueueBytes {
		return true
	}
	s := u.senders[sender]
	return s != nil && (s.Count+1 > max(1, l.QueueMessages/4) || s.Bytes+n > l.QueueBytes/4)
}

// unaccount takes back what admit counted.
func (m *mesh) unaccount(msg *Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range msg.Deliveries {
		m.account(m.byID[d.Recipient], msg.Sender, -1, -msg.Size(d))
	}
}

// unlessRepeat answers a refused send that was accepted before as what it is:
// a retry of an accepted id is never limited.
func (c *conn) unlessRepeat(ctx context.Context, f *wire.Send, msg *Message, sender *peer, refusal error) error {
	hash, known, err := c.b.store.Lookup(ctx, msg.Sender, msg.ID)
	if err == nil && hash == msg.Hash {
		c.mesh.mu.Lock()
		sender.letGo(msg.ID)
		c.mesh.mu.Unlock()
		c.b.metrics.accepted(true, 0)
		c.send(c.mesh.ackFor(f.ReqID, msg, Accepted{Duplicate: true, Outcomes: known}, nil))
		return nil
	}
	if err == nil {
		refusal = wire.Faultf(wire.CodeIDReused, "")
	}
	if !asFault(refusal).Code.Info().Retryable { // it does not come again: what it has held up may pass
		c.mesh.mu.Lock()
		sender.letGo(msg.ID)
		c.mesh.mu.Unlock()
	}
	c.refuseSend(f.ReqID, f.ID, refusal)
	return nil
}

// refuseSend answers a send with an error that names the message.
func (c *conn) refuseSend(req string, id wire.ID, err error) {
	fe := asFault(err).Frame(req)
	if fe.Code == wire.CodeInternal {
		c.b.log.Error("send failed", "conn", c.id, "error", err)
	}
	fe.ID = id
	c.recordRefused(id, fe.Code)
	c.b.metrics.refused(fe.Code)
	c.send(fe)
}

// ackFor says what is known of an accepted message's recipients.
func (m *mesh) ackFor(req string, msg *Message, a Accepted, skipped []wire.Skipped) *wire.Ack {
	ack := &wire.Ack{Req: wire.Req{ReqID: req}, ID: msg.ID, Queued: true, Duplicate: a.Duplicate, Skipped: skipped}
	now := m.b.cfg.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !a.Duplicate {
		for _, d := range msg.Deliveries {
			if p := m.byID[d.Recipient]; p != nil { // else it was forgotten meanwhile
				ack.Recipients = append(ack.Recipients, wire.Recipient{Key: p.key, Online: m.online(p, now)})
			}
		}
		return ack
	}
	for _, o := range a.Outcomes {
		r := wire.Recipient{Key: o.RecipientKey, State: o.State, Code: o.Code}
		if p := m.byID[o.Recipient]; p != nil {
			r.Key, r.Online = p.key, m.online(p, now)
		}
		ack.Recipients = append(ack.Recipients, r)
	}
	return ack
}

// maxStatuses is how many one status_list holds: 256 group messages would not
// fit into a message. What is more goes before it, as receipts.
const maxStatuses = 400

// messageStatus answers from tombstones and queue.
func (c *conn) messageStatus(ctx context.Context, f *wire.MessageStatus) error {
	if len(f.IDs) > wire.MaxStatusIDs {
		return wire.Faultf(wire.CodeTooLarge, "too many ids in one message_status")
	}
	outs, err := c.b.store.Status(ctx, c.mesh.id, c.member, f.IDs)
	if err != nil {
		return err
	}
	reply := &wire.StatusList{Req: f.Req, Statuses: []wire.Receipt{}}
	for _, o := range outs {
		if o.RecipientKey.IsZero() {
			continue
		}
		r := wire.Receipt{ID: o.ID, Recipient: o.RecipientKey, State: o.State, Code: o.Code, At: o.At.UnixMilli()}
		if len(reply.Statuses) < maxStatuses {
			reply.Statuses = append(reply.Statuses, r)
			continue
		}
		c.out.Wait()
		c.send(&r)
	}
	c.send(reply)
	return nil
}

// asFault turns any error into what may be told: our own faults as they are,
// the store's sentinels by the table, everything else as internal.
func asFault(err error) *wire.Fault {
	if f := new(wire.Fault); errors.As(err, &f) {
		return f
	}
	if d := new(wire.DecodeError); errors.As(err, &d) {
		return wire.Faultf(d.Code, d.Error())
	}
	for _, e := range storeFaults {
		if errors.Is(err, e.err) {
			return wire.Faultf(e.code, "")
		}
	}
	return wire.Faultf(wire.CodeInternal, "")
}

var storeFaults = []struct {
	err  error
	code wire.Code
}{
	{ErrNotFound, wire.CodeNotFound},
	{ErrMeshExists, wire.CodeMeshExists},
	{ErrNameTaken, wire.CodeNameTaken},
	{ErrConflict, wire.CodeMemberConflict},
	{ErrStaleMembers, wire.CodeStaleMembers},
	{ErrInviteExpired, wire.CodeInviteExpired},
	{ErrInviteUsedUp, wire.CodeInviteUsedUp},
	{ErrInviteClosed, wire.CodeInviteClosed},
	{ErrIDReused, wire.CodeIDReused},
	{ErrTooMany, wire.CodeTooLarge},
	{ErrStorageFull, wire.CodeStorageFull},
	{ErrClosed, wire.CodeShuttingDown},
}
