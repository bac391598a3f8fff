package postgres

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
	"github.com/claudemesh/claudemesh/schema"
)

const retryQuery = `UPDATE delivery d SET attempts = least(attempts + n, 32767)
	FROM (SELECT id FROM delivery WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE) q
	JOIN (SELECT id, count(*) AS n FROM unnest($1::bigint[]) AS a (id) GROUP BY id) asked USING (id)
	WHERE d.id = q.id RETURNING d.id, attempts`

// Retry implements broker.QueueStore. A delivery that is not queued counts 0.
func (s *Store) Retry(ctx context.Context, deliveries []int64) ([]int, error) {
	attempts := make([]int, len(deliveries))
	err := s.tx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		counts := make(map[int64]int, len(deliveries))
		var id int64
		var n int
		err := each(ctx, tx, []any{&id, &n}, func() { counts[id] = n }, retryQuery, deliveries)
		for i, d := range slices.Backward(deliveries) {
			if attempts[i] = counts[d]; counts[d] > 0 {
				counts[d]-- // one that is named twice was tried twice
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return attempts, nil
}

// queuedRank is what stands after a place in one rank.
const queuedRank = `(SELECT id, message, priority, attempts, size, wrap FROM delivery
	WHERE recipient = $1 AND priority = %d AND id > $%d ORDER BY id LIMIT $5)`

// pageQuery returns one delivery more than the page holds if there is one:
// without a message. $1 recipient, $2 to $4 place, $5 rows + 1, $6 bytes.
var pageQuery = `SELECT d.id, d.priority, d.attempts, d.wrap, d.message, d.page,
		m.sender, m.id, m.mode, m.created, m.expires, b.nonce, b.ciphertext
	FROM (
		SELECT *, row_number() OVER w < $5 AND sum(size) OVER w - size < $6 AS page
		FROM (` + fmt.Sprintf(queuedRank+" UNION ALL "+queuedRank+" UNION ALL "+queuedRank, 0, 2, 1, 3, 2, 4) + `) q
		WINDOW w AS (ORDER BY priority, id ROWS UNBOUNDED PRECEDING) ORDER BY priority, id LIMIT $5
	) d
	LEFT JOIN message m ON d.page AND m.seq = d.message LEFT JOIN body b ON d.page AND b.seq = d.message
	ORDER BY d.priority, d.id`

// Queued implements broker.QueueStore.
func (s *Store) Queued(ctx context.Context, recipient broker.PeerID, after broker.Place, rows int, bytes int64) (page []broker.Delivery, more bool, err error) {
	err = s.read(ctx, func(ctx context.Context, q querier) error {
		page, more = nil, false
		found, err := q.Query(ctx, pageQuery, int64(recipient), after[0], after[1], after[2], int64(rows)+1, bytes)
		if err != nil {
			return err
		}
		defer found.Close()
		for found.Next() && !more {
			var d broker.Delivery
			if more, err = scanQueued(found, &d); err != nil {
				return err
			}
			if !more {
				page = append(page, d)
			}
		}
		found.Close()
		return found.Err()
	})
	if err != nil {
		return nil, false, err
	}
	return page, more, nil
}

// scanQueued reports whether a row stands beyond the page.
func scanQueued(row pgx.Rows, d *broker.Delivery) (beyond bool, err error) {
	var page bool
	var rank int
	var sender, mode, created, expires *int64
	err = row.Scan(&d.Number, &rank, &d.Attempts, &d.Wrap, &d.Message, &page,
		&sender, fixed(d.ID[:]), &mode, &created, &expires, &d.Nonce, &d.Ciphertext)
	if err != nil || !page {
		return true, err
	}
	if sender == nil || d.Ciphertext == nil || *mode < 1 || int(*mode) >= len(schema.Modes) {
		return false, fmt.Errorf("%w: delivery %d has no message", errData, d.Number)
	}
	d.Sender, d.Mode, d.Priority = broker.PeerID(*sender), schema.Modes[*mode], wire.Priorities[rank]
	d.Created, d.Expires = fromMillis(*created), fromMillis(*expires)
	return false, nil
}

const usageQuery = `SELECT m.sender, count(*), sum(d.size) FROM delivery d JOIN message m ON m.seq = d.message
	WHERE d.recipient = $1 GROUP BY m.sender ORDER BY m.sender`

// Usage implements broker.QueueStore.
func (s *Store) Usage(ctx context.Context, recipient broker.PeerID) (out []broker.Usage, err error) {
	err = s.read(ctx, func(ctx context.Context, q querier) (err error) {
		out, err = list(ctx, q, pgx.RowToStructByPos[broker.Usage], usageQuery, int64(recipient))
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Lookup implements broker.QueueStore.
func (s *Store) Lookup(ctx context.Context, sender broker.PeerID, id wire.ID) (hash [32]byte, known []broker.Outcome, err error) {
	var m stored
	err = s.read(ctx, func(ctx context.Context, q querier) (err error) {
		m, known, err = lookup(ctx, q, sender, id)
		return err
	})
	if err != nil {
		return [32]byte{}, nil, err
	}
	return m.hash, known, nil
}

// statusQuery finds by id first: peers of one member that share an id are few.
const statusQuery = "SELECT " + outcomeColumns + ` FROM unnest($1::bytea[]) WITH ORDINALITY AS asked (id, place)
	JOIN message m ON m.id = asked.id ` + outcomeKnown + ` WHERE g.mesh_id = $2 AND s.member = $3 ORDER BY asked.place, d.id`

// Status implements broker.QueueStore.
func (s *Store) Status(ctx context.Context, mesh wire.ID, member wire.Key, ids []wire.ID) (out []broker.Outcome, err error) {
	asked := make([][]byte, len(ids))
	for i := range ids {
		asked[i] = ids[i][:]
	}
	err = s.read(ctx, func(ctx context.Context, q querier) (err error) {
		out, err = collect(ctx, q, statusQuery, asked, mesh[:], member[:])
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
