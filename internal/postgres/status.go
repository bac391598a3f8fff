package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/claudemesh/claudemesh/broker"
)

// Ready implements broker.Store. It locks a row that is always there: a
// standby and a fenced node refuse that.
func (s *Store) Ready(ctx context.Context) error {
	return s.transact(ctx, s.enlisted(), func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "SELECT FROM "+versionTable+" LIMIT 1 FOR KEY SHARE")
		return err
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
