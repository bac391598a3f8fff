package mailbox

import (
	"context"
	"slices"

	"github.com/claudemesh/claudemesh/internal/audit"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// memIn is a received message.
type memIn struct {
	Incoming
	braked    bool // it was one automatic message too many
	receipted bool
	gone      bool // pruned: to be dropped from the lists
	holder    string
	heldUntil int64
}

// memBox is what one recipient has received, in Number order.
type memBox struct {
	all    []*memIn
	unread [len(wire.Priorities)][]*memIn // and some that were read meanwhile
}

// memOwed is what was read in one mesh and whose senders were not told.
type memOwed struct {
	list []*memIn
	live int
}

type seenKey struct {
	mesh wire.ID
	id   wire.ID
}

// seenBy is who got an id; zero recipient and session: it was replaced.
type seenBy struct{ recipient, session, member wire.Key }

type laneKey struct {
	mesh               wire.ID
	session, recipient wire.Key
	rank               int
}

type memLane struct {
	last    uint64
	name    string
	touched int64
	gaps    []missed
}

// Receive stores a batch and sets the Number of what is fresh.
func (b *mem) Receive(ctx context.Context, in []Incoming) (fresh []bool, errs []error, err error) {
	if len(in) == 0 {
		return nil, nil, nil
	}
	fresh, errs = make([]bool, len(in)), make([]error, len(in))
	err = b.do(ctx, func() (any bool, err error) {
		for i := range in {
			if errs[i] = checkIncoming(&in[i]); errs[i] == nil {
				fresh[i], errs[i] = b.receive(&in[i])
			}
			any = any || fresh[i]
		}
		return any, nil
	})
	if err != nil {
		return nil, nil, err
	}
	return fresh, errs, nil
}

func (b *mem) receive(m *Incoming) (fresh bool, err error) {
	by := b.seen[seenKey{m.Mesh, m.ID}]
	_, seen := by[seenBy{m.Recipient, m.SenderSession, m.SenderMember}]
	_, replaced := by[seenBy{member: m.SenderMember}]
	if floor, known := b.floors[m.Mesh]; known && !seen && !replaced && m.Expires <= floor {
		return false, b.refuse(m, ErrReplayed)
	}
	over := !m.Replaces.IsZero() && b.memberSent(seenKey{m.Mesh, m.Replaces}, m.SenderMember)
	b.markSeen(seenKey{m.Mesh, m.ID}, seenBy{m.Recipient, m.SenderSession, m.SenderMember}, m.Expires)
	if !m.Replaces.IsZero() && m.Mode.Direct() {
		b.markSeen(seenKey{m.Mesh, m.Replaces}, seenBy{member: m.SenderMember}, m.Expires)
	}
	if inLane(m) {
		b.lane(m)
	}
	switch {
	case m.Mode == wire.ModeReceipt:
		return !seen && !replaced && !over, nil
	case seen || replaced:
		return false, b.again(m)
	}
	t := b.trustOf(m.Mesh, m.SenderMember)
	braked := isAutomatic(m.Hop) && b.passed(pair{m.Recipient, m.SenderSession}, m.Received-brakeSpan.Milliseconds()) >= brakeMost
	if m.Urgency, m.Gate, err = judge(&t, m, braked); err != nil {
		return false, b.refuse(m, err)
	}
	if over {
		return false, nil
	}
	b.lastIn++
	m.Number = b.lastIn
	s := &memIn{Incoming: *m, braked: braked}
	b.incoming[m.Number] = s
	b.byID[m.ID] = append(b.byID[m.ID], s)
	box := b.boxes[m.Recipient]
	if box == nil {
		box = new(memBox)
		b.boxes[m.Recipient] = box
	}
	box.all = append(box.all, s)
	if m.ReadAt == 0 {
		rank := m.Urgency.Rank()
		box.unread[rank] = append(box.unread[rank], s)
	} else {
		b.owe(s)
	}
	b.noteReceived(s)
	b.record(entryOf(m, audit.Received, m.Received, ""))
	return true, nil
}

// refuse logs that a message is not taken, and why.
func (b *mem) refuse(m *Incoming, why error) error {
	b.record(entryOf(m, audit.Refused, m.Received, codeOf(why)))
	return why
}

// again is what becomes of a message that was seen before: one that was refused
// is refused again, for the broker may not have heard of it.
func (b *mem) again(m *Incoming) error {
	t := b.trustOf(m.Mesh, m.SenderMember)
	_, _, refused := judge(&t, m, false)
	if refused == nil || slices.ContainsFunc(b.byID[m.ID], func(o *memIn) bool {
		return o.Recipient == m.Recipient && o.SenderSession == m.SenderSession && o.Mesh == m.Mesh
	}) {
		return nil
	}
	return refused
}

func (b *mem) memberSent(k seenKey, member wire.Key) bool {
	for by := range b.seen[k] {
		if by.member == member {
			return true
		}
	}
	return false
}

func (b *mem) markSeen(k seenKey, by seenBy, expires int64) {
	m := b.seen[k]
	if m == nil {
		m = make(map[seenBy]int64, 1)
		b.seen[k] = m
	}
	if _, known := m[by]; !known {
		m[by] = expires
	}
}

func (b *mem) lane(m *Incoming) {
	k := laneKey{m.Mesh, m.SenderSession, m.Recipient, m.Priority.Rank()}
	l := b.lanes[k]
	if l == nil {
		l = &memLane{last: m.Seq}
		b.lanes[k] = l
	}
	switch {
	case m.Seq > l.last+1:
		l.gaps = append(l.gaps, missed{l.last + 1, m.Seq - 1, m.Received})
	case m.Seq <= l.last && len(l.gaps) > 0:
		for i, g := range l.gaps {
			if g.first <= m.Seq && m.Seq <= g.last {
				l.gaps = slices.Replace(l.gaps, i, i+1, g.without(m.Seq)...)
				break
			}
		}
	}
	l.last = max(l.last, m.Seq)
	l.name, l.touched = m.SenderName, m.Received
}

// owe notes that the sender of a read message is to be told.
func (b *mem) owe(m *memIn) {
	o := b.owed[m.Mesh]
	if o == nil {
		o = new(memOwed)
		b.owed[m.Mesh] = o
	}
	if len(o.list) > 2*o.live+64 {
		o.tidy()
	}
	o.list = append(o.list, m)
	o.live++
}

func (o *memOwed) tidy() {
	o.list = slices.DeleteFunc(o.list, func(m *memIn) bool { return m.receipted || m.gone })
	o.live = len(o.list)
}

func (b *mem) read(m *memIn, reader wire.Key, at int64) {
	m.ReadAt, m.Reader = at, reader
	b.owe(m)
}

// show is read by someone, which the log tells of.
func (b *mem) show(m *memIn, reader wire.Key, at int64) {
	b.read(m, reader, at)
	b.record(shownTo(&m.Incoming, reader, at))
}

func (b *mem) dropIncoming(over func(*memIn) bool) {
	for n, m := range b.incoming {
		if over(m) {
			m.gone = true
			delete(b.incoming, n)
			b.forgetReceived(m)
			b.byID[m.ID] = slices.DeleteFunc(b.byID[m.ID], func(o *memIn) bool { return o == m })
			if len(b.byID[m.ID]) == 0 {
				delete(b.byID, m.ID)
			}
		}
	}
	gone := func(m *memIn) bool { return m.gone }
	for key, box := range b.boxes {
		box.all = slices.DeleteFunc(box.all, gone)
		for rank := range box.unread {
			box.unread[rank] = slices.DeleteFunc(box.unread[rank], gone)
		}
		if len(box.all) == 0 {
			delete(b.boxes, key)
		}
	}
	for _, o := range b.owed {
		o.tidy()
	}
}
