package postgres

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// holderColumns are read into holderFields.
const holderColumns = `n.name, n.epoch, h.conn, h.person, h.changed `

func holderFields(h *broker.Holder) []any {
	return []any{&h.Name, &h.Epoch, &h.Conn, &h.Person, &h.Since}
}

// standingHolder is the presence rows that count.
const standingHolder = `FROM presence h JOIN node n ON n.name = h.node AND n.epoch = h.epoch AND n.until > statement_timestamp()`

// Hold implements broker.ClusterStore.
func (s *Store) Hold(ctx context.Context, holds []broker.Hold) (out []broker.Held, err error) {
	node := s.enlisted()
	if node.Epoch == 0 {
		return nil, broker.ErrFenced
	}
	err = s.txOf(ctx, node, func(ctx context.Context, tx pgx.Tx) (err error) {
		out, err = hold(ctx, tx, node, holds)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// hold keeps others off the mailboxes by locking the peers, in the order of
// their numbers, before it looks who holds them.
func hold(ctx context.Context, tx pgx.Tx, node broker.Node, holds []broker.Hold) ([]broker.Held, error) {
	meshes, holders, err := lockMailboxes(ctx, tx, holds)
	if err != nil {
		return nil, err
	}
	out := make([]broker.Held, len(holds))
	var taken []broker.PeerID
	for i, h := range holds {
		before, held := holders[h.Peer]
		if held && before.Node != node {
			out[i].Before = before
		}
		_, known := meshes[h.Peer]
		out[i].Had = known && (h.Take || !held || before.Node == node)
		if out[i].Had {
			holders[h.Peer] = broker.Holder{Node: node, Conn: h.Conn, Person: h.Person}
			taken = append(taken, h.Peer)
		}
	}
	slices.Sort(taken)
	taken = slices.Compact(taken)
	n := len(taken)
	rows, conns, persons := make([]int64, n), make([]int64, n), make([]bool, n)
	for i, p := range taken {
		rows[i], conns[i], persons[i] = meshes[p], holders[p].Conn, holders[p].Person
	}
	since := make(map[broker.PeerID]int64, n)
	var peer broker.PeerID
	var at int64
	err = each(ctx, tx, []any{&peer, &at}, func() { since[peer] = at }, `INSERT INTO presence (peer, mesh, node, epoch, conn, person)
		SELECT h.peer, h.mesh, $1, $2, h.conn, h.person
		FROM unnest($3::bigint[], $4::bigint[], $5::bigint[], $6::boolean[]) AS h(peer, mesh, conn, person) ORDER BY h.peer
		ON CONFLICT (peer) DO UPDATE SET node = excluded.node, epoch = excluded.epoch,
			conn = excluded.conn, person = excluded.person, changed = now_ms()
		RETURNING peer, changed`,
		node.Name, node.Epoch, taken, rows, conns, persons)
	for i, h := range holds {
		if out[i].Had {
			out[i].Since = since[h.Peer]
		}
	}
	return out, err
}

// lockMailboxes locks the peers that are not forgotten and returns the rows of
// their meshes, and who holds them.
func lockMailboxes(ctx context.Context, tx pgx.Tx, holds []broker.Hold) (meshes map[broker.PeerID]int64, holders map[broker.PeerID]broker.Holder, err error) {
	ids := make([]int64, len(holds))
	for i, h := range holds {
		ids[i] = int64(h.Peer)
	}
	meshes, holders = make(map[broker.PeerID]int64), make(map[broker.PeerID]broker.Holder)
	var peer broker.PeerID
	var mesh int64
	var h broker.Holder
	var batch pgx.Batch // one round trip; the second sees what was committed while the first waited
	batch.Queue("SELECT id, mesh FROM peer WHERE id = ANY($1) AND forgotten = 0 ORDER BY id FOR NO KEY UPDATE", ids).
		Query(func(rows pgx.Rows) error {
			return scanEach(rows, []any{&peer, &mesh}, func() { meshes[peer] = mesh })
		})
	batch.Queue("SELECT h.peer, "+holderColumns+standingHolder+" WHERE h.peer = ANY($1)", ids).
		Query(func(rows pgx.Rows) error {
			return scanEach(rows, append([]any{&peer}, holderFields(&h)...), func() { holders[peer] = h })
		})
	return meshes, holders, tx.SendBatch(ctx, &batch).Close()
}

// LetGo implements broker.ClusterStore.
func (s *Store) LetGo(ctx context.Context, holds []broker.Hold) error {
	node := s.enlisted()
	if node.Epoch == 0 {
		return broker.ErrFenced
	}
	ids, conns := make([]int64, len(holds)), make([]int64, len(holds))
	for i, h := range holds {
		ids[i], conns[i] = int64(h.Peer), h.Conn
	}
	return s.txOf(ctx, node, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM presence WHERE peer IN (
			SELECT p.peer FROM unnest($2::bigint[], $3::bigint[]) AS h(peer, conn) JOIN presence p ON p.peer = h.peer AND p.conn = h.conn
			WHERE p.epoch = $1 ORDER BY p.peer FOR UPDATE OF p)`, node.Epoch, ids, conns)
		return err
	})
}

const locateQuery = "SELECT " + peerColumns + ", p.forgotten > 0, coalesce(h.name, ''), coalesce(h.epoch, 0), coalesce(h.conn, 0), coalesce(h.person, false), coalesce(h.changed, 0)" +
	peerTables + "LEFT JOIN (SELECT h.peer, " + holderColumns + standingHolder + ") h ON h.peer = p.id "

func scanLocated(row pgx.CollectableRow) (l broker.Located, err error) {
	l.Peer, err = scanPeer(row, append([]any{&l.Forgotten}, holderFields(&l.Holder)...)...)
	return l, err
}

// Locate implements broker.ClusterStore.
func (s *Store) Locate(ctx context.Context, mesh wire.ID, ids []broker.PeerID) (out []broker.Located, err error) {
	where, args := "WHERE g.mesh_id = $1 AND p.forgotten = 0 ORDER BY p.id", []any{mesh[:]}
	if ids != nil {
		where, args = "WHERE g.mesh_id = $1 AND p.id = ANY($2) ORDER BY p.id", append(args, ids)
	}
	err = s.read(ctx, func(ctx context.Context, q querier) (err error) {
		out, err = list(ctx, q, scanLocated, locateQuery+where, args...)
		return err
	})
	return out, err
}

// LocateKey implements broker.ClusterStore.
func (s *Store) LocateKey(ctx context.Context, mesh wire.ID, key wire.Key) (l broker.Located, err error) {
	err = s.read(ctx, func(ctx context.Context, q querier) error {
		found, err := list(ctx, q, scanLocated, locateQuery+"WHERE g.mesh_id = $1 AND p.pubkey = $2 AND p.forgotten = 0", mesh[:], key[:])
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return broker.ErrNotFound
		}
		l = found[0]
		return nil
	})
	return l, err
}
