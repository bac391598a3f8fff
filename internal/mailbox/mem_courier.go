package mailbox

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// Lease returns unread messages and holds them.
func (b *mem) Lease(ctx context.Context, q Query, until int64) (msgs []Incoming, more int, err error) {
	if err := q.leasable(until); err != nil {
		return nil, 0, err
	}
	err = b.do(ctx, func() (bool, error) {
		found := b.find(&q)
		n := min(len(found), limitOf(q.Limit))
		for _, m := range found[:n] {
			m.holder, m.heldUntil = q.Holder, until
			msgs = append(msgs, m.Incoming)
		}
		more = len(found) - n
		return n > 0, nil
	})
	return msgs, more, err
}

// Renew makes leases longer.
func (b *mem) Renew(ctx context.Context, holder string, until int64) error {
	return b.do(ctx, func() (bool, error) {
		for _, m := range b.incoming {
			if m.holder == holder && m.heldUntil > 0 && m.ReadAt == 0 {
				m.heldUntil = until
			}
		}
		return false, nil
	})
}

// Release puts messages back.
func (b *mem) Release(ctx context.Context, holder string, numbers []int64) error {
	return b.do(ctx, func() (changed bool, err error) {
		for n, m := range b.incoming {
			if m.holder == holder && m.ReadAt == 0 && (numbers == nil || slices.Contains(numbers, n)) {
				m.holder, m.heldUntil = "", 0
				changed = true
			}
		}
		return changed, nil
	})
}

// MarkShown marks held messages read.
func (b *mem) MarkShown(ctx context.Context, holder string, shown []Showing) (marked []int64, err error) {
	if err := checkShowings(shown); err != nil {
		return nil, err
	}
	err = b.do(ctx, func() (bool, error) {
		for _, s := range shown {
			if m := b.incoming[s.Number]; m != nil && m.ReadAt == 0 && m.holder == holder {
				b.show(m, s.Reader, s.At)
				marked = append(marked, s.Number)
			}
		}
		return len(marked) > 0, nil
	})
	return marked, err
}

// PutAgent stores a record, as disk does: a copy.
func (b *mem) PutAgent(ctx context.Context, a Agent) error {
	return b.do(ctx, func() (bool, error) { return true, b.storeAgent(&a) })
}

func (b *mem) storeAgent(a *Agent) (err error) {
	b.agents[a.PID], err = json.Marshal(a)
	return err
}

func (b *mem) loadAgent(pid int) (a Agent, err error) {
	body, ok := b.agents[pid]
	if !ok {
		return a, ErrNoAgent
	}
	return a, json.Unmarshal(body, &a)
}

// ChangeAgent alters a record.
func (b *mem) ChangeAgent(ctx context.Context, pid int, change func(*Agent) error) (a Agent, err error) {
	err = b.do(ctx, func() (bool, error) {
		if a, err = b.loadAgent(pid); err != nil {
			return false, err
		}
		if err := change(&a); err != nil {
			return false, err
		}
		return true, b.storeAgent(&a)
	})
	return a, err
}

// Agent returns a record.
func (b *mem) Agent(ctx context.Context, pid int) (a Agent, err error) {
	err = b.do(ctx, func() (bool, error) {
		a, err = b.loadAgent(pid)
		return false, err
	})
	return a, err
}

// Agents returns all records.
func (b *mem) Agents(ctx context.Context) (all []Agent, err error) {
	err = b.do(ctx, func() (bool, error) {
		for _, pid := range slices.Sorted(maps.Keys(b.agents)) {
			a, err := b.loadAgent(pid)
			if err != nil {
				return false, err
			}
			all = append(all, a)
		}
		return false, nil
	})
	return all, err
}

// ForgetAgents deletes records and leases.
func (b *mem) ForgetAgents(ctx context.Context, pids []int) error {
	return b.do(ctx, func() (bool, error) {
		for _, pid := range pids {
			delete(b.agents, pid)
			for _, m := range b.incoming {
				if m.ReadAt == 0 && strings.HasPrefix(m.holder, HolderOf(pid)) {
					m.holder, m.heldUntil = "", 0
				}
			}
		}
		return len(pids) > 0, nil
	})
}
