package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
)

type writer struct{}

func startWriter(context.Context, *Store, *pgx.ConnConfig) (*writer, error) { return &writer{}, nil }
func (w *writer) stop()                                                     {}

func (s *Store) Accept(m *broker.Message, done func(broker.Accepted, error)) (first int64) { return 0 }
func (s *Store) Settle(x []broker.Settlement, done func(settled []bool, err error))        {}
func (s *Store) Retry(ctx context.Context, deliveries []int64) (attempts []int, err error) {
	return nil, nil
}
func (s *Store) Queued(ctx context.Context, recipient broker.PeerID, after broker.Place, rows int, bytes int64) (page []broker.Delivery, more bool, err error) {
	return nil, false, nil
}
func (s *Store) Usage(ctx context.Context, recipient broker.PeerID) ([]broker.Usage, error) {
	return nil, nil
}
func (s *Store) Lookup(ctx context.Context, sender broker.PeerID, id wire.ID) (hash [32]byte, known []broker.Outcome, err error) {
	return hash, nil, broker.ErrNotFound
}
func (s *Store) Status(ctx context.Context, mesh wire.ID, member wire.Key, ids []wire.ID) ([]broker.Outcome, error) {
	return nil, nil
}
func (s *Store) Expire(ctx context.Context, now time.Time, limit int) ([]broker.Outcome, error) {
	return nil, nil
}
func (s *Store) Prune(ctx context.Context, before time.Time, limit int) (int, error) { return 0, nil }
func (s *Store) Ready(context.Context) error                                         { return nil }
func (s *Store) Stats(ctx context.Context) (st broker.StoreStats, err error) {
	err = s.read(ctx, func(ctx context.Context, q querier) error {
		return q.QueryRow(ctx, "SELECT count(*) FROM mesh").Scan(&st.Meshes)
	})
	return st, err
}

func bounceQueue(ctx context.Context, tx pgx.Tx, peers []broker.PeerID, code wire.Code, now time.Time) ([]broker.Outcome, error) {
	return nil, nil
}

const (
	settledQuery = `SELECT d.id, d.recipient, d.state, d.code, d.at, d.size, m.sender, m.id, g.mesh_id, s.pubkey, r.pubkey
		FROM outcome d JOIN message m ON m.seq = d.message JOIN mesh g ON g.id = m.mesh
		LEFT JOIN peer s ON s.id = m.sender LEFT JOIN peer r ON r.id = d.recipient `
	queuedQuery = `SELECT d.id, d.recipient, 0::smallint, '', d.at, d.size, m.sender, m.id, g.mesh_id, s.pubkey, r.pubkey
		FROM delivery d JOIN message m ON m.seq = d.message JOIN mesh g ON g.id = m.mesh
		LEFT JOIN peer s ON s.id = m.sender LEFT JOIN peer r ON r.id = d.recipient `
)

func collect(ctx context.Context, q querier, sql string, args ...any) (out []broker.Outcome, err error) {
	return list(ctx, q, func(row pgx.CollectableRow) (o broker.Outcome, err error) {
		var state int
		err = row.Scan(&o.Delivery, &o.Recipient, &state, &o.Code, millis{&o.At}, &o.Size, &o.Sender, fixed(o.ID[:]), fixed(o.Mesh[:]), fixed(o.SenderKey[:]), fixed(o.RecipientKey[:]))
		return o, err
	}, sql, args...)
}
