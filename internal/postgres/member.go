package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
	"github.com/claudemesh/claudemesh/schema"
)

// memberRow is what writing methods need of a stored member.
type memberRow struct {
	name        string
	certificate []byte
	version     int64
	removed     bool
}

// readMember returns a member, removed or not. broker.ErrNotFound.
func readMember(ctx context.Context, q querier, mesh int64, key wire.Key) (m memberRow, err error) {
	err = q.QueryRow(ctx, "SELECT name, certificate, version, removed FROM member WHERE mesh = $1 AND pubkey = $2", mesh, key[:]).
		Scan(&m.name, &m.certificate, &m.version, &m.removed)
	return m, translate(err)
}

func insertMember(ctx context.Context, tx pgx.Tx, mesh int64, m broker.Member, certificate []byte, version int64) error {
	var invite []byte // NULL for the founder
	if !m.Invite.IsZero() {
		invite = m.Invite[:]
	}
	_, err := tx.Exec(ctx, `INSERT INTO member (mesh, pubkey, name, role, invite, certificate, joined, version)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`, mesh, m.Key[:], m.Name, m.Role, invite, certificate, schema.Millis(m.Joined), version)
	return err
}

// raiseVersion adds one to a mesh's members version and returns it.
func raiseVersion(ctx context.Context, tx pgx.Tx, mesh int64) (version int64, err error) {
	err = tx.QueryRow(ctx, "UPDATE mesh SET members_version = members_version + 1 WHERE id = $1 RETURNING members_version", mesh).Scan(&version)
	return version, err
}

// raiseOutcast is raiseVersion for a change by which a message may not be accepted
// that could be before: those that were checked by an older version are refused.
func raiseOutcast(ctx context.Context, tx pgx.Tx, mesh int64) (version int64, err error) {
	err = tx.QueryRow(ctx, `UPDATE mesh SET members_version = members_version + 1, outcast_version = members_version + 1
		WHERE id = $1 RETURNING members_version`, mesh).Scan(&version)
	return version, err
}

// Join implements broker.MemberStore.
func (s *Store) Join(ctx context.Context, j broker.Join) (a broker.Admission, err error) {
	certificate, err := wire.Marshal(j.Member.Certificate)
	if err != nil {
		return a, err
	}
	j.Member.Invite = j.Invite
	err = s.tx(ctx, func(ctx context.Context, tx pgx.Tx) (err error) {
		a, err = join(ctx, tx, &j, certificate)
		return err
	})
	if err != nil {
		return broker.Admission{}, err
	}
	return a, nil
}

func join(ctx context.Context, tx pgx.Tx, j *broker.Join, certificate []byte) (a broker.Admission, err error) {
	mesh, _, err := lockMesh(ctx, tx, j.Member.Mesh)
	if err != nil {
		return a, err
	}
	row, in, err := readInvite(ctx, tx, j.Invite)
	if err != nil {
		return a, err
	}
	if in.Mesh != j.Member.Mesh {
		return a, broker.ErrNotFound
	}
	a = broker.Admission{Blob: in.Blob, Generation: in.Generation}
	stored, err := readMember(ctx, tx, mesh, j.Member.Key)
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
	if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM member WHERE mesh = $1 AND name = $2 AND NOT removed)",
		mesh, j.Member.Name).Scan(&taken); err != nil {
		return a, err
	}
	if taken {
		return a, broker.ErrNameTaken
	}
	if _, err := tx.Exec(ctx, "UPDATE invite SET uses = uses + 1 WHERE id = $1", row); err != nil {
		return a, err
	}
	if a.Version, err = raiseVersion(ctx, tx, mesh); err != nil {
		return a, err
	}
	return a, insertMember(ctx, tx, mesh, j.Member, certificate, a.Version)
}

const (
	membersQuery = `SELECT pubkey, name, role, invite, certificate, joined, removed FROM member
	WHERE mesh = $1 AND version > $2 ORDER BY version, id`
	keysQuery = `SELECT generation, issuer, box, previous FROM key_box
	WHERE mesh = $1 AND version > $2 AND member = $3 ORDER BY generation`
)

// Changes implements broker.MemberStore.
func (s *Store) Changes(ctx context.Context, mesh wire.ID, since int64, member wire.Key) (c broker.MemberChanges, err error) {
	err = s.snapshot(ctx, func(ctx context.Context, q querier) error {
		row, m, err := readMesh(ctx, q, mesh)
		if err != nil {
			return err
		}
		c = broker.MemberChanges{Version: m.MembersVersion, Gen: m.Generation}
		if c.Version <= since {
			return nil
		}
		if c.Members, err = list(ctx, q, scanMember(mesh), membersQuery, row, since); err != nil {
			return err
		}
		for _, of := range []struct {
			to    *[]wire.Signed
			table string
		}{{&c.Roles, "role"}, {&c.Removals, "revocation"}, {&c.Closes, "invite_close"}, {&c.Pauses, "pause"}} {
			query := "SELECT body, sig FROM " + of.table + " WHERE mesh = $1 AND version > $2 ORDER BY version, id"
			if *of.to, err = list(ctx, q, scanSigned, query, row, since); err != nil {
				return err
			}
		}
		c.Keys, err = list(ctx, q, scanKeyBox, keysQuery, row, since, member[:])
		return err
	})
	if err != nil {
		return broker.MemberChanges{}, err
	}
	return c, nil
}

func scanMember(mesh wire.ID) pgx.RowToFunc[broker.Member] {
	return func(row pgx.CollectableRow) (broker.Member, error) {
		m := broker.Member{Mesh: mesh}
		var certificate []byte
		if err := row.Scan(fixed(m.Key[:]), &m.Name, &m.Role, fixed(m.Invite[:]), &certificate, millis{&m.Joined}, &m.Removed); err != nil {
			return m, err
		}
		if err := wire.Unmarshal(certificate, &m.Certificate); err != nil {
			return m, fmt.Errorf("%w: certificate of member %s: %w", errData, m.Key.Short(), err)
		}
		return m, nil
	}
}

func scanSigned(row pgx.CollectableRow) (s wire.Signed, err error) {
	err = row.Scan(raw(&s.Body), fixed(s.Sig[:]))
	return s, err
}

func scanKeyBox(row pgx.CollectableRow) (b wire.KeyBox, err error) {
	var generation int64
	err = row.Scan(&generation, fixed(b.Issuer[:]), raw(&b.Box), raw(&b.Previous))
	b.Generation = uint64(generation)
	return b, err
}
