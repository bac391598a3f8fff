package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/prepared"
	"github.com/claudemesh/claudemesh/internal/wire"
	"github.com/claudemesh/claudemesh/schema"
)

// Retry implements broker.QueueStore. A delivery that is not queued counts 0.
func (s *Store) Retry(ctx context.Context, deliveries []int64) (attempts []int, err error) {
	err = s.w.do(ctx, func(w *writer) error {
		attempts = make([]int, len(deliveries))
		for i, d := range deliveries {
			err := w.st.Row(bg, "UPDATE delivery SET attempts = attempts + 1 WHERE id = ? AND state = 0 RETURNING attempts",
				[]any{d}, &attempts[i])
			if err != nil && !errors.Is(err, sql.ErrNoRows) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return attempts, nil
}

// queuedQuery has its limit as a sum: SQLite would plan a bare parameter anew
// whenever its value changes.
const queuedQuery = `SELECT d.id, d.message, m.sender, m.id, m.mode, m.created, m.expires, m.nonce, m.body, d.wrap, d.attempts
	FROM delivery d INDEXED BY delivery_queue JOIN message m ON m.seq = d.message
	WHERE d.recipient = ? AND d.priority = ? AND d.state = 0 AND d.id > ? ORDER BY d.id LIMIT ? + 0`

// astrayQuery finds what no page would show, whose loss would be silent.
const astrayQuery = `SELECT EXISTS (SELECT 1 FROM delivery INDEXED BY delivery_queue WHERE recipient = ?1 AND priority < 0 AND state = 0)
	OR EXISTS (SELECT 1 FROM delivery INDEXED BY delivery_queue WHERE recipient = ?1 AND priority > 2 AND state = 0)`

// Queued implements broker.QueueStore.
func (s *Store) Queued(ctx context.Context, recipient broker.PeerID, after broker.Place, rows int, bytes int64) (page []broker.Delivery, more bool, err error) {
	for rank, number := range after {
		// One row more than wanted tells whether there are others.
		err := s.reads.Each(ctx, queuedQuery, []any{int64(recipient), rank, number, rows - len(page) + 1}, func(r *sql.Rows) error {
			if more = more || len(page) == rows || bytes <= 0; more {
				return nil
			}
			d, err := scanQueued(r, wire.Priorities[rank])
			page, bytes = append(page, d), bytes-d.Size()
			return err
		})
		if err != nil {
			return nil, false, s.readErr(err)
		}
		if more {
			return page, true, nil
		}
	}
	var astray bool
	if err := s.reads.Row(ctx, astrayQuery, []any{int64(recipient)}, &astray); err != nil {
		return nil, false, s.readErr(err)
	}
	if astray {
		return nil, false, fmt.Errorf("%w: a delivery to peer %d has no known priority", ErrCorrupt, recipient)
	}
	return page, false, nil
}

func scanQueued(r *sql.Rows, p wire.Priority) (broker.Delivery, error) {
	d := broker.Delivery{Priority: p}
	var mode int
	err := r.Scan(&d.Number, &d.Message, &d.Sender, fixed(d.ID[:]), &mode, millis{&d.Created}, millis{&d.Expires},
		&d.Nonce, &d.Ciphertext, &d.Wrap, &d.Attempts)
	if err != nil {
		return d, err
	}
	if mode < 1 || mode >= len(schema.Modes) {
		return d, fmt.Errorf("%w: delivery %d has mode %d", ErrCorrupt, d.Number, mode)
	}
	if d.Mode = schema.Modes[mode]; d.Mode.Direct() {
		d.Nonce, d.Ciphertext = split(d.Wrap)
		d.Wrap = nil
	}
	return d, nil
}

const usageQuery = `SELECT m.sender, count(*), sum(d.size) FROM delivery d INDEXED BY delivery_queue
	JOIN message m ON m.seq = d.message WHERE d.recipient = ? AND d.state = 0 GROUP BY m.sender ORDER BY m.sender`

// Usage implements broker.QueueStore.
func (s *Store) Usage(ctx context.Context, recipient broker.PeerID) (out []broker.Usage, err error) {
	err = s.reads.Each(ctx, usageQuery, []any{int64(recipient)}, func(rows *sql.Rows) error {
		var u broker.Usage
		err := rows.Scan(&u.Sender, &u.Count, &u.Bytes)
		out = append(out, u)
		return err
	})
	if err != nil {
		return nil, s.readErr(err)
	}
	return out, nil
}

// Lookup implements broker.QueueStore.
func (s *Store) Lookup(ctx context.Context, sender broker.PeerID, id wire.ID) (hash [32]byte, known []broker.Outcome, err error) {
	err = s.reads.Snapshot(ctx, func(q *prepared.Conn) (err error) {
		hash, known, err = lookup(ctx, q, sender, id)
		return err
	})
	if err != nil {
		return [32]byte{}, nil, s.readErr(err)
	}
	return hash, known, nil
}

// statusQuery finds by id first: peers of one member that share an id are few.
const statusQuery = "SELECT " + outcomeColumns + ` FROM message m JOIN delivery d NOT INDEXED
	ON d.id >= m.seq AND d.id < m.seq + m.recipients ` + outcomePeers + `
	WHERE m.id = ? AND g.mesh_id = ? AND s.member = ? ORDER BY d.id`

// Status implements broker.QueueStore.
func (s *Store) Status(ctx context.Context, mesh wire.ID, member wire.Key, ids []wire.ID) (out []broker.Outcome, err error) {
	err = s.reads.Snapshot(ctx, func(q *prepared.Conn) error {
		for i := range ids {
			found, err := collect(ctx, q, statusQuery, ids[i][:], mesh[:], member[:])
			if err != nil {
				return err
			}
			out = append(out, found...)
		}
		return nil
	})
	if err != nil {
		return nil, s.readErr(err)
	}
	return out, nil
}
