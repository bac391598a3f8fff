package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
	"github.com/claudemesh/claudemesh/schema"
)

// querier reads: the pool's or the writer's statements, or a snapshot.
type querier interface {
	Row(ctx context.Context, query string, args []any, dest ...any) error
	Each(ctx context.Context, query string, args []any, scan func(*sql.Rows) error) error
}

// outcomeColumns are read by scanOutcome, from outcomeTables.
const (
	outcomeColumns = `d.id, d.message, d.recipient, d.state, d.code, d.at, d.size,
		m.sender, m.id, m.mesh, g.mesh_id, s.pubkey, r.pubkey`
	outcomePeers = `JOIN mesh g ON g.id = m.mesh
		LEFT JOIN peer s ON s.id = m.sender LEFT JOIN peer r ON r.id = d.recipient`
)

// outcome is a delivery's outcome and where it stands in the tables.
type outcome struct {
	broker.Outcome
	message, mesh int64
}

func scanOutcome(rows *sql.Rows) (outcome, error) {
	var o outcome
	var state int
	err := rows.Scan(&o.Delivery, &o.message, &o.Recipient, &state, &o.Code, millis{&o.At}, &o.Size,
		&o.Sender, fixed(o.ID[:]), &o.mesh, fixed(o.Mesh[:]), fixed(o.SenderKey[:]), fixed(o.RecipientKey[:]))
	if err != nil {
		return o, err
	}
	if state < 0 || state >= len(schema.States) {
		return o, fmt.Errorf("%w: delivery %d has state %d", ErrCorrupt, o.Delivery, state)
	}
	o.State = schema.States[state]
	return o, nil
}

const (
	hashQuery = "SELECT seq, recipients, hash FROM message WHERE id = ? AND sender = ?"
	// NOT INDEXED: a message's deliveries are a range of the primary key.
	knownQuery = "SELECT " + outcomeColumns + ` FROM delivery d NOT INDEXED JOIN message m ON m.seq = d.message ` +
		outcomePeers + ` WHERE d.id >= ? AND d.id < ? ORDER BY d.id`
)

// lookup returns a message's hash and the outcomes of its deliveries. broker.ErrNotFound.
func lookup(ctx context.Context, q querier, sender broker.PeerID, id wire.ID) (hash [32]byte, known []broker.Outcome, err error) {
	var seq, recipients int64
	err = q.Row(ctx, hashQuery, []any{id[:], int64(sender)}, &seq, &recipients, fixed(hash[:]))
	if errors.Is(err, sql.ErrNoRows) {
		return hash, nil, broker.ErrNotFound
	}
	if err != nil {
		return hash, nil, err
	}
	known, err = collect(ctx, q, knownQuery, seq, seq+recipients)
	return hash, known, err
}

// collect returns the outcomes that a query finds.
func collect(ctx context.Context, q querier, query string, args ...any) (out []broker.Outcome, err error) {
	err = q.Each(ctx, query, args, func(rows *sql.Rows) error {
		o, err := scanOutcome(rows)
		out = append(out, o.Outcome)
		return err
	})
	return out, err
}
