package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
	"github.com/claudemesh/claudemesh/schema"
)

const inviteQuery = `SELECT i.id, g.mesh_id, i.invite_id, i.capability_body, i.capability_sig, i.blob, i.generation,
	i.max_uses, i.uses, i.expires, i.created, i.closed, i.voided FROM invite i JOIN mesh g ON g.id = i.mesh `

func scanInvite(r pgx.Row) (row int64, in broker.Invite, err error) {
	var generation int64
	err = r.Scan(&row, fixed(in.Mesh[:]), fixed(in.ID[:]), raw(&in.Capability.Body), fixed(in.Capability.Sig[:]),
		raw(&in.Blob), &generation, &in.MaxUses, &in.Uses, millis{&in.Expires}, millis{&in.Created}, &in.Closed, &in.Voided)
	if err != nil {
		return 0, broker.Invite{}, translate(err)
	}
	in.Generation = uint64(generation)
	return row, in, nil
}

// readInvite returns one invite and its row id. broker.ErrNotFound.
func readInvite(ctx context.Context, q querier, id wire.ID) (row int64, in broker.Invite, err error) {
	return scanInvite(q.QueryRow(ctx, inviteQuery+"WHERE i.invite_id = $1", id[:]))
}

// Invite implements broker.InviteStore.
func (s *Store) Invite(ctx context.Context, id wire.ID) (in broker.Invite, err error) {
	err = s.read(ctx, func(ctx context.Context, q querier) (err error) {
		_, in, err = readInvite(ctx, q, id)
		return err
	})
	return in, err
}

// Invites implements broker.InviteStore.
func (s *Store) Invites(ctx context.Context, mesh wire.ID) (out []broker.Invite, err error) {
	err = s.read(ctx, func(ctx context.Context, q querier) (err error) {
		out, err = list(ctx, q, func(row pgx.CollectableRow) (broker.Invite, error) {
			_, in, err := scanInvite(row)
			return in, err
		}, inviteQuery+"WHERE g.mesh_id = $1 ORDER BY i.created DESC, i.id DESC", mesh[:])
		return err
	})
	return out, err
}

// PutInvite implements broker.InviteStore.
func (s *Store) PutInvite(ctx context.Context, in broker.Invite) error {
	return s.tx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		mesh, m, err := lockMesh(ctx, tx, in.Mesh)
		if err != nil {
			return err
		}
		known, err := sameInvite(ctx, tx, in)
		if known || err != nil {
			return err
		}
		if in.Generation != m.Generation {
			return broker.ErrStaleMembers
		}
		tag, err := tx.Exec(ctx, `INSERT INTO invite (invite_id, mesh, capability_body, capability_sig, blob, generation, max_uses, expires, created)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (invite_id) DO NOTHING`, in.ID[:], mesh, blob(in.Capability.Body),
			in.Capability.Sig[:], blob(in.Blob), int64(in.Generation), in.MaxUses, schema.Millis(in.Expires), schema.Millis(in.Created))
		if err == nil && tag.RowsAffected() == 0 { // another mesh's took the id just now
			_, err = sameInvite(ctx, tx, in)
		}
		return err
	})
}

// sameInvite reports whether an invite is stored. broker.ErrConflict when
// another one is under its id.
func sameInvite(ctx context.Context, q querier, in broker.Invite) (bool, error) {
	_, stored, err := readInvite(ctx, q, in.ID)
	if errors.Is(err, broker.ErrNotFound) {
		return false, nil
	}
	if err == nil && (stored.Mesh != in.Mesh || !stored.Capability.Equal(in.Capability)) {
		err = broker.ErrConflict
	}
	return err == nil, err
}

// CloseInvite implements broker.InviteStore. The same statement again is
// answered like the first time.
func (s *Store) CloseInvite(ctx context.Context, mesh wire.ID, c broker.InviteClose) (version int64, err error) {
	err = s.tx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		row, _, err := lockMesh(ctx, tx, mesh)
		if err != nil {
			return err
		}
		err = tx.QueryRow(ctx, "SELECT version FROM invite_close WHERE mesh = $1 AND invite_id = $2 AND body = $3 AND sig = $4",
			row, c.Invite[:], blob(c.Statement.Body), c.Statement.Sig[:]).Scan(&version)
		if !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		if version, err = raiseOutcast(ctx, tx, row); err != nil {
			return err
		}
		return closeInvite(ctx, tx, row, &c, version)
	})
	if err != nil {
		return 0, err
	}
	return version, nil
}

// closeInvite closes an invite of a mesh and stores the statement. broker.ErrNotFound.
func closeInvite(ctx context.Context, tx pgx.Tx, mesh int64, c *broker.InviteClose, version int64) error {
	if err := changed(tx.Exec(ctx, "UPDATE invite SET closed = true WHERE mesh = $1 AND invite_id = $2", mesh, c.Invite[:])); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, "INSERT INTO invite_close (mesh, invite_id, body, sig, version) VALUES ($1, $2, $3, $4, $5)",
		mesh, c.Invite[:], blob(c.Statement.Body), c.Statement.Sig[:], version)
	return err
}
