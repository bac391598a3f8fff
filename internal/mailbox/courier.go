package mailbox

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/claudemesh/claudemesh/internal/wire"
)

const (
	leaseMessage = `UPDATE incoming SET holder = ?, held_until = ? WHERE number = ?`
	renewLeases  = `UPDATE incoming SET held_until = ? WHERE holder = ? AND held_until > 0 AND read_at = 0`
	// Without the read ones, which keep their last holder, the index is used.
	releaseAll   = `UPDATE incoming SET holder = '', held_until = 0 WHERE holder = ? AND held_until > 0 AND read_at = 0`
	releaseOne   = `UPDATE incoming SET holder = '', held_until = 0 WHERE number = ? AND holder = ? AND read_at = 0`
	releaseAgent = `UPDATE incoming SET holder = '', held_until = 0 WHERE holder GLOB ? AND held_until > 0 AND read_at = 0`
	markShown    = `UPDATE incoming SET read_at = ?, reader = ? WHERE number = ? AND holder = ? AND read_at = 0
		RETURNING mesh, sender_member, sender_session, id`
	putAgent     = `INSERT INTO agent (pid, body) VALUES (?, ?) ON CONFLICT (pid) DO UPDATE SET body = excluded.body`
	selectAgent  = `SELECT body FROM agent WHERE pid = ?`
	selectAgents = `SELECT body FROM agent ORDER BY pid`
	deleteAgent  = `DELETE FROM agent WHERE pid = ?`
)

var errNoHolder = errors.New("a lease needs a holder and a time")

// HolderOf begins the names of an agent's couriers.
func HolderOf(pid int) string { return strconv.Itoa(pid) + "/" }

// Lease returns unread messages and holds them.
func (d *disk) Lease(ctx context.Context, q Query, until int64) (msgs []Incoming, more int, err error) {
	if err := q.leasable(until); err != nil {
		return nil, 0, err
	}
	err = d.write(ctx, func(t *tx) (bool, error) {
		if msgs, more, err = list(t, q); err != nil {
			return false, err
		}
		for i := range msgs {
			if _, err := t.exec(leaseMessage, q.Holder, until, msgs[i].Number); err != nil {
				return false, err
			}
		}
		return len(msgs) > 0, nil
	})
	if err != nil {
		return nil, 0, err
	}
	return msgs, more, nil
}

func (q *Query) leasable(until int64) error {
	switch {
	case len(q.Recipients) == 0:
		return errNoRecipients
	case q.Holder == "" || q.Now <= 0 || until <= q.Now:
		return errNoHolder
	}
	q.Read = false
	return nil
}

// Renew makes leases longer. Nobody else needs to hear of it.
func (d *disk) Renew(ctx context.Context, holder string, until int64) error {
	return d.write(ctx, func(t *tx) (bool, error) {
		_, err := t.exec(renewLeases, until, holder)
		return false, err
	})
}

// Release puts messages back.
func (d *disk) Release(ctx context.Context, holder string, numbers []int64) error {
	return d.write(ctx, func(t *tx) (changed bool, err error) {
		if numbers == nil {
			n, err := t.exec(releaseAll, holder)
			return n > 0, err
		}
		for _, number := range numbers {
			n, err := t.exec(releaseOne, number, holder)
			if err != nil {
				return false, err
			}
			changed = changed || n > 0
		}
		return changed, nil
	})
}

// MarkShown marks held messages read.
func (d *disk) MarkShown(ctx context.Context, holder string, shown []Showing) (marked []int64, err error) {
	if err := checkShowings(shown); err != nil {
		return nil, err
	}
	err = d.write(ctx, func(t *tx) (bool, error) {
		log := ledger{tx: t}
		for _, s := range shown {
			marks, err := log.show(s.Reader, s.At, markShown, s.At, s.Reader[:], s.Number, holder)
			if err != nil {
				return false, err
			}
			if marks {
				marked = append(marked, s.Number)
			}
		}
		return len(marked) > 0, nil
	})
	if err != nil {
		return nil, err
	}
	return marked, nil
}

func checkShowings(shown []Showing) error {
	if slices.ContainsFunc(shown, func(s Showing) bool { return s.At <= 0 }) {
		return errNoTime
	}
	return nil
}

// PutAgent stores a record.
func (d *disk) PutAgent(ctx context.Context, a Agent) error {
	return d.write(ctx, func(t *tx) (bool, error) { return true, storeAgent(t, &a) })
}

func storeAgent(t *tx, a *Agent) error {
	body, err := json.Marshal(a)
	if err != nil {
		return err
	}
	_, err = t.exec(putAgent, a.PID, body)
	return err
}

// ChangeAgent alters a record.
func (d *disk) ChangeAgent(ctx context.Context, pid int, change func(*Agent) error) (a Agent, err error) {
	err = d.write(ctx, func(t *tx) (bool, error) {
		if a, err = loadAgent(t, pid); err != nil {
			return false, err
		}
		if err := change(&a); err != nil {
			return false, err
		}
		return true, storeAgent(t, &a)
	})
	return a, err
}

func loadAgent(t *tx, pid int) (a Agent, err error) {
	var body []byte
	if err := t.get(selectAgent, []any{pid}, &body); errors.Is(err, sql.ErrNoRows) {
		return a, ErrNoAgent
	} else if err != nil {
		return a, err
	}
	return a, json.Unmarshal(body, &a)
}

// Agent returns a record.
func (d *disk) Agent(ctx context.Context, pid int) (a Agent, err error) {
	err = d.read(ctx, func(t *tx) error {
		a, err = loadAgent(t, pid)
		return err
	})
	return a, err
}

// Agents returns all records.
func (d *disk) Agents(ctx context.Context) (all []Agent, err error) {
	err = d.read(ctx, func(t *tx) error {
		return t.each(selectAgents, nil, func(rows *sql.Rows) error {
			var body []byte
			var a Agent
			if err := rows.Scan(&body); err != nil {
				return err
			}
			if err := json.Unmarshal(body, &a); err != nil {
				return err
			}
			all = append(all, a)
			return nil
		})
	})
	return all, err
}

// ForgetAgents deletes records and leases.
func (d *disk) ForgetAgents(ctx context.Context, pids []int) error {
	return d.write(ctx, func(t *tx) (bool, error) {
		for _, pid := range pids {
			if _, err := t.exec(deleteAgent, pid); err != nil {
				return false, err
			}
			if _, err := t.exec(releaseAgent, HolderOf(pid)+"*"); err != nil {
				return false, err
			}
		}
		return len(pids) > 0, nil
	})
}

// exceptList writes ids as a JSON list of hex strings.
func exceptList(ids []wire.ID) string {
	if len(ids) == 0 {
		return "[]"
	}
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = id.String()
	}
	return `["` + strings.Join(texts, `","`) + `"]`
}
