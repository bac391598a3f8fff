package mailbox

import (
	"context"
	"fmt"
	"slices"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// memOut is an outgoing message with the number of its recipients that are
// stored or accepted.
type memOut struct {
	Outgoing
	stored, accepted int
}

func (o *memOut) isLive() bool { return o.stored+o.accepted > 0 }

// count adds n to the counter of a state, if it has one.
func (o *memOut) count(s State, n int) {
	switch s {
	case Stored:
		o.stored += n
	case Accepted:
		o.accepted += n
	}
}

// move puts one recipient into a later state and keeps the counts.
func (b *mem) move(o *memOut, r *OutRecipient, to State, code wire.Code, at int64) {
	was := o.isLive()
	o.count(r.State, -1)
	o.count(to, 1)
	if was && !o.isLive() {
		b.liveLen--
	}
	if to == Bounced {
		r.Code = code
	}
	r.State, r.At = to, at
}

func (o *memOut) settledBefore(old int64) bool {
	if o.Sent >= old {
		return false
	}
	return !slices.ContainsFunc(o.Recipients, func(r OutRecipient) bool {
		return r.State == Stored || r.At >= old || (r.State == Accepted && o.Expires >= old)
	})
}

// copy returns what a caller may keep and change.
func (o *memOut) copy() Outgoing {
	c := o.Outgoing
	c.Recipients = slices.Clone(c.Recipients)
	return c
}

// tidy drops what is settled from live.
func (b *mem) tidy() {
	b.live = slices.DeleteFunc(b.live, func(o *memOut) bool { return !o.isLive() })
}

func (b *mem) dropOutgoing(over func(*memOut) bool) {
	b.live = slices.DeleteFunc(b.live, func(o *memOut) bool {
		if o.isLive() && over(o) {
			b.liveLen--
			return true
		}
		return !o.isLive()
	})
	for id, o := range b.outgoing {
		if over(o) {
			delete(b.outgoing, id)
			b.forgetSent(o)
		}
	}
}

// Put draws numbers, has the message sealed and stores it.
func (b *mem) Put(ctx context.Context, lanes []Lane, seal func([]uint64) (Outgoing, error)) (number int64, err error) {
	for _, l := range lanes {
		if l.Priority.Rank() < 0 {
			return 0, fmt.Errorf("unknown priority %q", l.Priority)
		}
	}
	err = b.do(ctx, func() (bool, error) {
		number, err = b.put(lanes, seal)
		return true, err
	})
	return number, err
}

func (b *mem) put(lanes []Lane, seal func([]uint64) (Outgoing, error)) (int64, error) {
	seqs := make([]uint64, len(lanes))
	for i, l := range lanes {
		b.counters[l]++
		seqs[i] = b.counters[l]
	}
	stored := false
	defer func() { // also when seal panics
		if !stored {
			for _, l := range lanes {
				if b.counters[l]--; b.counters[l] == 0 {
					delete(b.counters, l)
				}
			}
		}
	}()
	sealed, err := seal(seqs)
	if err != nil {
		return 0, err
	}
	o := &memOut{Outgoing: sealed}
	if err := checkOutgoing(&o.Outgoing); err != nil {
		return 0, err
	}
	if b.outgoing[o.ID] != nil {
		return 0, errTaken(o.ID)
	}
	stored = true
	b.lastOut++
	o.Number = b.lastOut
	b.outgoing[o.ID] = o
	b.noteSent(o)
	for _, r := range o.Recipients {
		o.count(r.State, 1)
	}
	if o.isLive() {
		if len(b.live) > 2*b.liveLen+64 {
			b.tidy()
		}
		b.live = append(b.live, o)
		b.liveLen++
	}
	return o.Number, nil
}

// Pending returns what waits for the broker.
func (b *mem) Pending(ctx context.Context, mesh wire.ID, sender wire.Key, after, notAfter int64, limit int) (msgs []Outgoing, err error) {
	limit = limitOf(limit)
	err = b.look(ctx, func() {
		b.tidy()
		i, _ := slices.BinarySearchFunc(b.live, after+1, func(o *memOut, n int64) int { return compare(o.Number, n) })
		for _, o := range b.live[i:] {
			if len(msgs) == limit {
				return
			}
			if o.stored > 0 && o.Mesh == mesh && (sender.IsZero() || o.Sender == sender) && (notAfter == 0 || o.Sent <= notAfter) {
				msgs = append(msgs, o.copy())
			}
		}
	})
	return msgs, err
}

// Advance moves one recipient to a later state.
func (b *mem) Advance(ctx context.Context, mesh, id wire.ID, recipient wire.Key, to State, code wire.Code, online bool, at int64) (changed bool, err error) {
	rank := to.rank()
	if rank < 0 {
		return false, fmt.Errorf("unknown state %q", to)
	}
	err = b.do(ctx, func() (bool, error) {
		o := b.outgoing[id]
		if o == nil || o.Mesh != mesh {
			return false, nil
		}
		i := slices.IndexFunc(o.Recipients, func(r OutRecipient) bool { return r.Key == recipient })
		if i < 0 || !later(o.Recipients[i].State.rank(), rank) {
			return false, nil
		}
		if to == Accepted {
			o.Recipients[i].Online = online
		}
		b.move(o, &o.Recipients[i], to, code, at)
		changed = true
		return true, nil
	})
	return changed, err
}

// Outgoing returns one sent message.
func (b *mem) Outgoing(ctx context.Context, id wire.ID) (out Outgoing, err error) {
	err = b.do(ctx, func() (bool, error) {
		o := b.outgoing[id]
		if o == nil {
			return false, ErrNotFound
		}
		out = o.copy()
		return false, nil
	})
	return out, err
}

// Unsettled returns what to ask the broker about.
func (b *mem) Unsettled(ctx context.Context, mesh wire.ID, now int64, limit int) (ids []wire.ID, err error) {
	limit = limitOf(limit)
	err = b.look(ctx, func() {
		b.tidy()
		for _, o := range b.live {
			if len(ids) == limit {
				return
			}
			if o.accepted > 0 && o.Mesh == mesh && o.Expires > now {
				ids = append(ids, o.ID)
			}
		}
	})
	return ids, err
}

// Drop bounces what waits for a member.
func (b *mem) Drop(ctx context.Context, mesh wire.ID, member wire.Key, code wire.Code, at int64) error {
	return b.do(ctx, func() (changed bool, err error) {
		b.tidy()
		for _, o := range b.live {
			if o.Mesh != mesh || o.stored == 0 {
				continue
			}
			for i := range o.Recipients {
				if r := &o.Recipients[i]; r.State == Stored && (r.Key == member || r.Member == member) {
					r.Wrap = nil
					b.move(o, r, Bounced, code, at)
					changed = true
				}
			}
		}
		return changed, nil
	})
}
