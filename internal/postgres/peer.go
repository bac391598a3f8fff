package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
	"github.com/claudemesh/claudemesh/schema"
)

const (
	// It waits for the removal of the member that is under way, or makes one
	// wait that would miss the new peer.
	standingQuery = `SELECT removed FROM member
		WHERE mesh = (SELECT id FROM mesh WHERE mesh_id = $1) AND pubkey = $2 FOR SHARE`
	putPeerQuery = `INSERT INTO peer AS p (mesh, pubkey, member, attested_at, attestation_sig,
			card_generation, card_seq, card_blob, card_sig, last_seen)
		SELECT id, $2, $3, $4, $5, $6, $7, $8, $9, $10 FROM mesh WHERE mesh_id = $1
		ON CONFLICT (mesh, pubkey) DO UPDATE SET
			attested_at = coalesce(excluded.attested_at, p.attested_at),
			attestation_sig = coalesce(excluded.attestation_sig, p.attestation_sig),
			card_generation = coalesce(excluded.card_generation, p.card_generation),
			card_seq = coalesce(excluded.card_seq, p.card_seq),
			card_blob = coalesce(excluded.card_blob, p.card_blob),
			card_sig = coalesce(excluded.card_sig, p.card_sig),
			last_seen = coalesce(nullif(excluded.last_seen, 0), p.last_seen),
			forgotten = 0,
			changed = CASE WHEN p.forgotten > 0
				OR excluded.attestation_sig IS NOT NULL AND excluded.attestation_sig IS DISTINCT FROM p.attestation_sig
				OR excluded.card_sig IS NOT NULL AND excluded.card_sig IS DISTINCT FROM p.card_sig
				THEN now_ms() ELSE p.changed END
		WHERE p.member = excluded.member
		RETURNING id`
)

// PutPeer implements broker.PeerStore. A forgotten key comes back under its number.
func (s *Store) PutPeer(ctx context.Context, p broker.Peer) (id broker.PeerID, err error) {
	args := []any{p.Mesh[:], p.Key[:], p.Member[:], nil, nil, nil, nil, nil, nil, schema.Millis(p.LastSeen)}
	if a := p.Attestation; a != nil {
		args[3], args[4] = a.Issued, a.Sig[:]
	}
	if c := p.Card; c != nil {
		args[5], args[6], args[7], args[8] = int64(c.Generation), int64(c.Seq), blob(c.Blob), c.Sig[:]
	}
	err = s.tx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		var removed bool
		err := tx.QueryRow(ctx, standingQuery, p.Mesh[:], p.Member[:]).Scan(&removed)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		if removed {
			return broker.ErrStaleMembers
		}
		err = tx.QueryRow(ctx, putPeerQuery, args...).Scan(&id)
		if !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		if _, _, err = readMesh(ctx, tx, p.Mesh); err == nil {
			err = broker.ErrConflict
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	return id, nil
}

const (
	peerColumns = `p.id, g.mesh_id, p.pubkey, p.member, p.attested_at, p.attestation_sig,
	p.card_generation, p.card_seq, p.card_blob, p.card_sig, p.last_seen`
	peerTables = " FROM peer p JOIN mesh g ON g.id = p.mesh "
)

// scanPeer scans peerColumns and what follows them.
func scanPeer(row pgx.Row, more ...any) (p broker.Peer, err error) {
	var issued, generation, seq *int64
	var a wire.Attestation
	var c wire.Card
	err = row.Scan(append([]any{&p.ID, fixed(p.Mesh[:]), fixed(p.Key[:]), fixed(p.Member[:]), &issued, fixed(a.Sig[:]),
		&generation, &seq, raw(&c.Blob), fixed(c.Sig[:]), millis{&p.LastSeen}}, more...)...)
	if err != nil {
		return broker.Peer{}, translate(err)
	}
	if issued != nil {
		a.Issued = *issued
		p.Attestation = &a
	}
	if generation != nil && seq != nil {
		c.Generation, c.Seq = uint64(*generation), uint64(*seq)
		p.Card = &c
	}
	return p, nil
}

// Peers implements broker.PeerStore.
func (s *Store) Peers(ctx context.Context, mesh wire.ID) (out []broker.Peer, err error) {
	err = s.read(ctx, func(ctx context.Context, q querier) (err error) {
		out, err = list(ctx, q, func(row pgx.CollectableRow) (broker.Peer, error) { return scanPeer(row) },
			"SELECT "+peerColumns+peerTables+"WHERE g.mesh_id = $1 AND p.forgotten = 0 ORDER BY p.id", mesh[:])
		return err
	})
	return out, err
}

// TouchPeers implements broker.PeerStore.
func (s *Store) TouchPeers(ctx context.Context, ids []broker.PeerID, seen time.Time) error {
	if len(ids) == 0 {
		return nil
	}
	return s.tx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE peer SET last_seen = $1 WHERE id IN
			(SELECT id FROM peer WHERE id = ANY($2) AND forgotten = 0 ORDER BY id FOR NO KEY UPDATE)`, schema.Millis(seen), ids)
		return err
	})
}

// ForgetPeers implements broker.PeerStore. Peers whose mailbox a node holds stay too.
func (s *Store) ForgetPeers(ctx context.Context, before time.Time, keep []broker.PeerID, now time.Time, limit int) (out []broker.Forgotten, err error) {
	err = s.tx(ctx, func(ctx context.Context, tx pgx.Tx) (err error) {
		out, err = forgetPeers(ctx, tx, schema.Millis(before), keep, now, limit)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

const (
	forgettableWhere = ` AND p.forgotten = 0 AND p.pubkey <> p.member AND p.last_seen < $2
		AND NOT EXISTS (SELECT 1 ` + standingHolder + ` WHERE h.peer = p.id) ORDER BY p.last_seen, p.id`
	forgettableQuery = "SELECT p.id, p.mesh FROM peer p WHERE p.id NOT IN (SELECT unnest($1::bigint[]))" + forgettableWhere + " LIMIT $3"
	// Of the due ones, those that still are when they are locked.
	claimedQuery = "SELECT " + peerColumns + peerTables + "WHERE p.id = ANY($1)" + forgettableWhere
)

func forgetPeers(ctx context.Context, tx pgx.Tx, before int64, keep []broker.PeerID, now time.Time, limit int) ([]broker.Forgotten, error) {
	type row struct{ ID, Mesh int64 }
	due, err := list(ctx, tx, pgx.RowToStructByPos[row], forgettableQuery, keep, before, limit)
	if err != nil || len(due) == 0 {
		return nil, err
	}
	ids, meshes := make([]int64, len(due)), make([]int64, len(due))
	for i, d := range due {
		ids[i], meshes[i] = d.ID, d.Mesh
	}
	if err := lockMeshes(ctx, tx, meshes); err != nil {
		return nil, err
	}
	// One that is locked is being put or held at this moment: it lives.
	if ids, err = list(ctx, tx, pgx.RowTo[int64], "SELECT id FROM peer WHERE id = ANY($1) ORDER BY id FOR UPDATE SKIP LOCKED", ids); err != nil {
		return nil, err
	}
	out, err := list(ctx, tx, func(row pgx.CollectableRow) (f broker.Forgotten, err error) {
		f.Peer, err = scanPeer(row)
		return f, err
	}, claimedQuery, ids, before)
	if err != nil || len(out) == 0 {
		return nil, err
	}
	peers := make([]broker.PeerID, len(out))
	at := make(map[broker.PeerID]int, len(out))
	for i := range out {
		peers[i] = out[i].Peer.ID
		at[peers[i]] = i
	}
	bounced, err := bounceQueue(ctx, tx, peers, wire.CodeSessionGone, now)
	if err != nil {
		return nil, err
	}
	for _, o := range bounced {
		f := &out[at[o.Recipient]]
		f.Bounced = append(f.Bounced, o)
	}
	return out, forget(ctx, tx, peers)
}

// forget hides peers, whose rows and mesh are locked, and drops what they
// showed. Their rows stay to name the keys in tombstones; Prune deletes them
// with the last of those.
func forget(ctx context.Context, tx pgx.Tx, ids []broker.PeerID) error {
	if _, err := tx.Exec(ctx, `UPDATE peer SET
			forgotten = (SELECT CASE WHEN is_called THEN last_value + 1 ELSE last_value END FROM delivery_number),
			changed = now_ms(), last_seen = 0, attested_at = NULL, attestation_sig = NULL,
			card_generation = NULL, card_seq = NULL, card_blob = NULL, card_sig = NULL
		WHERE id = ANY($1)`, ids); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `DELETE FROM presence WHERE peer IN
		(SELECT peer FROM presence WHERE peer = ANY($1) ORDER BY peer FOR UPDATE)`, ids)
	return err
}
