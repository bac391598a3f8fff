package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// Retry implements broker.QueueStore. A delivery that is not queued counts 0.
func (s *Store) Retry(ctx context.Context, deliveries []int64) (attempts []int, err error) {
	err = s.w.do(ctx, func(w *writer) error {
		attempts = make([]int, len(deliveries))
		for i, d := range deliveries {
			err := w.st.row(bg, "UPDATE delivery SET attempts = attempts + 1 WHERE id = ? AND state = 0 RETURNING attempts",
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

const queuedQuery = `SELECT d.id, m.sender, m.id, m.mode, d.priority, m.created, m.expires, m.nonce, m.body, d.wrap, d.attempts
	FROM delivery d INDEXED BY delivery_queue JOIN message m ON m.seq = d.message
	WHERE d.recipient = ? AND d.state = 0 ORDER BY d.priority, d.id LIMIT ?`

// Queued implements broker.QueueStore.
func (s *Store) Queued(ctx context.Context, recipient broker.PeerID, limit int) (out []broker.Delivery, err error) {
	err = s.reads.each(ctx, queuedQuery, []any{int64(recipient), limit}, func(rows *sql.Rows) error {
		var d broker.Delivery
		var mode, rank int
		err := rows.Scan(&d.Number, &d.Sender, fixed(d.ID[:]), &mode, &rank, millis{&d.Created}, millis{&d.Expires},
			&d.Nonce, &d.Ciphertext, &d.Wrap, &d.Attempts)
		if err != nil {
			return err
		}
		if mode < 1 || mode >= len(modes) || rank < 0 || rank >= len(wire.Priorities) {
			return fmt.Errorf("%w: delivery %d has mode %d and priority %d", ErrCorrupt, d.Number, mode, rank)
		}
		d.Mode, d.Priority = modes[mode], wire.Priorities[rank]
		out = append(out, d)
		return nil
	})
	if err != nil {
		return nil, s.readErr(err)
	}
	return out, nil
}

const usageQuery = `SELECT m.sender, count(*), sum(d.size) FROM delivery d INDEXED BY delivery_queue
	JOIN message m ON m.seq = d.message WHERE d.recipient = ? AND d.state = 0 GROUP BY m.sender ORDER BY m.sender`

// Usage implements broker.QueueStore.
func (s *Store) Usage(ctx context.Context, recipient broker.PeerID) (out []broker.Usage, err error) {
	err = s.reads.each(ctx, usageQuery, []any{int64(recipient)}, func(rows *sql.Rows) error {
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
	err = s.reads.snapshot(ctx, s.readDB, func(q *snapshot) (err error) {
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
	err = s.reads.snapshot(ctx, s.readDB, func(q *snapshot) error {
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
