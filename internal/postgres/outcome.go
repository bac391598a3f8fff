package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
	"github.com/claudemesh/claudemesh/schema"
)

// A query for collect selects outcomeColumns from a delivery d, in the shape of
// table outcome, and its message m, joined with outcomePeers.
const (
	outcomeColumns = `d.id, d.recipient, d.state, d.code, d.at, d.size, m.sender, m.id, g.mesh_id, s.pubkey, r.pubkey`
	outcomePeers   = ` JOIN mesh g ON g.id = m.mesh
		LEFT JOIN peer s ON s.id = m.sender LEFT JOIN peer r ON r.id = d.recipient `

	// outcomeKnown gives every message m its deliveries d, queued and settled,
	// as one statement sees them: a delivery is in one of the two tables.
	outcomeKnown = ` JOIN LATERAL (
		SELECT id, recipient, 0::smallint AS state, '' AS code, at, size FROM delivery WHERE id >= m.seq AND id < m.seq + m.recipients
		UNION ALL
		SELECT id, recipient, state, code, at, size FROM outcome WHERE id >= m.seq AND id < m.seq + m.recipients
	) d ON true ` + outcomePeers

	settledQuery = "SELECT " + outcomeColumns + " FROM outcome d JOIN message m ON m.seq = d.message " + outcomePeers
	queuedQuery  = `SELECT ` + outcomeColumns + ` FROM (SELECT *, 0::smallint AS state, '' AS code FROM delivery) d
		JOIN message m ON m.seq = d.message ` + outcomePeers
)

func scanOutcome(row pgx.CollectableRow) (o broker.Outcome, err error) {
	var state int
	err = row.Scan(&o.Delivery, &o.Recipient, &state, &o.Code, millis{&o.At}, &o.Size,
		&o.Sender, fixed(o.ID[:]), fixed(o.Mesh[:]), fixed(o.SenderKey[:]), fixed(o.RecipientKey[:]))
	if err != nil {
		return o, err
	}
	if state < 0 || state >= len(schema.States) {
		return o, fmt.Errorf("%w: delivery %d has state %d", errData, o.Delivery, state)
	}
	o.State = schema.States[state]
	return o, nil
}

// collect returns the outcomes that a query finds, nil when there are none.
func collect(ctx context.Context, q querier, sql string, args ...any) ([]broker.Outcome, error) {
	return list(ctx, q, scanOutcome, sql, args...)
}

// stored is what identifies a message among those with its id.
type stored struct {
	seq, recipients, created, expires int64
	hash                              [32]byte
}

const (
	storedQuery = "SELECT seq, recipients, created, expires, hash FROM message WHERE id = $1 AND sender = $2"
	knownQuery  = "SELECT " + outcomeColumns + " FROM message m " + outcomeKnown + " WHERE m.seq = $1 ORDER BY d.id"
)

// lookup returns a message and the outcomes of its deliveries. broker.ErrNotFound.
func lookup(ctx context.Context, q querier, sender broker.PeerID, id wire.ID) (m stored, known []broker.Outcome, err error) {
	err = q.QueryRow(ctx, storedQuery, id[:], int64(sender)).Scan(&m.seq, &m.recipients, &m.created, &m.expires, fixed(m.hash[:]))
	if errors.Is(err, pgx.ErrNoRows) {
		return m, nil, broker.ErrNotFound
	}
	if err != nil {
		return m, nil, err
	}
	known, err = collect(ctx, q, knownQuery, m.seq)
	return m, known, err
}
