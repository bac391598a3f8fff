package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/claudemesh/claudemesh/broker"
)

// Ready implements broker.Store. While the disk is full it tries to write, so
// that the store recovers without waiting for a message.
func (s *Store) Ready(ctx context.Context) error {
	var one int
	if err := s.reads.Row(ctx, "SELECT 1 FROM counter", nil, &one); err != nil {
		return s.readErr(err)
	}
	if !s.w.full.Load() {
		return s.w.do(ctx, func(*writer) error { return nil }) // the writer lives
	}
	// Room for a few messages, not just for a byte.
	if err := s.w.do(ctx, func(w *writer) error {
		_, err := w.st.Exec(bg, "UPDATE counter SET next = ?, pad = zeroblob(65536)", w.next)
		return err
	}); err != nil {
		return err
	}
	return s.w.do(ctx, func(w *writer) error { return w.exec("UPDATE counter SET pad = NULL") })
}

// Stats implements broker.Store. CommitSeconds counts whole transactions.
func (s *Store) Stats(ctx context.Context) (st broker.StoreStats, err error) {
	if err := s.reads.Row(ctx, `SELECT count(*), coalesce(sum(queued), 0),
		(SELECT count(*) FROM member WHERE removed = 0) FROM mesh`, nil, &st.Meshes, &st.Queued, &st.Members); err != nil {
		return broker.StoreStats{}, s.readErr(err)
	}
	if st.OldestQueued, err = s.oldestQueued(ctx); err != nil {
		return broker.StoreStats{}, s.readErr(err)
	}
	c := &s.w.commits
	st.Commits, st.CommittedOps = c.n.Load(), c.ops.Load()
	st.CommitSeconds = time.Duration(c.nanos.Load()).Seconds()
	return st, nil
}

// oldestQueued walks over each settled delivery once in the life of the store:
// numbers only grow and what is settled stays settled, so the place where the
// last walk ended is where the next begins.
func (s *Store) oldestQueued(ctx context.Context) (at time.Time, err error) {
	end, id := s.w.committed.Load(), int64(0)
	err = s.reads.Row(ctx, "SELECT id, at FROM delivery NOT INDEXED WHERE id >= ? AND state = 0 ORDER BY id LIMIT 1",
		[]any{s.oldest.Load()}, &id, millis{&at})
	if errors.Is(err, sql.ErrNoRows) {
		id, err = end, nil
	}
	if err == nil {
		s.oldest.Store(id)
	}
	return at, err
}
