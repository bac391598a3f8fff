package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
	"github.com/claudemesh/claudemesh/schema"
)

// Accept implements broker.QueueStore. Its numbers are drawn with the commit.
func (s *Store) Accept(m *broker.Message, done func(broker.Accepted, error)) (first int64) {
	if !s.w.add(op{epoch: s.enlisted().Epoch, msg: m, accepted: done}) {
		// Not from here: the caller may hold a lock that done takes.
		go done(broker.Accepted{}, broker.ErrClosed)
	}
	return 0
}

// Settle implements broker.QueueStore.
func (s *Store) Settle(ends []broker.Settlement, done func(settled []bool, err error)) {
	if !s.w.add(op{epoch: s.enlisted().Epoch, settle: ends, settled: done}) {
		go done(nil, broker.ErrClosed)
	}
}

// gather puts an op into the columns. What concerns the op alone goes into it.
func (w *writer) gather(ctx context.Context, o *op, node broker.Node) error {
	o.err, o.outcome, o.ended, o.stored = nil, broker.Accepted{}, nil, false
	if o.epoch != node.Epoch {
		o.err = broker.ErrFenced
		return nil
	}
	if o.msg == nil {
		return w.gatherSettle(ctx, o)
	}
	m := o.msg
	mode, rank := schema.ModeNumber(m.Mode), m.Priority.Rank()
	if mode == 0 || rank < 0 {
		o.err = fmt.Errorf("message of mode %q, priority %q", m.Mode, m.Priority)
		return nil
	}
	mesh, err := w.meshRow(ctx, m.Mesh)
	if errors.Is(err, broker.ErrNotFound) {
		o.err = err
		return nil
	}
	if err != nil {
		return err
	}
	o.num = w.columns.message(m, mesh, mode, rank)
	w.byNum[o.num] = o
	return nil
}

// gatherSettle does so with settlements. A delivery of an unknown mesh is not queued.
func (w *writer) gatherSettle(ctx context.Context, o *op) error {
	o.ended = make([]bool, len(o.settle))
	for i := range o.settle {
		mesh, err := w.meshRow(ctx, o.settle[i].Mesh)
		if errors.Is(err, broker.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		w.columns.settlement(&o.settle[i], mesh, &o.ended[i])
	}
	return nil
}

// meshRow returns the row id of a mesh, which never changes. broker.ErrNotFound.
func (w *writer) meshRow(ctx context.Context, id wire.ID) (row int64, err error) {
	if row, ok := w.meshes[id]; ok {
		return row, nil
	}
	if err := w.conn.QueryRow(ctx, "SELECT id FROM mesh WHERE mesh_id = $1", id[:]).Scan(&row); err != nil {
		return 0, translate(err)
	}
	w.meshes[id] = row
	return row, nil
}

// errPruned is a message that was there during the commit and not after it.
var errPruned = errors.New("the message was pruned meanwhile")

// repeats answers the messages of a committed batch that were not stored, each as
// though the ops after it were not yet done. In a further attempt at a batch, what
// looks as an earlier one would have stored it was stored by that one.
func (w *writer) repeats(ctx context.Context, batch []op, again bool) error {
	claimed := make(map[int64]bool)
	for i := range batch {
		if o := &batch[i]; o.stored {
			claimed[o.outcome.First] = true
		}
	}
	for i := range batch {
		o := &batch[i]
		if o.msg == nil || o.err != nil || o.stored {
			continue
		}
		m, known, err := lookup(ctx, w.conn, o.msg.Sender, o.msg.ID)
		switch {
		case errors.Is(err, broker.ErrNotFound) && o.msg.MembersVersion != 0:
			o.err = broker.ErrStaleMembers
		case errors.Is(err, broker.ErrNotFound):
			return errPruned
		case err != nil:
			return err
		case m.hash != o.msg.Hash:
			o.err = broker.ErrIDReused
		case again && m.is(o.msg) && !claimed[m.seq]:
			claimed[m.seq] = true
			o.outcome = broker.Accepted{First: m.seq}
		default:
			for j := range known {
				if k := &known[j]; settledBy(batch[i:], k) {
					k.State, k.Code, k.At = wire.StateQueued, "", schema.Time(m.created)
				}
			}
			o.outcome = broker.Accepted{Duplicate: true, Outcomes: known}
		}
	}
	return nil
}

// settledBy reports whether one of some ops settled a delivery.
func settledBy(ops []op, k *broker.Outcome) bool {
	for i := range ops {
		for j, settled := range ops[i].ended {
			if settled && ops[i].settle[j].Delivery == k.Delivery {
				return true
			}
		}
	}
	return false
}

func (m *stored) is(of *broker.Message) bool {
	return m.recipients == int64(len(of.Deliveries)) && m.created == schema.Millis(of.Created) && m.expires == schema.Millis(of.Expires)
}

// settledBefore finds what an earlier attempt at a batch has settled, whose
// commit was not heard of.
func (w *writer) settledBefore(ctx context.Context, batch []op, node broker.Node) error {
	open := make(map[end]func(state, at int64, code string))
	var numbers []int64
	for i := range batch {
		o := &batch[i]
		for j := range o.ended {
			e := &o.settle[j]
			key := end{e.Delivery, e.Recipient}
			if _, twice := open[key]; twice || o.err != nil {
				continue
			}
			numbers = append(numbers, e.Delivery)
			open[key] = func(state, at int64, code string) {
				s, c := stateAndCode(e)
				o.ended[j] = o.ended[j] || s == state && c == code && schema.Millis(e.At) == at
			}
		}
	}
	if len(numbers) == 0 {
		return nil
	}
	rows, err := w.conn.Query(ctx, "SELECT id, recipient, state, at, code FROM outcome WHERE id = ANY ($1) AND epoch = $2", numbers, node.Epoch)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var key end
		var state, at int64
		var code string
		if err := rows.Scan(&key.delivery, &key.recipient, &state, &at, &code); err != nil {
			return err
		}
		if found := open[key]; found != nil {
			found(state, at, code)
		}
	}
	return rows.Err()
}
