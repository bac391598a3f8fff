package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/prepared"
	"github.com/claudemesh/claudemesh/internal/wire"
	"github.com/claudemesh/claudemesh/schema"
)

// memberRow is what the writer needs of a stored member.
type memberRow struct {
	name        string
	certificate []byte
	version     int64
	removed     bool
}

// member returns a member, removed or not. broker.ErrNotFound.
func (w *writer) member(mesh int64, key wire.Key) (m memberRow, err error) {
	err = w.st.Row(bg, "SELECT name, certificate, version, removed FROM member WHERE mesh = ? AND pubkey = ?",
		[]any{mesh, key[:]}, &m.name, &m.certificate, &m.version, &m.removed)
	if errors.Is(err, sql.ErrNoRows) {
		err = broker.ErrNotFound
	}
	return m, err
}

func (w *writer) insertMember(mesh int64, m broker.Member, certificate []byte, version int64) error {
	var invite []byte // NULL for the founder
	if !m.Invite.IsZero() {
		invite = m.Invite[:]
	}
	_, err := w.st.Exec(bg, `INSERT INTO member (mesh, pubkey, name, role, invite, certificate, joined, version)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)`, mesh, m.Key[:], m.Name, m.Role, invite, certificate, schema.Millis(m.Joined), version)
	return err
}

// raiseVersion adds one to a mesh's members version and returns it.
func (w *writer) raiseVersion(mesh int64) (version int64, err error) {
	err = w.st.Row(bg, "UPDATE mesh SET members_version = members_version + 1 WHERE id = ? RETURNING members_version", []any{mesh}, &version)
	return version, err
}

// Join implements broker.MemberStore.
func (s *Store) Join(ctx context.Context, j broker.Join) (a broker.Admission, err error) {
	certificate, err := wire.Marshal(j.Member.Certificate)
	if err != nil {
		return a, err
	}
	j.Member.Invite = j.Invite
	err = s.w.do(ctx, func(w *writer) (err error) {
		a, err = w.join(&j, certificate)
		return err
	})
	if err != nil {
		return broker.Admission{}, err
	}
	return a, nil
}

func (w *writer) join(j *broker.Join, certificate []byte) (a broker.Admission, err error) {
	row, in, err := readInvite(bg, w.st, j.Invite)
	if err != nil {
		return a, err
	}
	if in.Mesh != j.Member.Mesh {
		return a, broker.ErrNotFound
	}
	a = broker.Admission{Blob: in.Blob, Generation: in.Generation}
	stored, err := w.member(row.mesh, j.Member.Key)
	if err == nil {
		if stored.removed || !bytes.Equal(stored.certificate, certificate) {
			return a, broker.ErrConflict
		}
		a.Version, a.Repeated = stored.version, true
		return a, nil
	}
	if !errors.Is(err, broker.ErrNotFound) {
		return a, err
	}
	if err := in.Admits(j.Now); err != nil {
		return a, err
	}
	var taken bool
	if err := w.st.Row(bg, "SELECT EXISTS (SELECT 1 FROM member WHERE mesh = ? AND name = ? AND removed = 0)",
		[]any{row.mesh, j.Member.Name}, &taken); err != nil {
		return a, err
	}
	if taken {
		return a, broker.ErrNameTaken
	}
	if _, err := w.st.Exec(bg, "UPDATE invite SET uses = uses + 1 WHERE id = ?", row.id); err != nil {
		return a, err
	}
	if a.Version, err = w.raiseVersion(row.mesh); err != nil {
		return a, err
	}
	return a, w.insertMember(row.mesh, j.Member, certificate, a.Version)
}

const membersQuery = `SELECT pubkey, name, role, invite, certificate, joined, removed FROM member
	WHERE mesh = ? AND version > ? ORDER BY version, id`

const keysQuery = `SELECT generation, issuer, box, previous FROM key_box
	WHERE mesh = ? AND member = ? AND version > ? ORDER BY generation`

// Changes implements broker.MemberStore.
func (s *Store) Changes(ctx context.Context, mesh wire.ID, since int64, member wire.Key) (c broker.MemberChanges, err error) {
	err = s.reads.Snapshot(ctx, func(q *prepared.Conn) error {
		row, m, err := readMesh(ctx, q, mesh)
		if err != nil {
			return err
		}
		c.Version, c.Gen = m.MembersVersion, m.Generation
		if c.Version <= since {
			return nil
		}
		if c.Members, err = members(ctx, q, mesh, row, since); err != nil {
			return err
		}
		for _, list := range []struct {
			to    *[]wire.Signed
			table string
		}{{&c.Roles, "role"}, {&c.Removals, "revocation"}, {&c.Closes, "invite_close"}, {&c.Pauses, "pause"}} {
			query := "SELECT body, sig FROM " + list.table + " WHERE mesh = ? AND version > ? ORDER BY version, id"
			if *list.to, err = statementsSince(ctx, q, query, row, since); err != nil {
				return err
			}
		}
		return q.Each(ctx, keysQuery, []any{row, member[:], since}, func(rows *sql.Rows) error {
			var b wire.KeyBox
			var generation int64
			err := rows.Scan(&generation, fixed(b.Issuer[:]), raw(&b.Box), raw(&b.Previous))
			b.Generation = uint64(generation)
			c.Keys = append(c.Keys, b)
			return err
		})
	})
	if err != nil {
		return broker.MemberChanges{}, s.readErr(err)
	}
	return c, nil
}

func members(ctx context.Context, q querier, mesh wire.ID, row, since int64) (out []broker.Member, err error) {
	err = q.Each(ctx, membersQuery, []any{row, since}, func(rows *sql.Rows) error {
		m := broker.Member{Mesh: mesh}
		var certificate sql.RawBytes
		if err := rows.Scan(fixed(m.Key[:]), &m.Name, &m.Role, fixed(m.Invite[:]), &certificate, millis{&m.Joined}, &m.Removed); err != nil {
			return err
		}
		if err := wire.Unmarshal(certificate, &m.Certificate); err != nil {
			return fmt.Errorf("%w: certificate of member %s: %w", ErrCorrupt, m.Key.Short(), err)
		}
		out = append(out, m)
		return nil
	})
	return out, err
}

func statementsSince(ctx context.Context, q querier, query string, mesh, since int64) (out []wire.Signed, err error) {
	err = q.Each(ctx, query, []any{mesh, since}, func(rows *sql.Rows) error {
		var s wire.Signed
		err := rows.Scan(raw(&s.Body), fixed(s.Sig[:]))
		out = append(out, s)
		return err
	})
	return out, err
}
