package mailbox

import (
	"context"
	"slices"

	"github.com/claudemesh/claudemesh/internal/audit"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// memTrusts is whom the owner lets in, what waits for a person, and the log.
type memTrusts struct {
	trusts   map[trustKey]Trust
	pauses   map[wire.ID]int64
	held     []Held
	lastHeld int64
	log      []audit.Record
}

func (b *mem) trustOf(mesh wire.ID, member wire.Key) Trust {
	t, known := b.trusts[trustKey{mesh, member}]
	if !known {
		return noTrust(mesh, member)
	}
	t.Grants = slices.Clone(t.Grants)
	return t
}

// ChangeTrust alters what is known of a member.
func (b *mem) ChangeTrust(ctx context.Context, mesh wire.ID, member wire.Key, at int64, change func(*Trust) error) (t Trust, err error) {
	err = b.do(ctx, func() (bool, error) {
		was := b.trustOf(mesh, member)
		if t, err = changeTrust(was, at, change); err != nil {
			return false, err
		}
		b.trusts[trustKey{mesh, member}] = t
		t.Grants = slices.Clone(t.Grants)
		b.regate(&t)
		b.record(t.changes(&was)...)
		return true, nil
	})
	if err != nil {
		return Trust{}, err
	}
	return t, nil
}

// regate judges the unread messages of a member anew.
func (b *mem) regate(t *Trust) {
	for _, m := range b.incoming {
		if m.ReadAt > 0 || m.Mesh != t.Mesh || m.SenderMember != t.Member {
			continue
		}
		urgency, gate, _ := judge(t, &m.Incoming, m.braked)
		if urgency != m.Urgency {
			box := b.boxes[m.Recipient]
			was, is := &box.unread[m.Urgency.Rank()], &box.unread[urgency.Rank()]
			*was = slices.DeleteFunc(*was, func(o *memIn) bool { return o == m })
			*is = append(*is, m)
		}
		m.Urgency, m.Gate = urgency, gate
	}
}

// Trust returns what is known of a member.
func (b *mem) Trust(ctx context.Context, mesh wire.ID, member wire.Key) (t Trust, err error) {
	err = b.look(ctx, func() { t = b.trustOf(mesh, member) })
	return t, err
}

// Trusts returns what was changed in a mesh.
func (b *mem) Trusts(ctx context.Context, mesh wire.ID) (all []Trust, err error) {
	err = b.look(ctx, func() {
		for k := range b.trusts {
			if k.mesh == mesh {
				all = append(all, b.trustOf(mesh, k.member))
			}
		}
		slices.SortFunc(all, func(a, b Trust) int { return slices.Compare(a.Member[:], b.Member[:]) })
	})
	return all, err
}

// SetPause holds a mesh back.
func (b *mem) SetPause(ctx context.Context, mesh wire.ID, until int64) error {
	return b.do(ctx, func() (bool, error) {
		if until <= 0 {
			_, was := b.pauses[mesh]
			delete(b.pauses, mesh)
			return was, nil
		}
		b.pauses[mesh] = until
		return true, nil
	})
}

// Paused returns until when a mesh is paused.
func (b *mem) Paused(ctx context.Context, mesh wire.ID, now int64) (until int64, err error) {
	err = b.look(ctx, func() {
		if u := b.pauses[mesh]; u > now {
			until = u
		}
	})
	return until, err
}

// Hold stores a message.
func (b *mem) Hold(ctx context.Context, h Held) (number int64, err error) {
	h.To = slices.Clone(h.To)
	err = b.do(ctx, func() (bool, error) {
		n := 0
		for _, other := range b.held {
			if other.Mesh == h.Mesh {
				n++
			}
		}
		if n >= heldMost {
			return false, ErrHeldFull
		}
		b.lastHeld++
		number, h.Number = b.lastHeld, b.lastHeld
		b.held = append(b.held, h)
		return true, nil
	})
	return number, err
}

// HeldMessages returns what waits.
func (b *mem) HeldMessages(ctx context.Context, mesh wire.ID) (all []Held, err error) {
	err = b.look(ctx, func() {
		for _, h := range b.held {
			if mesh.IsZero() || h.Mesh == mesh {
				h.To = slices.Clone(h.To)
				all = append(all, h)
			}
		}
	})
	return all, err
}

// TakeHeld removes a message.
func (b *mem) TakeHeld(ctx context.Context, number int64) (h Held, err error) {
	err = b.do(ctx, func() (bool, error) {
		i := slices.IndexFunc(b.held, func(h Held) bool { return h.Number == number })
		if i < 0 {
			return false, ErrNotFound
		}
		h = b.held[i]
		b.held = slices.Delete(b.held, i, i+1)
		return true, nil
	})
	return h, err
}

// record adds entries to the log.
func (b *mem) record(entries ...audit.Entry) {
	for _, e := range entries {
		var last audit.Record
		if n := len(b.log); n > 0 {
			last = b.log[n-1]
		}
		b.log = append(b.log, last.Next(e))
	}
	if len(b.log) > auditMost/10 { // a process that runs for long prunes seldom
		b.log = slices.Delete(b.log, 0, len(b.log)-auditMost/20)
	}
}

// Record adds entries.
func (b *mem) Record(ctx context.Context, entries ...audit.Entry) error {
	return b.look(ctx, func() { b.record(entries...) })
}

// Audit returns records.
func (b *mem) Audit(ctx context.Context, after int64, limit int) (records []audit.Record, err error) {
	err = b.look(ctx, func() {
		i, _ := slices.BinarySearchFunc(b.log, after+1, func(r audit.Record, n int64) int { return compare(r.Number, n) })
		records = slices.Clone(b.log[i:min(len(b.log), i+limitOf(limit))])
	})
	return records, err
}

// pruneLog keeps what is young enough, and the last ones.
func (b *mem) pruneLog(old int64) {
	young := slices.IndexFunc(b.log, func(r audit.Record) bool { return r.At >= old })
	if young < 0 {
		young = len(b.log)
	}
	b.log = slices.Delete(b.log, 0, max(0, min(young, len(b.log)-auditLeast)))
}
