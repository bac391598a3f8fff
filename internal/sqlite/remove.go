package sqlite

import (
	"context"
	"database/sql"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
	"github.com/claudemesh/claudemesh/schema"
)

// Remove implements broker.MemberStore.
func (s *Store) Remove(ctx context.Context, r broker.Removal) (out broker.Removed, err error) {
	err = s.w.do(ctx, func(w *writer) (err error) {
		out, err = w.remove(&r)
		return err
	})
	if err != nil {
		return broker.Removed{}, err
	}
	return out, nil
}

func (w *writer) remove(r *broker.Removal) (out broker.Removed, err error) {
	mesh, m, err := readMesh(bg, w.st, r.Mesh)
	if err != nil {
		return out, err
	}
	if _, err := w.member(mesh, r.Member); err != nil {
		return out, err
	}
	if r.Version != m.MembersVersion || r.NextKey != nil && r.NextKey.Generation != m.Generation+1 {
		return out, broker.ErrStaleMembers
	}
	if out.Version, err = w.raiseVersion(mesh); err != nil {
		return out, err
	}
	if _, err := w.st.Exec(bg, "UPDATE member SET removed = 1 WHERE mesh = ? AND pubkey = ?", mesh, r.Member[:]); err != nil {
		return out, err
	}
	if _, err := w.st.Exec(bg, "INSERT INTO revocation (mesh, member, body, sig, version) VALUES (?, ?, ?, ?, ?)",
		mesh, r.Member[:], blob(r.Statement.Body), r.Statement.Sig[:], out.Version); err != nil {
		return out, err
	}
	for i := range r.Closes {
		if err := w.closeInvite(mesh, &r.Closes[i], out.Version); err != nil {
			return out, err
		}
	}
	if r.NextKey != nil {
		if out.Voided, err = w.nextKey(mesh, r, out.Version); err != nil {
			return out, err
		}
	}
	if err := w.unblock(mesh, r.Member); err != nil {
		return out, err
	}
	out.Bounced, err = w.forgetMember(mesh, r)
	return out, err
}

// nextKey stores a key generation, voids the invites that seal the one before
// and returns those that could still have been used.
func (w *writer) nextKey(mesh int64, r *broker.Removal, version int64) (voided []wire.ID, err error) {
	k := r.NextKey
	for i := range k.Boxes {
		b := &k.Boxes[i]
		if _, err := w.st.Exec(bg, `INSERT INTO key_box (mesh, generation, member, issuer, box, previous, version)
			VALUES (?, ?, ?, ?, ?, ?, ?)`, mesh, int64(k.Generation), b.To[:], k.Issuer[:], blob(b.Box), blob(k.Previous), version); err != nil {
			return nil, err
		}
	}
	if _, err := w.st.Exec(bg, "UPDATE mesh SET generation = ? WHERE id = ?", int64(k.Generation), mesh); err != nil {
		return nil, err
	}
	err = w.st.Each(bg, `SELECT invite_id FROM invite WHERE mesh = ? AND closed = 0 AND voided = 0
		AND uses < max_uses AND expires > ? ORDER BY id`, []any{mesh, schema.Millis(r.Now)}, func(rows *sql.Rows) error {
		var id wire.ID
		err := rows.Scan(fixed(id[:]))
		voided = append(voided, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	_, err = w.st.Exec(bg, "UPDATE invite SET voided = 1 WHERE mesh = ? AND closed = 0", mesh)
	return voided, err
}

// forgetMember bounces what waits for a member's peers and forgets them.
func (w *writer) forgetMember(mesh int64, r *broker.Removal) (bounced []broker.Outcome, err error) {
	var peers []broker.PeerID
	err = w.st.Each(bg, "SELECT id FROM peer WHERE mesh = ? AND member = ? ORDER BY id", []any{mesh, r.Member[:]},
		func(rows *sql.Rows) error {
			var id broker.PeerID
			err := rows.Scan(&id)
			peers = append(peers, id)
			return err
		})
	if err != nil {
		return nil, err
	}
	for _, id := range peers {
		out, err := w.bounceQueue(id, wire.CodeRemoved, r.Now)
		if err != nil {
			return nil, err
		}
		bounced = append(bounced, out...)
		if err := w.forget(id); err != nil {
			return nil, err
		}
	}
	return bounced, nil
}
