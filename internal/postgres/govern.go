package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
	"github.com/claudemesh/claudemesh/schema"
)

// change makes one change to how a mesh is run. run returns the version that
// the change has, of an earlier time, or raises it.
func (s *Store) change(ctx context.Context, mesh wire.ID, run func(ctx context.Context, tx pgx.Tx, row int64, m broker.Mesh) (int64, error)) (version int64, err error) {
	err = s.tx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		row, m, err := lockMesh(ctx, tx, mesh)
		if err != nil {
			return err
		}
		version, err = run(ctx, tx, row, m)
		return err
	})
	if err != nil {
		return 0, err
	}
	return version, nil
}

// known returns the version that a query finds, and whether it found one.
func known(ctx context.Context, q querier, query string, args ...any) (version int64, known bool, err error) {
	err = q.QueryRow(ctx, query, args...).Scan(&version)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, false, nil
	}
	return version, err == nil, err
}

// room returns broker.ErrTooMany when a query counts so many.
func room(ctx context.Context, q querier, most int, query string, args ...any) error {
	var n int
	if err := q.QueryRow(ctx, query, args...).Scan(&n); err != nil {
		return err
	}
	if n >= most {
		return broker.ErrTooMany
	}
	return nil
}

// SetRole implements broker.GovernStore.
func (s *Store) SetRole(ctx context.Context, r broker.RoleChange) (int64, error) {
	return s.change(ctx, r.Mesh, func(ctx context.Context, tx pgx.Tx, mesh int64, m broker.Mesh) (int64, error) {
		body := blob(r.Statement.Body)
		if version, known, err := known(ctx, tx, "SELECT version FROM role WHERE mesh = $1 AND body = $2", mesh, body); known || err != nil {
			return version, err
		}
		if r.Version != m.MembersVersion {
			return 0, broker.ErrStaleMembers
		}
		if err := room(ctx, tx, broker.MaxRoles, "SELECT count(*) FROM role WHERE mesh = $1", mesh); err != nil {
			return 0, err
		}
		version, err := raiseOutcast(ctx, tx, mesh)
		if err != nil {
			return 0, err
		}
		for i := range r.Closes {
			if err := closeInvite(ctx, tx, mesh, &r.Closes[i], version); err != nil {
				return 0, err
			}
		}
		_, err = tx.Exec(ctx, "INSERT INTO role (mesh, body, sig, version) VALUES ($1, $2, $3, $4)", mesh, body, r.Statement.Sig[:], version)
		return version, err
	})
}

// AddPause implements broker.GovernStore.
func (s *Store) AddPause(ctx context.Context, p broker.Pause) (int64, error) {
	return s.change(ctx, p.Mesh, func(ctx context.Context, tx pgx.Tx, mesh int64, _ broker.Mesh) (int64, error) {
		body, until := blob(p.Statement.Body), schema.Millis(p.Until)
		if _, err := tx.Exec(ctx, "DELETE FROM pause WHERE mesh = $1 AND until <= $2", mesh, schema.Millis(p.Now)); err != nil {
			return 0, err
		}
		if version, known, err := known(ctx, tx, "SELECT version FROM pause WHERE mesh = $1 AND body = $2", mesh, body); known || err != nil {
			return version, err
		}
		if p.Until.IsZero() {
			err := tx.QueryRow(ctx, "SELECT until FROM pause WHERE mesh = $1 AND hash = $2 LIMIT 1", mesh, p.Hash[:]).Scan(&until)
			if err != nil {
				return 0, translate(err)
			}
		} else if err := room(ctx, tx, broker.MaxPauses, "SELECT count(*) FROM pause WHERE mesh = $1 AND signer = $2", mesh, p.Signer[:]); err != nil {
			return 0, err
		}
		version, err := raiseOutcast(ctx, tx, mesh)
		if err != nil {
			return 0, err
		}
		_, err = tx.Exec(ctx, "INSERT INTO pause (mesh, signer, hash, until, body, sig, version) VALUES ($1, $2, $3, $4, $5, $6, $7)",
			mesh, p.Signer[:], p.Hash[:], until, body, p.Statement.Sig[:], version)
		return version, err
	})
}

// SetBlock implements broker.GovernStore.
func (s *Store) SetBlock(ctx context.Context, mesh wire.ID, b broker.Block, on bool) (int64, error) {
	return s.change(ctx, mesh, func(ctx context.Context, tx pgx.Tx, mesh int64, m broker.Mesh) (int64, error) {
		query := "DELETE FROM block WHERE mesh = $1 AND member = $2 AND blocked = $3"
		if on {
			query = "INSERT INTO block (mesh, member, blocked) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
		}
		tag, err := tx.Exec(ctx, query, mesh, b.Member[:], b.Blocked[:])
		if err != nil || tag.RowsAffected() == 0 {
			return m.MembersVersion, err
		}
		if on {
			if err := room(ctx, tx, broker.MaxBlocks+1, "SELECT count(*) FROM block WHERE mesh = $1 AND member = $2", mesh, b.Member[:]); err != nil {
				return 0, err
			}
		}
		return raiseOutcast(ctx, tx, mesh)
	})
}

// Blocks implements broker.GovernStore.
func (s *Store) Blocks(ctx context.Context, mesh wire.ID) (out []broker.Block, err error) {
	err = s.read(ctx, func(ctx context.Context, q querier) (err error) {
		out, err = list(ctx, q, func(row pgx.CollectableRow) (b broker.Block, err error) {
			err = row.Scan(fixed(b.Member[:]), fixed(b.Blocked[:]))
			return b, err
		}, "SELECT b.member, b.blocked FROM block b JOIN mesh g ON g.id = b.mesh WHERE g.mesh_id = $1 ORDER BY b.id", mesh[:])
		return err
	})
	return out, err
}

// unblock forgets the blocks of and by a removed member.
func unblock(ctx context.Context, tx pgx.Tx, mesh int64, member wire.Key) error {
	_, err := tx.Exec(ctx, "DELETE FROM block WHERE mesh = $1 AND (member = $2 OR blocked = $2)", mesh, member[:])
	return err
}
