package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/schema"
)

// identity reads the broker's row. broker.ErrNotFound.
func identity(ctx context.Context, q interface {
	Row(ctx context.Context, query string, args []any, dest ...any) error
}) (id broker.BrokerIdentity, err error) {
	err = q.Row(ctx, "SELECT seed, token_hash, created FROM broker WHERE id = 1", nil,
		fixed(id.Seed[:]), fixed(id.TokenHash[:]), millis{&id.Created})
	if errors.Is(err, sql.ErrNoRows) {
		err = broker.ErrNotFound
	}
	return id, err
}

// Identity implements broker.BrokerStore. It reads the file every time: another
// process may have reset the token.
func (s *Store) Identity(ctx context.Context, fresh broker.BrokerIdentity) (id broker.BrokerIdentity, created bool, err error) {
	id, err = identity(ctx, s.reads)
	if !errors.Is(err, broker.ErrNotFound) {
		return id, false, s.readErr(err)
	}
	err = s.w.do(ctx, func(w *writer) error {
		n, err := w.st.Exec(bg, "INSERT INTO broker (id, seed, token_hash, created) VALUES (1, ?, ?, ?) ON CONFLICT DO NOTHING",
			fresh.Seed[:], fresh.TokenHash[:], schema.Millis(fresh.Created))
		if err != nil {
			return err
		}
		created = n == 1
		id, err = identity(bg, w.st)
		return err
	})
	if err != nil {
		return broker.BrokerIdentity{}, false, err
	}
	return id, created, nil
}

const setTokenQuery = "UPDATE broker SET token_hash = ? WHERE id = 1"

// SetTokenHash implements broker.BrokerStore.
func (s *Store) SetTokenHash(ctx context.Context, hash [32]byte) error {
	return s.w.do(ctx, func(w *writer) error {
		return changed(w.st.Exec(bg, setTokenQuery, hash[:]))
	})
}

// changed turns "no row changed" into broker.ErrNotFound.
func changed(n int64, err error) error {
	if err == nil && n == 0 {
		return broker.ErrNotFound
	}
	return err
}
