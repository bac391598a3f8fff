package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
	"github.com/claudemesh/claudemesh/schema"
)

const inviteColumns = `i.id, i.mesh, g.mesh_id, i.invite_id, i.capability_body, i.capability_sig, i.blob, i.generation,
	i.max_uses, i.uses, i.expires, i.created, i.closed, i.voided FROM invite i JOIN mesh g ON g.id = i.mesh `

// inviteRow is where an invite stands in the tables.
type inviteRow struct{ id, mesh int64 }

func inviteFields(row *inviteRow, in *broker.Invite, generation *int64) []any {
	return []any{&row.id, &row.mesh, fixed(in.Mesh[:]), fixed(in.ID[:]), raw(&in.Capability.Body), fixed(in.Capability.Sig[:]),
		raw(&in.Blob), generation, &in.MaxUses, &in.Uses, millis{&in.Expires}, millis{&in.Created}, &in.Closed, &in.Voided}
}

// readInvite returns one invite. broker.ErrNotFound.
func readInvite(ctx context.Context, q querier, id wire.ID) (row inviteRow, in broker.Invite, err error) {
	var generation int64
	err = q.Row(ctx, "SELECT "+inviteColumns+"WHERE i.invite_id = ?", []any{id[:]}, inviteFields(&row, &in, &generation)...)
	if errors.Is(err, sql.ErrNoRows) {
		return row, in, broker.ErrNotFound
	}
	in.Generation = uint64(generation)
	return row, in, err
}

// Invite implements broker.InviteStore.
func (s *Store) Invite(ctx context.Context, id wire.ID) (broker.Invite, error) {
	_, in, err := readInvite(ctx, s.reads, id)
	if err != nil {
		return broker.Invite{}, s.readErr(err)
	}
	return in, nil
}

// Invites implements broker.InviteStore.
func (s *Store) Invites(ctx context.Context, mesh wire.ID) (out []broker.Invite, err error) {
	err = s.reads.Each(ctx, "SELECT "+inviteColumns+"WHERE g.mesh_id = ? ORDER BY i.created DESC, i.id DESC", []any{mesh[:]},
		func(rows *sql.Rows) error {
			var row inviteRow
			var in broker.Invite
			var generation int64
			err := rows.Scan(inviteFields(&row, &in, &generation)...)
			in.Generation = uint64(generation)
			out = append(out, in)
			return err
		})
	if err != nil {
		return nil, s.readErr(err)
	}
	return out, nil
}

// PutInvite implements broker.InviteStore.
func (s *Store) PutInvite(ctx context.Context, in broker.Invite) error {
	return s.w.do(ctx, func(w *writer) error {
		mesh, m, err := readMesh(bg, w.st, in.Mesh)
		if err != nil {
			return err
		}
		_, stored, err := readInvite(bg, w.st, in.ID)
		if err == nil {
			if stored.Mesh != in.Mesh || !stored.Capability.Equal(in.Capability) {
				return broker.ErrConflict
			}
			return nil
		}
		if !errors.Is(err, broker.ErrNotFound) {
			return err
		}
		if in.Generation != m.Generation {
			return broker.ErrStaleMembers
		}
		_, err = w.st.Exec(bg, `INSERT INTO invite (invite_id, mesh, capability_body, capability_sig, blob, generation, max_uses, expires, created)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`, in.ID[:], mesh, blob(in.Capability.Body), in.Capability.Sig[:], blob(in.Blob),
			int64(in.Generation), in.MaxUses, schema.Millis(in.Expires), schema.Millis(in.Created))
		return err
	})
}

// CloseInvite implements broker.InviteStore.
func (s *Store) CloseInvite(ctx context.Context, mesh wire.ID, c broker.InviteClose) (version int64, err error) {
	err = s.w.do(ctx, func(w *writer) error {
		row, err := meshRow(bg, w.st, mesh)
		if err != nil {
			return err
		}
		if version, err = w.raiseVersion(row); err != nil {
			return err
		}
		return w.closeInvite(row, &c, version)
	})
	if err != nil {
		return 0, err
	}
	return version, nil
}

// closeInvite closes an invite of a mesh and stores the statement. broker.ErrNotFound.
func (w *writer) closeInvite(mesh int64, c *broker.InviteClose, version int64) error {
	if err := changed(w.st.Exec(bg, "UPDATE invite SET closed = 1 WHERE mesh = ? AND invite_id = ?", mesh, c.Invite[:])); err != nil {
		return err
	}
	_, err := w.st.Exec(bg, "INSERT INTO invite_close (mesh, invite_id, body, sig, version) VALUES (?, ?, ?, ?, ?)",
		mesh, c.Invite[:], blob(c.Statement.Body), c.Statement.Sig[:], version)
	return err
}
