package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
	"github.com/claudemesh/claudemesh/schema"
)

// Remove implements broker.MemberStore. The same statement again is answered
// with the version of the first time.
func (s *Store) Remove(ctx context.Context, r broker.Removal) (out broker.Removed, err error) {
	err = s.tx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		now, err := remove(ctx, tx, &r)
		// When the commit's answer was lost, what it did is known from the time before.
		if err == nil && now.Version != out.Version {
			out = now
		}
		return err
	})
	if err != nil {
		return broker.Removed{}, err
	}
	return out, nil
}

func remove(ctx context.Context, tx pgx.Tx, r *broker.Removal) (out broker.Removed, err error) {
	mesh, m, err := lockMesh(ctx, tx, r.Mesh)
	if err != nil {
		return out, err
	}
	if _, err := readMember(ctx, tx, mesh, r.Member); err != nil {
		return out, err
	}
	err = tx.QueryRow(ctx, "SELECT version FROM revocation WHERE mesh = $1 AND member = $2 AND body = $3 AND sig = $4",
		mesh, r.Member[:], blob(r.Statement.Body), r.Statement.Sig[:]).Scan(&out.Version)
	if !errors.Is(err, pgx.ErrNoRows) {
		return out, err
	}
	if r.Version != m.MembersVersion || r.NextKey != nil && r.NextKey.Generation != m.Generation+1 {
		return out, broker.ErrStaleMembers
	}
	if out.Version, err = raiseOutcast(ctx, tx, mesh); err != nil {
		return out, err
	}
	if _, err := tx.Exec(ctx, "UPDATE member SET removed = true WHERE mesh = $1 AND pubkey = $2", mesh, r.Member[:]); err != nil {
		return out, err
	}
	if _, err := tx.Exec(ctx, "INSERT INTO revocation (mesh, member, body, sig, version) VALUES ($1, $2, $3, $4, $5)",
		mesh, r.Member[:], blob(r.Statement.Body), r.Statement.Sig[:], out.Version); err != nil {
		return out, err
	}
	for i := range r.Closes {
		if err := closeInvite(ctx, tx, mesh, &r.Closes[i], out.Version); err != nil {
			return out, err
		}
	}
	if r.NextKey != nil {
		if out.Voided, err = nextKey(ctx, tx, mesh, r, out.Version); err != nil {
			return out, err
		}
	}
	if err := unblock(ctx, tx, mesh, r.Member); err != nil {
		return out, err
	}
	out.Bounced, err = forgetMember(ctx, tx, mesh, r)
	return out, err
}

// nextKey stores a key generation, voids the invites that seal the one before
// and returns those that could still have been used.
func nextKey(ctx context.Context, tx pgx.Tx, mesh int64, r *broker.Removal, version int64) (voided []wire.ID, err error) {
	k := r.NextKey
	to, boxes := make([][]byte, len(k.Boxes)), make([][]byte, len(k.Boxes))
	for i := range k.Boxes {
		to[i], boxes[i] = k.Boxes[i].To[:], blob(k.Boxes[i].Box)
	}
	if _, err := tx.Exec(ctx, `INSERT INTO key_box (mesh, generation, member, issuer, box, previous, version)
		SELECT $1, $2, b.member, $3, b.box, $4, $5 FROM unnest($6::bytea[], $7::bytea[]) AS b(member, box)`,
		mesh, int64(k.Generation), k.Issuer[:], blob(k.Previous), version, to, boxes); err != nil {
		return nil, err
	}
	if _, err := tx.Exec(ctx, "UPDATE mesh SET generation = $1 WHERE id = $2", int64(k.Generation), mesh); err != nil {
		return nil, err
	}
	voided, err = list(ctx, tx, func(row pgx.CollectableRow) (id wire.ID, err error) {
		err = row.Scan(fixed(id[:]))
		return id, err
	}, `SELECT invite_id FROM invite WHERE mesh = $1 AND NOT closed AND NOT voided
		AND uses < max_uses AND expires > $2 ORDER BY id`, mesh, schema.Millis(r.Now))
	if err != nil {
		return nil, err
	}
	_, err = tx.Exec(ctx, "UPDATE invite SET voided = true WHERE mesh = $1 AND NOT closed", mesh)
	return voided, err
}

// forgetMember bounces what waits for a member's peers and forgets them.
func forgetMember(ctx context.Context, tx pgx.Tx, mesh int64, r *broker.Removal) ([]broker.Outcome, error) {
	peers, err := list(ctx, tx, pgx.RowTo[broker.PeerID],
		"SELECT id FROM peer WHERE mesh = $1 AND member = $2 ORDER BY id FOR NO KEY UPDATE", mesh, r.Member[:])
	if err != nil || len(peers) == 0 {
		return nil, err
	}
	bounced, err := bounceQueue(ctx, tx, peers, wire.CodeRemoved, r.Now)
	if err != nil {
		return nil, err
	}
	return bounced, forget(ctx, tx, peers)
}
