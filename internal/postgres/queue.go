package postgres

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
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
