package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
	"github.com/claudemesh/claudemesh/schema"
)

const putPeerQuery = `INSERT INTO peer (mesh, pubkey, member, attested_at, attestation_sig,
		card_generation, card_seq, card_blob, card_sig, last_seen)
	VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
	ON CONFLICT (mesh, pubkey) DO UPDATE SET
		attested_at = coalesce(excluded.attested_at, attested_at),
		attestation_sig = coalesce(excluded.attestation_sig, attestation_sig),
		card_generation = coalesce(excluded.card_generation, card_generation),
		card_seq = coalesce(excluded.card_seq, card_seq),
		card_blob = coalesce(excluded.card_blob, card_blob),
		card_sig = coalesce(excluded.card_sig, card_sig),
		last_seen = iif(excluded.last_seen = 0, last_seen, excluded.last_seen),
		forgotten = 0
	WHERE member = excluded.member
	RETURNING id`

// PutPeer implements broker.PeerStore. A forgotten key comes back under its number.
func (s *Store) PutPeer(ctx context.Context, p broker.Peer) (id broker.PeerID, err error) {
	err = s.w.do(ctx, func(w *writer) error {
		mesh, err := meshRow(bg, w.st, p.Mesh)
		if err != nil {
			return err
		}
		args := []any{mesh, p.Key[:], p.Member[:], nil, nil, nil, nil, nil, nil, schema.Millis(p.LastSeen)}
		if a := p.Attestation; a != nil {
			args[3], args[4] = a.Issued, a.Sig[:]
		}
		if c := p.Card; c != nil {
			args[5], args[6], args[7], args[8] = int64(c.Generation), int64(c.Seq), blob(c.Blob), c.Sig[:]
		}
		err = w.st.Row(bg, putPeerQuery, args, &id)
		if errors.Is(err, sql.ErrNoRows) {
			return broker.ErrConflict
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	return id, nil
}

const peerColumns = `p.id, g.mesh_id, p.pubkey, p.member, p.attested_at, p.attestation_sig,
	p.card_generation, p.card_seq, p.card_blob, p.card_sig, p.last_seen FROM peer p JOIN mesh g ON g.id = p.mesh `

func scanPeer(rows *sql.Rows) (p broker.Peer, err error) {
	var issued, generation, seq sql.NullInt64
	var a wire.Attestation
	var c wire.Card
	err = rows.Scan(&p.ID, fixed(p.Mesh[:]), fixed(p.Key[:]), fixed(p.Member[:]), &issued, fixed(a.Sig[:]),
		&generation, &seq, raw(&c.Blob), fixed(c.Sig[:]), millis{&p.LastSeen})
	if issued.Valid {
		a.Issued = issued.Int64
		p.Attestation = &a
	}
	if generation.Valid {
		c.Generation, c.Seq = uint64(generation.Int64), uint64(seq.Int64)
		p.Card = &c
	}
	return p, err
}

// Peers implements broker.PeerStore.
func (s *Store) Peers(ctx context.Context, mesh wire.ID) (out []broker.Peer, err error) {
	err = s.reads.Each(ctx, "SELECT "+peerColumns+"WHERE g.mesh_id = ? AND p.forgotten = 0 ORDER BY p.id", []any{mesh[:]},
		func(rows *sql.Rows) error {
			p, err := scanPeer(rows)
			out = append(out, p)
			return err
		})
	if err != nil {
		return nil, s.readErr(err)
	}
	return out, nil
}

// TouchPeers implements broker.PeerStore.
func (s *Store) TouchPeers(ctx context.Context, ids []broker.PeerID, seen time.Time) error {
	if len(ids) == 0 {
		return nil
	}
	return s.w.do(ctx, func(w *writer) error {
		for _, id := range ids {
			if _, err := w.st.Exec(bg, "UPDATE peer SET last_seen = ? WHERE id = ? AND forgotten = 0", schema.Millis(seen), int64(id)); err != nil {
				return err
			}
		}
		return nil
	})
}

// ForgetPeers implements broker.PeerStore.
func (s *Store) ForgetPeers(ctx context.Context, before time.Time, keep []broker.PeerID, now time.Time, limit int) (out []broker.Forgotten, err error) {
	keep = slices.Sorted(slices.Values(keep))
	err = s.w.do(ctx, func(w *writer) (err error) {
		out, err = w.forgetPeers(before, keep, now, limit)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (w *writer) forgetPeers(before time.Time, keep []broker.PeerID, now time.Time, limit int) (out []broker.Forgotten, err error) {
	// The kept ones are not in the query: with as many more as there are to
	// keep, the limit still holds.
	err = w.st.Each(bg, "SELECT "+peerColumns+`WHERE p.forgotten = 0 AND p.pubkey <> p.member AND p.last_seen < ?
		ORDER BY p.last_seen, p.id LIMIT ?`, []any{schema.Millis(before), limit + len(keep)}, func(rows *sql.Rows) error {
		p, err := scanPeer(rows)
		if _, kept := slices.BinarySearch(keep, p.ID); !kept && len(out) < limit {
			out = append(out, broker.Forgotten{Peer: p})
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for i := range out {
		id := out[i].Peer.ID
		if out[i].Bounced, err = w.bounceQueue(id, wire.CodeSessionGone, now); err != nil {
			return nil, err
		}
		if err := w.forget(id); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// forget hides a peer and drops what it showed. Its row stays to name the key
// in tombstones; Prune deletes it with the last of them.
func (w *writer) forget(id broker.PeerID) error {
	_, err := w.st.Exec(bg, `UPDATE peer SET forgotten = ?, last_seen = 0, attested_at = NULL, attestation_sig = NULL,
		card_generation = NULL, card_seq = NULL, card_blob = NULL, card_sig = NULL WHERE id = ?`, w.next, int64(id))
	return err
}
