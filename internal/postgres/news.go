package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
)

const outcomesQuery = "SELECT " + outcomeColumns + ` FROM (
			SELECT id, message, recipient, 0::smallint AS state, '' AS code, at, size FROM delivery WHERE id = ANY ($1)
			UNION ALL
			SELECT id, message, recipient, state, code, at, size FROM outcome WHERE id = ANY ($1)
		) d JOIN message m ON m.seq = d.message` + outcomePeers + "ORDER BY d.id"

// Outcomes implements broker.ClusterStore.
func (s *Store) Outcomes(ctx context.Context, deliveries []int64) (out []broker.Outcome, err error) {
	if len(deliveries) == 0 {
		return nil, nil
	}
	err = s.read(ctx, func(ctx context.Context, q querier) (err error) {
		out, err = collect(ctx, q, outcomesQuery, deliveries)
		return err
	})
	return out, err
}

// A row is stamped (changed, settled) some time before its transaction commits,
// and nobody sees it until then. So a node asks the next time from before the
// beginning of the oldest transaction that writes at this moment, but from no
// further back than a minute: such a transaction is not a broker's, whose
// statements end after 30 s and which is ended when it idles for 5 s. The
// five seconds are for the instant between stamp and first write, in which a
// transaction does not show yet, for a server's clock that is set back, and
// for roles that may not see each other's transactions.
const watchQuery = `SELECT greatest(now_ms() - 60000, least(now_ms(), min(extract(epoch FROM xact_start) * 1000)::bigint) - 5000)
	FROM pg_stat_activity WHERE datname = current_database() AND backend_xid IS NOT NULL`

// News implements broker.ClusterStore.
func (s *Store) News(ctx context.Context, w broker.Watch) (news broker.News, err error) {
	err = s.insist(ctx, func(ctx context.Context) error {
		var at int64 // first: what is missing in the snapshot is stamped later
		if err := s.pool.QueryRow(ctx, watchQuery).Scan(&at); err != nil {
			return err
		}
		return pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) (err error) {
			news, err = s.gather(ctx, tx, w)
			news.At = at
			return err
		})
	})
	if err != nil {
		return broker.News{}, err
	}
	return news, nil
}

// A plan for any arguments takes an array for a short one and searches it row by
// row: what may be long is unnested where it is not looked up in an index. And it takes
// what is new for a third of the table: so the numbers are found first, then what they name.
const (
	meshNewsQuery = "SELECT id, mesh_id, members_version, queued, queued_bytes FROM mesh WHERE mesh_id = ANY ($1)"
	holdersQuery  = "SELECT h.peer, " + holderColumns + standingHolder + " WHERE h.mesh = ANY ($1)"
	waitingQuery  = "SELECT peer FROM unnest($1::bigint[]) AS a (peer) WHERE EXISTS (SELECT 1 FROM delivery WHERE recipient = a.peer)"
	// OFFSET makes the inner query come first in the one, and the outer in the other:
	// few rows are new, whatever the tables hold.
	newPeersQuery = `SELECT id FROM (SELECT id, mesh FROM peer WHERE changed >= $2 OFFSET 0) p
		WHERE mesh IN (SELECT unnest($1::bigint[]))`
	newEndsQuery = `SELECT d.id FROM outcome d JOIN LATERAL (SELECT sender FROM message WHERE seq = d.message OFFSET 0) m ON true
		WHERE d.settled >= $1 AND d.epoch <> $2 AND m.sender IN (SELECT unnest($3::bigint[]))`
)

// gather reads all but News.At.
func (s *Store) gather(ctx context.Context, tx pgx.Tx, w broker.Watch) (news broker.News, err error) {
	news = broker.News{Meshes: make(map[wire.ID]broker.MeshNews), Holders: make(map[broker.PeerID]broker.Holder), Waiting: make(map[broker.PeerID]bool)}
	ids := make([][]byte, len(w.Meshes))
	for i := range w.Meshes {
		ids[i] = w.Meshes[i][:]
	}
	var id wire.ID
	var row int64
	var m broker.MeshNews
	meshes := make([]int64, 0, len(ids))
	// The first statement takes the snapshot, a little after it was sent.
	if err := tx.QueryRow(ctx, "SELECT now_ms() - 1000").Scan(&news.Knows); err != nil {
		return news, err
	}
	if err := each(ctx, tx, []any{&row, fixed(id[:]), &m.Version, &m.Queued, &m.QueuedBytes}, func() {
		meshes = append(meshes, row)
		news.Meshes[id] = m
	}, meshNewsQuery, ids); err != nil {
		return news, err
	}
	var peer broker.PeerID
	var h broker.Holder
	if err := each(ctx, tx, append([]any{&peer}, holderFields(&h)...), func() { news.Holders[peer] = h }, holdersQuery, meshes); err != nil {
		return news, err
	}
	if err := each(ctx, tx, []any{&peer}, func() { news.Waiting[peer] = true }, waitingQuery, w.Mailboxes); err != nil || w.Since == 0 {
		return news, err
	}
	peers, err := list(ctx, tx, pgx.RowTo[int64], newPeersQuery, meshes, w.Since)
	if err != nil {
		return news, err
	}
	if news.Peers, err = list(ctx, tx, scanLocated, locateQuery+"WHERE p.id = ANY ($1) ORDER BY p.id", peers); err != nil {
		return news, err
	}
	ends, err := list(ctx, tx, pgx.RowTo[int64], newEndsQuery, w.Since, s.enlisted().Epoch, w.Senders)
	if err != nil {
		return news, err
	}
	news.Outcomes, err = collect(ctx, tx, outcomesQuery, ends)
	return news, err
}
