package mailbox

import (
	"context"
	"slices"

	"github.com/claudemesh/claudemesh/internal/wire"
)

func (b *mem) matches(q *Query, m *memIn) bool {
	if q.Now > 0 && q.Gate < Shut && b.pauses[m.Mesh] > q.Now {
		return false
	}
	return (q.Mesh.IsZero() || m.Mesh == q.Mesh) &&
		(q.From.IsZero() || m.SenderMember == q.From || m.SenderSession == q.From) &&
		(q.ReplyTo.IsZero() || m.ReplyTo == q.ReplyTo) &&
		(!q.Unoffered || m.Offered == 0) &&
		(q.Now == 0 || m.heldUntil <= q.Now || m.holder == q.Holder) &&
		m.Urgency.Rank() <= q.rank() && m.Gate <= q.Gate &&
		!slices.Contains(q.Except, m.ReplyTo) && !slices.Contains(q.Except, m.Mesh)
}

func byNumber(a, b *memIn) int { return compare(a.Number, b.Number) }

// find returns every match in the order of List.
func (b *mem) find(q *Query) (found []*memIn) {
	var boxes []*memBox
	for i, k := range q.Recipients {
		if box := b.boxes[k]; box != nil && !slices.Contains(q.Recipients[:i], k) {
			boxes = append(boxes, box)
		}
	}
	if q.Read {
		for _, box := range boxes {
			for _, m := range box.all {
				if b.matches(q, m) {
					found = append(found, m)
				}
			}
		}
		slices.SortFunc(found, func(a, b *memIn) int { return byNumber(b, a) })
		return found
	}
	for rank := range wire.Priorities {
		from := len(found)
		for _, box := range boxes {
			box.unread[rank] = slices.DeleteFunc(box.unread[rank], func(m *memIn) bool { return m.ReadAt > 0 })
			for _, m := range box.unread[rank] {
				if b.matches(q, m) {
					found = append(found, m)
				}
			}
		}
		slices.SortFunc(found[from:], byNumber)
	}
	return found
}

// List returns received messages.
func (b *mem) List(ctx context.Context, q Query) (msgs []Incoming, more int, err error) {
	if len(q.Recipients) == 0 {
		return nil, 0, errNoRecipients
	}
	err = b.look(ctx, func() {
		found := b.find(&q)
		n := min(len(found), limitOf(q.Limit))
		for _, m := range found[:n] {
			msgs = append(msgs, m.Incoming)
		}
		more = len(found) - n
	})
	return msgs, more, err
}

// Take returns unread messages and marks them read.
func (b *mem) Take(ctx context.Context, q Query, reader wire.Key, at int64) (msgs []Incoming, more int, err error) {
	switch {
	case len(q.Recipients) == 0:
		return nil, 0, errNoRecipients
	case at <= 0:
		return nil, 0, errNoTime
	}
	q.Read = false // what was read has been given to its reader
	err = b.do(ctx, func() (bool, error) {
		found := b.find(&q)
		n := min(len(found), limitOf(q.Limit))
		for _, m := range found[:n] {
			b.show(m, reader, at)
			msgs = append(msgs, m.Incoming)
		}
		more = len(found) - n
		return n > 0, nil
	})
	return msgs, more, err
}

// Message returns one received message.
func (b *mem) Message(ctx context.Context, id wire.ID, recipients []wire.Key) (found Incoming, err error) {
	err = b.do(ctx, func() (bool, error) {
		for _, m := range b.byID[id] {
			if slices.Contains(recipients, m.Recipient) {
				found = m.Incoming
				return false, nil
			}
		}
		return false, ErrNotFound
	})
	return found, err
}

// MarkRead marks one message read.
func (b *mem) MarkRead(ctx context.Context, number int64, reader wire.Key, at int64) (first bool, err error) {
	if at <= 0 {
		return false, errNoTime
	}
	err = b.do(ctx, func() (bool, error) {
		if m := b.incoming[number]; m != nil && m.ReadAt == 0 {
			b.show(m, reader, at)
			first = true
		}
		return first, nil
	})
	return first, err
}

// MarkOffered marks one unread message announced.
func (b *mem) MarkOffered(ctx context.Context, number int64, at int64) (first bool, err error) {
	if at <= 0 {
		return false, errNoTime
	}
	err = b.do(ctx, func() (bool, error) {
		if m := b.incoming[number]; m != nil && m.Offered == 0 && m.ReadAt == 0 {
			m.Offered = at
			first = true
		}
		return first, nil
	})
	return first, err
}

// Unreceipted returns read messages whose senders were not told.
func (b *mem) Unreceipted(ctx context.Context, mesh wire.ID, reader wire.Key, limit int) (msgs []Incoming, err error) {
	limit = limitOf(limit)
	err = b.look(ctx, func() {
		o := b.owed[mesh]
		if o == nil {
			return
		}
		o.tidy()
		slices.SortFunc(o.list, byNumber)
		for _, m := range o.list {
			if len(msgs) == limit {
				return
			}
			if reader.IsZero() || m.Reader == reader {
				msgs = append(msgs, m.Incoming)
			}
		}
	})
	return msgs, err
}

// Receipted marks messages whose senders were told.
func (b *mem) Receipted(ctx context.Context, numbers []int64) error {
	return b.do(ctx, func() (changed bool, err error) {
		for _, n := range numbers {
			if m := b.incoming[n]; m != nil && !m.receipted {
				m.receipted = true
				changed = true
				if o := b.owed[m.Mesh]; o != nil && m.ReadAt > 0 {
					o.live--
				}
			}
		}
		return changed, nil
	})
}

// Missing returns the gaps in the lanes to recipients.
func (b *mem) Missing(ctx context.Context, recipients []wire.Key, noticed int64) ([]Gap, error) {
	var found []gapRow
	err := b.look(ctx, func() {
		for k, l := range b.lanes {
			if len(l.gaps) == 0 || !slices.Contains(recipients, k.recipient) {
				continue
			}
			for _, g := range l.gaps {
				if g.noticed <= noticed {
					found = append(found, gapRow{k.mesh, k.session, l.name, l.touched, g})
				}
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return sumGaps(found), nil
}
