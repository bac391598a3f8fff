package sqlite

import (
	"context"
	"database/sql"
	"math"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
	"github.com/claudemesh/claudemesh/schema"
)

// bounce ends every queued delivery that a query over outcomeColumns finds.
func (w *writer) bounce(code wire.Code, now time.Time, query string, args ...any) ([]broker.Outcome, error) {
	var found []outcome
	err := w.st.Each(bg, query, args, func(rows *sql.Rows) error {
		o, err := scanOutcome(rows)
		found = append(found, o)
		return err
	})
	if err != nil || len(found) == 0 {
		return nil, err
	}
	out := make([]broker.Outcome, len(found))
	for i := range found {
		o := &found[i]
		o.State, o.Code, o.At = wire.StateBounced, code, schema.Time(schema.Millis(now))
		if _, err := w.st.Exec(bg, "UPDATE delivery SET state = 2, code = ?, at = ?, wrap = NULL WHERE id = ?",
			string(code), schema.Millis(now), o.Delivery); err != nil {
			return nil, err
		}
		w.queued(o.mesh, -1, -o.Size)
		out[i] = o.Outcome
		// A message's deliveries to one peer, or within its own range, follow
		// one another: one check after the last of them.
		if i+1 < len(found) && found[i+1].message == o.message {
			continue
		}
		if err := w.dropBody(o.message); err != nil {
			return nil, err
		}
	}
	return out, nil
}

const bounceQueueQuery = "SELECT " + outcomeColumns + ` FROM delivery d INDEXED BY delivery_queue
	JOIN message m ON m.seq = d.message ` + outcomePeers + ` WHERE d.recipient = ? AND d.state = 0 ORDER BY d.id`

// bounceQueue ends everything that waits for a peer.
func (w *writer) bounceQueue(peer broker.PeerID, code wire.Code, now time.Time) ([]broker.Outcome, error) {
	return w.bounce(code, now, bounceQueueQuery, int64(peer))
}

// expiryCursor is a place in the index of expiries: no message at or before it
// has a queued delivery. Without it every Expire would walk over the tombstones
// of a day. It is kept in memory only: a start walks over them once.
type expiryCursor struct{ at, seq int64 }

func (c expiryCursor) earlier(d expiryCursor) expiryCursor {
	if d.at < c.at || d.at == c.at && d.seq < c.seq {
		return d
	}
	return c
}

// reopen moves the cursor back before a new message that expires at ms.
func (c *expiryCursor) reopen(ms int64) { *c = c.earlier(expiryCursor{ms - 1, math.MaxInt64}) }

// waitedFor says of a message that it has a queued delivery.
const waitedFor = `EXISTS (SELECT 1 FROM delivery NOT INDEXED
	WHERE id >= message.seq AND id < message.seq + message.recipients AND state = 0)`

// expireScan bounds the messages that one transaction of Expire looks at, so
// that a long walk does not hold up the writer.
const expireScan = 2000

// Expire implements broker.QueueStore. It works in steps, each its own
// transaction; what is bounced is returned even when a later step fails.
func (s *Store) Expire(ctx context.Context, now time.Time, limit int) ([]broker.Outcome, error) {
	var out []broker.Outcome
	for more := true; more && len(out) < limit; {
		var step []broker.Outcome
		err := s.w.do(ctx, func(w *writer) (err error) {
			step, more, err = w.expire(now, limit-len(out))
			return err
		})
		if err != nil {
			if len(out) > 0 {
				return out, nil
			}
			return nil, err
		}
		out = append(out, step...)
	}
	return out, nil
}

const expireQuery = "SELECT " + outcomeColumns + ` FROM delivery d NOT INDEXED JOIN message m ON m.seq = d.message ` +
	outcomePeers + ` WHERE d.id >= ?1 AND d.id < ?1 + m.recipients AND d.message = ?1 AND d.state = 0 ORDER BY d.id LIMIT ?2`

// expire does one step and reports whether there may be more to do.
func (w *writer) expire(now time.Time, limit int) (out []broker.Outcome, more bool, err error) {
	type seen struct {
		expiryCursor
		live bool
	}
	var scanned []seen
	err = w.st.Each(bg, `SELECT expires, seq, `+waitedFor+` FROM message INDEXED BY message_expires
		WHERE (expires, seq) > (?, ?) AND expires <= ? ORDER BY expires, seq LIMIT ?`,
		[]any{w.cursor.at, w.cursor.seq, schema.Millis(now), expireScan}, func(rows *sql.Rows) error {
			var m seen
			err := rows.Scan(&m.at, &m.seq, &m.live)
			scanned = append(scanned, m)
			return err
		})
	if err != nil {
		return nil, false, err
	}
	for _, m := range scanned {
		if m.live {
			bounced, err := w.bounce(wire.CodeExpired, now, expireQuery, m.seq, limit-len(out))
			if err != nil {
				return nil, false, err
			}
			if out = append(out, bounced...); len(out) >= limit {
				return out, true, nil // this message may have more: the cursor stays before it
			}
		}
		w.cursor = m.expiryCursor
	}
	return out, len(scanned) == expireScan, nil
}

// Prune implements broker.QueueStore. It also deletes the forgotten peers that
// no message can name any more.
func (s *Store) Prune(ctx context.Context, before time.Time, limit int) (pruned int, err error) {
	err = s.w.do(ctx, func(w *writer) (err error) {
		pruned, err = w.prune(before, limit)
		return err
	})
	if err != nil {
		return 0, err
	}
	return pruned, nil
}

func (w *writer) prune(before time.Time, limit int) (int, error) {
	type span struct{ seq, recipients int64 }
	var dead []span
	err := w.st.Each(bg, `SELECT seq, recipients FROM message INDEXED BY message_expires
		WHERE expires < ? AND NOT `+waitedFor+` ORDER BY expires, seq LIMIT ?`, []any{schema.Millis(before), limit},
		func(rows *sql.Rows) error {
			var d span
			err := rows.Scan(&d.seq, &d.recipients)
			dead = append(dead, d)
			return err
		})
	if err != nil {
		return 0, err
	}
	for _, d := range dead {
		if _, err := w.st.Exec(bg, "DELETE FROM delivery WHERE id >= ? AND id < ?", d.seq, d.seq+d.recipients); err != nil {
			return 0, err
		}
		if _, err := w.st.Exec(bg, "DELETE FROM message WHERE seq = ?", d.seq); err != nil {
			return 0, err
		}
	}
	if len(dead) > 0 {
		// The newest rows may be gone now, so the next start cannot tell from
		// them which numbers were given.
		if _, err := w.st.Exec(bg, "UPDATE counter SET next = ?", w.next); err != nil {
			return 0, err
		}
	}
	_, err = w.st.Exec(bg, `DELETE FROM peer WHERE id IN (SELECT id FROM peer WHERE forgotten > 0
		AND forgotten <= coalesce((SELECT min(seq) FROM message), ?) LIMIT ?)`, w.next, limit)
	return len(dead), err
}
