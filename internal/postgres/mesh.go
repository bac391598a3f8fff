package postgres

import (
	"bytes"
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
	"github.com/claudemesh/claudemesh/schema"
)

const meshQuery = `SELECT id, owner, name, genesis_body, genesis_sig, created, members_version, generation, queued, queued_bytes
	FROM mesh WHERE mesh_id = $1`

// readMesh returns a mesh and its row id. broker.ErrNotFound.
func readMesh(ctx context.Context, q querier, id wire.ID) (row int64, m broker.Mesh, err error) {
	return scanMesh(q.QueryRow(ctx, meshQuery, id[:]), id)
}

// lockMesh is readMesh for a transaction that is to change the mesh's members or
// queue: until it ends no other does.
func lockMesh(ctx context.Context, tx pgx.Tx, id wire.ID) (row int64, m broker.Mesh, err error) {
	return scanMesh(tx.QueryRow(ctx, meshQuery+" FOR NO KEY UPDATE", id[:]), id)
}

func scanMesh(r pgx.Row, id wire.ID) (row int64, m broker.Mesh, err error) {
	var generation int64
	err = r.Scan(&row, fixed(m.Owner[:]), &m.Name, raw(&m.Genesis.Body), fixed(m.Genesis.Sig[:]),
		millis{&m.Created}, &m.MembersVersion, &generation, &m.Queued, &m.QueuedBytes)
	if err != nil {
		return 0, broker.Mesh{}, translate(err)
	}
	m.ID, m.Generation = id, uint64(generation)
	return row, m, nil
}

// Mesh implements broker.MeshStore.
func (s *Store) Mesh(ctx context.Context, id wire.ID) (m broker.Mesh, err error) {
	err = s.read(ctx, func(ctx context.Context, q querier) (err error) {
		_, m, err = readMesh(ctx, q, id)
		return err
	})
	return m, err
}

// CreateMesh implements broker.MeshStore.
func (s *Store) CreateMesh(ctx context.Context, m broker.Mesh, founder broker.Member) error {
	certificate, err := wire.Marshal(founder.Certificate)
	if err != nil {
		return err
	}
	return s.tx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		var row int64
		err := tx.QueryRow(ctx, `INSERT INTO mesh (mesh_id, owner, name, genesis_body, genesis_sig, created, members_version, generation)
			VALUES ($1, $2, $3, $4, $5, $6, 1, 1) ON CONFLICT (mesh_id) DO NOTHING RETURNING id`,
			m.ID[:], m.Owner[:], m.Name, blob(m.Genesis.Body), m.Genesis.Sig[:], schema.Millis(m.Created)).Scan(&row)
		if errors.Is(err, pgx.ErrNoRows) {
			return sameMesh(ctx, tx, m, founder, certificate)
		}
		if err != nil {
			return err
		}
		return insertMember(ctx, tx, row, founder, certificate, 1)
	})
}

// sameMesh returns nil when the stored mesh has this genesis and this founder.
func sameMesh(ctx context.Context, q querier, m broker.Mesh, founder broker.Member, certificate []byte) error {
	row, stored, err := readMesh(ctx, q, m.ID)
	if err != nil {
		return err
	}
	member, err := readMember(ctx, q, row, founder.Key)
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
