package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/schema"
)

// identity reads the broker's row. broker.ErrNotFound.
func identity(ctx context.Context, q querier) (id broker.BrokerIdentity, err error) {
	err = q.QueryRow(ctx, "SELECT seed, token_hash, created FROM broker WHERE id = 1").
		Scan(fixed(id.Seed[:]), fixed(id.TokenHash[:]), millis{&id.Created})
	return id, translate(err)
}

// Identity implements broker.BrokerStore. It reads the table every time: another
// process may have reset the token.
func (s *Store) Identity(ctx context.Context, fresh broker.BrokerIdentity) (id broker.BrokerIdentity, created bool, err error) {
	err = s.read(ctx, func(ctx context.Context, q querier) (err error) {
		id, err = identity(ctx, q)
		return err
	})
	if !errors.Is(err, broker.ErrNotFound) {
		return id, false, err
	}
	err = s.tx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "INSERT INTO broker (id, seed, token_hash, created) VALUES (1, $1, $2, $3) ON CONFLICT DO NOTHING",
			fresh.Seed[:], fresh.TokenHash[:], schema.Millis(fresh.Created)); err != nil {
			return err
		}
		id, err = identity(ctx, tx)
		created = id.Seed == fresh.Seed // a seed is random: it is ours, also when this runs again
		return err
	})
	if err != nil {
		return broker.BrokerIdentity{}, false, err
	}
	return id, created, nil
}

// SetTokenHash implements broker.BrokerStore.
func (s *Store) SetTokenHash(ctx context.Context, hash [32]byte) error {
	return s.tx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		return changed(tx.Exec(ctx, "UPDATE broker SET token_hash = $1 WHERE id = 1", hash[:]))
	})
}

// changed turns "no row changed" into broker.ErrNotFound.
func changed(tag pgconn.CommandTag, err error) error {
	if err == nil && tag.RowsAffected() == 0 {
		return broker.ErrNotFound
	}
	return err
}
