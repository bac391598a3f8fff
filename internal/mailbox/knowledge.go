package mailbox

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"time"

	"github.com/claudemesh/claudemesh/internal/wire"
)

const (
	insertStatement  = `INSERT INTO statement (mesh, hash, body) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`
	selectStatements = `SELECT body FROM statement WHERE mesh = ? ORDER BY number`
	upsertVersion    = `INSERT INTO members_version (mesh, version) VALUES (?, ?)
		ON CONFLICT DO UPDATE SET version = excluded.version WHERE excluded.version > version`
	selectVersion = `SELECT version FROM members_version WHERE mesh = ?`
	upsertPeer    = `INSERT INTO peer (mesh, key, member, role, attestation, card_seq, card, last_seen)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT DO UPDATE SET member = excluded.member, role = excluded.role, attestation = excluded.attestation,
		card_seq = excluded.card_seq, card = excluded.card, last_seen = excluded.last_seen`
	peerColumns = `SELECT key, member, role, attestation, card_seq, card, last_seen FROM peer `
	selectPeer  = peerColumns + `WHERE mesh = ? AND key = ?`
	selectPeers = peerColumns + `WHERE mesh = ? ORDER BY last_seen DESC, key`
	insertKey   = `INSERT INTO mesh_key (mesh, generation, key) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`
	selectKey   = `SELECT key FROM mesh_key WHERE mesh = ? AND generation = ?`
	selectKeys  = `SELECT generation, key FROM mesh_key WHERE mesh = ?`
)

// forgetMesh deletes what belongs to a mesh; rows that hang on others go with them.
var forgetMesh = [...]string{
	`DELETE FROM counter WHERE mesh = ?`,
	`DELETE FROM outgoing WHERE mesh = ?`,
	`DELETE FROM incoming WHERE mesh = ?`,
	`DELETE FROM seen WHERE mesh = ?`,
	`DELETE FROM floor WHERE mesh = ?`,
	`DELETE FROM lane_in WHERE mesh = ?`,
	`DELETE FROM statement WHERE mesh = ?`,
	`DELETE FROM members_version WHERE mesh = ?`,
	`DELETE FROM peer WHERE mesh = ?`,
	`DELETE FROM mesh_key WHERE mesh = ?`,
	`DELETE FROM trust WHERE mesh = ?`,
	`DELETE FROM pause WHERE mesh = ?`,
	`DELETE FROM held WHERE mesh = ?`,
}

const (
	pruneIncoming = `DELETE FROM incoming WHERE read_at > 0 AND read_at < ?`
	// A message is settled when nothing is stored and what is accepted has
	// expired: nobody asks for it any more.
	pruneOutgoing = `DELETE FROM outgoing WHERE sent < ?1 AND NOT EXISTS (SELECT 1 FROM out_recipient r
		WHERE r.message = outgoing.number
		AND (r.state = 0 OR r.at >= ?1 OR (r.state = 1 AND outgoing.expires >= ?1)))`
	raiseFloor = `INSERT INTO floor (mesh, expires) SELECT mesh, max(expires) FROM seen WHERE expires < ? GROUP BY mesh
		ON CONFLICT DO UPDATE SET expires = excluded.expires WHERE excluded.expires > floor.expires`
	pruneSeen = `DELETE FROM seen WHERE expires < ?`
	pruneGaps = `DELETE FROM gap WHERE noticed < ?`
)

// Prune forgets what is over.
func (d *disk) Prune(ctx context.Context, keep time.Duration, now, serverNow int64) error {
	old := now - keep.Milliseconds()
	expired := min(now, serverNow) - seenGrace.Milliseconds()
	steps := []struct {
		query string
		limit int64
	}{
		{pruneIncoming, old}, {pruneOutgoing, old},
		{raiseFloor, expired}, {pruneSeen, expired},
		{pruneGaps, now - gapLife.Milliseconds()},
	}
	return d.write(ctx, func(t *tx) (changed bool, err error) {
		for _, s := range steps {
			n, err := t.exec(s.query, s.limit)
			if err != nil {
				return false, err
			}
			changed = changed || n > 0
		}
		_, err = t.exec(pruneRecords, auditLeast, now-auditLife.Milliseconds(), auditMost)
		return changed, err
	})
}

// SaveStatements appends statements.
func (d *disk) SaveStatements(ctx context.Context, mesh wire.ID, version int64, s []Statement) (fresh []bool, err error) {
	fresh = make([]bool, len(s))
	err = d.write(ctx, func(t *tx) (changed bool, err error) {
		for i, st := range s {
			if err := checkStatement(st); err != nil {
				return false, err
			}
			body, err := wire.Marshal(st)
			if err != nil {
				return false, err
			}
			hash := sha256.Sum256(body)
			n, err := t.exec(insertStatement, mesh[:], hash[:], body)
			if err != nil {
				return false, err
			}
			fresh[i] = n > 0
			changed = changed || n > 0
		}
		n, err := t.exec(upsertVersion, mesh[:], version)
		return changed || n > 0, err
	})
	return fresh, err
}

// Statements returns the statements of a mesh.
func (d *disk) Statements(ctx context.Context, mesh wire.ID) (version int64, s []Statement, err error) {
	err = d.read(ctx, func(t *tx) error {
		if err := t.get(selectVersion, []any{mesh[:]}, &version); err != nil && !noRows(err) {
			return err
		}
		return t.each(selectStatements, []any{mesh[:]}, func(rows *sql.Rows) error {
			var body sql.RawBytes
			if err := rows.Scan(&body); err != nil {
				return err
			}
			var st Statement
			if err := wire.Unmarshal(body, &st); err != nil {
				return err
			}
			s = append(s, st)
			return nil
		})
	})
	return version, s, err
}

// SavePeers inserts or updates peers.
func (d *disk) SavePeers(ctx context.Context, mesh wire.ID, peers []KnownPeer) error {
	return d.write(ctx, func(t *tx) (bool, error) {
		for _, p := range peers {
			err := t.each(selectPeer, []any{mesh[:], p.Key[:]}, func(rows *sql.Rows) error {
				old, err := scanPeer(rows)
				p = mergePeer(old, p)
				return err
			})
			if err != nil {
				return false, err
			}
			var attestation []byte
			if p.Attestation != nil {
				if attestation, err = wire.Marshal(p.Attestation); err != nil {
					return false, err
				}
			}
			if _, err := t.exec(upsertPeer, mesh[:], p.Key[:], p.Member[:], string(p.Role), attestation,
				int64(p.CardSeq), p.Card, p.LastSeen); err != nil {
				return false, err
			}
		}
		return len(peers) > 0, nil
	})
}

func scanPeer(rows *sql.Rows) (p KnownPeer, err error) {
	var attestation []byte
	var seq int64
	if err := rows.Scan(fixed(p.Key[:]), fixed(p.Member[:]), &p.Role, &attestation, &seq, &p.Card, &p.LastSeen); err != nil {
		return p, err
	}
	p.CardSeq = uint64(seq)
	if attestation != nil {
		p.Attestation = new(wire.Attestation)
		err = wire.Unmarshal(attestation, p.Attestation)
	}
	return p, err
}

// Peers returns the known peers of a mesh, the last seen first.
func (d *disk) Peers(ctx context.Context, mesh wire.ID) (peers []KnownPeer, err error) {
	err = d.read(ctx, func(t *tx) error {
		return t.each(selectPeers, []any{mesh[:]}, func(rows *sql.Rows) error {
			p, err := scanPeer(rows)
			peers = append(peers, p)
			return err
		})
	})
	return peers, err
}

// SaveKey stores a mesh key.
func (d *disk) SaveKey(ctx context.Context, mesh wire.ID, generation uint64, key [32]byte) error {
	return d.write(ctx, func(t *tx) (bool, error) {
		n, err := t.exec(insertKey, mesh[:], int64(generation), key[:])
		if err != nil || n > 0 {
			return n > 0, err
		}
		var have [32]byte
		if err := t.get(selectKey, []any{mesh[:], int64(generation)}, fixed(have[:])); err != nil {
			return false, err
		}
		if !bytes.Equal(have[:], key[:]) {
			return false, errOtherKey(generation)
		}
		return false, nil
	})
}

// Keys returns the mesh keys.
func (d *disk) Keys(ctx context.Context, mesh wire.ID) (map[uint64][32]byte, error) {
	keys := make(map[uint64][32]byte)
	err := d.read(ctx, func(t *tx) error {
		return t.each(selectKeys, []any{mesh[:]}, func(rows *sql.Rows) error {
			var generation int64
			var key [32]byte
			if err := rows.Scan(&generation, fixed(key[:])); err != nil {
				return err
			}
			keys[uint64(generation)] = key
			return nil
		})
	})
	return keys, err
}

// Forget deletes everything of a mesh.
func (d *disk) Forget(ctx context.Context, mesh wire.ID) error {
	return d.write(ctx, func(t *tx) (bool, error) {
		for _, q := range forgetMesh {
			if _, err := t.exec(q, mesh[:]); err != nil {
				return false, err
			}
		}
		return true, nil
	})
}
