package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
	"github.com/claudemesh/claudemesh/schema"
)

// meshRow returns the row id of a mesh. broker.ErrNotFound.
func meshRow(ctx context.Context, q querier, id wire.ID) (row int64, err error) {
	err = q.Row(ctx, "SELECT id FROM mesh WHERE mesh_id = ?", []any{id[:]}, &row)
	if errors.Is(err, sql.ErrNoRows) {
		err = broker.ErrNotFound
	}
	return row, err
}

const meshQuery = `SELECT id, owner, name, genesis_body, genesis_sig, created, members_version, generation, queued, queued_bytes
	FROM mesh WHERE mesh_id = ?`

// readMesh returns a mesh and its row id. broker.ErrNotFound.
func readMesh(ctx context.Context, q querier, id wire.ID) (row int64, m broker.Mesh, err error) {
	var generation int64
	err = q.Row(ctx, meshQuery, []any{id[:]}, &row, fixed(m.Owner[:]), &m.Name, raw(&m.Genesis.Body), fixed(m.Genesis.Sig[:]),
		millis{&m.Created}, &m.MembersVersion, &generation, &m.Queued, &m.QueuedBytes)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, broker.Mesh{}, broker.ErrNotFound
	}
	m.ID, m.Generation = id, uint64(generation)
	return row, m, err
}

// Mesh implements broker.MeshStore.
func (s *Store) Mesh(ctx context.Context, id wire.ID) (broker.Mesh, error) {
	_, m, err := readMesh(ctx, s.reads, id)
	if err != nil {
		return broker.Mesh{}, s.readErr(err)
	}
	return m, nil
}

// CreateMesh implements broker.MeshStore.
func (s *Store) CreateMesh(ctx context.Context, m broker.Mesh, founder broker.Member) error {
	certificate, err := wire.Marshal(founder.Certificate)
	if err != nil {
		return err
	}
	return s.w.do(ctx, func(w *writer) error {
		n, err := w.st.Exec(bg, `INSERT INTO mesh (mesh_id, owner, name, genesis_body, genesis_sig, created, members_version, generation)
			VALUES (?, ?, ?, ?, ?, ?, 1, 1) ON CONFLICT (mesh_id) DO NOTHING`,
			m.ID[:], m.Owner[:], m.Name, blob(m.Genesis.Body), m.Genesis.Sig[:], schema.Millis(m.Created))
		if err != nil {
			return err
		}
		if n == 0 {
			return w.sameMesh(m, founder, certificate)
		}
		row, err := meshRow(bg, w.st, m.ID)
		if err != nil {
			return err
		}
		return w.insertMember(row, founder, certificate, 1)
	})
}

// sameMesh returns nil when the stored mesh has this genesis and this founder.
func (w *writer) sameMesh(m broker.Mesh, founder broker.Member, certificate []byte) error {
	row, stored, err := readMesh(bg, w.st, m.ID)
	if err != nil {
		return err
	}
	member, err := w.member(row, founder.Key)
	if errors.Is(err, broker.ErrNotFound) {
		return broker.ErrMeshExists
	}
	if err != nil {
		return err
	}
	if !stored.Genesis.Equal(m.Genesis) || !bytes.Equal(member.certificate, certificate) ||
		member.name != founder.Name || member.version != 1 {
		return broker.ErrMeshExists
	}
	return nil
}
