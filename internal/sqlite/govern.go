package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
	"github.com/claudemesh/claudemesh/schema"
)

// change makes one change to how a mesh is run. run returns the version that
// the change has, of an earlier time, or raises it.
func (s *Store) change(ctx context.Context, mesh wire.ID, run func(w *writer, row int64, m broker.Mesh) (int64, error)) (version int64, err error) {
	err = s.w.do(ctx, func(w *writer) error {
		row, m, err := readMesh(bg, w.st, mesh)
		if err != nil {
			return err
		}
		version, err = run(w, row, m)
		return err
	})
	if err != nil {
		return 0, err
	}
	return version, nil
}

// known returns the version that a query finds, and whether it found one.
func (w *writer) known(query string, args ...any) (version int64, known bool, err error) {
	err = w.st.Row(bg, query, args, &version)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, false, nil
	}
	return version, err == nil, err
}

// room returns broker.ErrTooMany when a query counts so many.
func (w *writer) room(most int, query string, args ...any) error {
	var n int
	if err := w.st.Row(bg, query, args, &n); err != nil {
		return err
	}
	if n >= most {
		return broker.ErrTooMany
	}
	return nil
}

// SetRole implements broker.GovernStore.
func (s *Store) SetRole(ctx context.Context, r broker.RoleChange) (int64, error) {
	return s.change(ctx, r.Mesh, func(w *writer, mesh int64, m broker.Mesh) (int64, error) {
		body := blob(r.Statement.Body)
		if version, known, err := w.known("SELECT version FROM role WHERE mesh = ? AND body = ?", mesh, body); known || err != nil {
			return version, err
		}
		if r.Version != m.MembersVersion {
			return 0, broker.ErrStaleMembers
		}
		if err := w.room(broker.MaxRoles, "SELECT count(*) FROM role WHERE mesh = ?", mesh); err != nil {
			return 0, err
		}
		version, err := w.raiseVersion(mesh)
		if err != nil {
			return 0, err
		}
		for i := range r.Closes {
			if err := w.closeInvite(mesh, &r.Closes[i], version); err != nil {
				return 0, err
			}
		}
		_, err = w.st.Exec(bg, "INSERT INTO role (mesh, body, sig, version) VALUES (?, ?, ?, ?)", mesh, body, r.Statement.Sig[:], version)
		return version, err
	})
}

// AddPause implements broker.GovernStore.
func (s *Store) AddPause(ctx context.Context, p broker.Pause) (int64, error) {
	return s.change(ctx, p.Mesh, func(w *writer, mesh int64, _ broker.Mesh) (int64, error) {
		body, until := blob(p.Statement.Body), schema.Millis(p.Until)
		if _, err := w.st.Exec(bg, "DELETE FROM pause WHERE mesh = ? AND until <= ?", mesh, schema.Millis(p.Now)); err != nil {
			return 0, err
		}
		if version, known, err := w.known("SELECT version FROM pause WHERE mesh = ? AND body = ?", mesh, body); known || err != nil {
			return version, err
		}
		if p.Until.IsZero() {
			err := w.st.Row(bg, "SELECT until FROM pause WHERE mesh = ? AND hash = ?", []any{mesh, p.Hash[:]}, &until)
			if errors.Is(err, sql.ErrNoRows) {
				err = broker.ErrNotFound
			}
			if err != nil {
				return 0, err
			}
		} else if err := w.room(broker.MaxPauses, "SELECT count(*) FROM pause WHERE mesh = ? AND signer = ?", mesh, p.Signer[:]); err != nil {
			return 0, err
		}
		version, err := w.raiseVersion(mesh)
		if err != nil {
			return 0, err
		}
		_, err = w.st.Exec(bg, "INSERT INTO pause (mesh, signer, hash, until, body, sig, version) VALUES (?, ?, ?, ?, ?, ?, ?)",
			mesh, p.Signer[:], p.Hash[:], until, body, p.Statement.Sig[:], version)
		return version, err
	})
}

// SetBlock implements broker.GovernStore.
func (s *Store) SetBlock(ctx context.Context, mesh wire.ID, b broker.Block, on bool) (int64, error) {
	return s.change(ctx, mesh, func(w *writer, mesh int64, m broker.Mesh) (int64, error) {
		query := "DELETE FROM block WHERE mesh = ? AND member = ? AND blocked = ?"
		if on {
			query = "INSERT INTO block (mesh, member, blocked) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
		}
		n, err := w.st.Exec(bg, query, mesh, b.Member[:], b.Blocked[:])
		if err != nil || n == 0 {
			return m.MembersVersion, err
		}
		if on {
			if err := w.room(broker.MaxBlocks+1, "SELECT count(*) FROM block WHERE mesh = ? AND member = ?", mesh, b.Member[:]); err != nil {
				return 0, err
			}
		}
		return w.raiseVersion(mesh)
	})
}

// Blocks implements broker.GovernStore.
func (s *Store) Blocks(ctx context.Context, mesh wire.ID) (out []broker.Block, err error) {
	err = s.reads.Each(ctx, "SELECT b.member, b.blocked FROM block b JOIN mesh g ON g.id = b.mesh WHERE g.mesh_id = ? ORDER BY b.id", []any{mesh[:]},
		func(rows *sql.Rows) error {
			var b broker.Block
			err := rows.Scan(fixed(b.Member[:]), fixed(b.Blocked[:]))
			out = append(out, b)
			return err
		})
	if err != nil {
		return nil, s.readErr(err)
	}
	return out, nil
}

// unblock forgets the blocks of and by a removed member.
func (w *writer) unblock(mesh int64, member wire.Key) error {
	_, err := w.st.Exec(bg, "DELETE FROM block WHERE mesh = ? AND (member = ? OR blocked = ?)", mesh, member[:], member[:])
	return err
}
