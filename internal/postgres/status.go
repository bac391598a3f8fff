package postgres

import (
	"context"
	"time"

	"github.com/claudemesh/claudemesh/broker"
)

// Ready implements broker.Store: the server takes writes, and the writer lives.
func (s *Store) Ready(ctx context.Context) error {
	return s.read(ctx, func(ctx context.Context, q querier) error {
		var standby bool
		if err := q.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&standby); err != nil {
			return err
		}
		return s.w.ready(ctx, standby)
	})
}

// Stats implements broker.Store. CommitSeconds counts whole transactions.
func (s *Store) Stats(ctx context.Context) (st broker.StoreStats, err error) {
	err = s.read(ctx, func(ctx context.Context, q querier) error {
		return q.QueryRow(ctx, `SELECT count(*), coalesce(sum(queued), 0)::bigint, (SELECT count(*) FROM member WHERE NOT removed),
			coalesce((SELECT at FROM delivery ORDER BY id LIMIT 1), 0) FROM mesh`).
			Scan(&st.Meshes, &st.Queued, &st.Members, millis{&st.OldestQueued})
	})
	if err != nil {
		return broker.StoreStats{}, err
	}
	st.Commits, st.CommittedOps = s.commits.n.Load(), s.commits.ops.Load()
	st.CommitSeconds = time.Duration(s.commits.nanos.Load()).Seconds()
	return st, nil
}
