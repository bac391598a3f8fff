package sqlite

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// The numbers that stand for names in the hot tables. They are in files: never
// change one.
const (
	stateQueued = iota
	stateDelivered
	stateBounced
)

var states = [...]wire.State{wire.StateQueued, wire.StateDelivered, wire.StateBounced}

var modes = [...]wire.Mode{1: wire.ModeDM, 2: wire.ModeGroup, 3: wire.ModeBroadcast, 4: wire.ModeReceipt}

// modeNumber returns 0 for an unknown mode.
func modeNumber(m wire.Mode) int {
	for i := 1; i < len(modes); i++ {
		if modes[i] == m {
			return i
		}
	}
	return 0
}

// Accept implements broker.QueueStore.
func (s *Store) Accept(m *broker.Message, done func(broker.Accepted, error)) (first int64) {
	first, ok := s.w.enqueue(op{msg: m, accepted: done})
	if !ok {
		// Not from here: the caller may hold a lock that done takes.
		go done(broker.Accepted{}, broker.ErrClosed)
	}
	return first
}

// Settle implements broker.QueueStore.
func (s *Store) Settle(ends []broker.Settlement, done func(settled []bool, err error)) {
	if !s.w.add(op{settle: ends, settled: done}) {
		go done(nil, broker.ErrClosed)
	}
}

// accept stores one message under its numbers. refused concerns this message
// alone; err ends the transaction.
func (w *writer) accept(m *broker.Message, seq int64) (out broker.Accepted, refused, err error) {
	mode, rank := modeNumber(m.Mode), m.Priority.Rank()
	if mode == 0 || rank < 0 {
		return out, fmt.Errorf("message of mode %q, priority %q", m.Mode, m.Priority), nil
	}
	mesh, err := w.meshRow(m.Mesh)
	if errors.Is(err, broker.ErrNotFound) {
		return out, err, nil
	} else if err != nil {
		return out, nil, err
	}
	nonce, body := blob(m.Nonce), blob(m.Ciphertext) // never NULL: that is a tombstone
	if len(m.Deliveries) == 0 {
		nonce, body = nil, nil // a tombstone from the start
	}
	created := toMillis(m.Created)
	n, err := w.st.exec(bg, `INSERT INTO message (seq, mesh, sender, id, hash, mode, recipients, created, expires, nonce, body)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id, sender) DO NOTHING`,
		seq, mesh, int64(m.Sender), m.ID[:], m.Hash[:], mode, len(m.Deliveries), created, toMillis(m.Expires), nonce, body)
	if err != nil {
		return out, nil, err
	}
	if n == 0 {
		return w.repeat(m)
	}
	size := int64(0)
	for i := range m.Deliveries {
		d := &m.Deliveries[i]
		each := m.Size(*d)
		if _, err := w.st.exec(bg, `INSERT INTO delivery (id, message, recipient, priority, state, at, size, wrap)
			VALUES (?, ?, ?, ?, 0, ?, ?, ?)`, seq+int64(i), seq, int64(d.Recipient), rank, created, each, d.Wrap); err != nil {
			return out, nil, err
		}
		size += each
	}
	w.next = seq + max(1, int64(len(m.Deliveries)))
	w.queued(mesh, int64(len(m.Deliveries)), size)
	w.cursor.reopen(toMillis(m.Expires))
	return broker.Accepted{First: seq}, nil, nil
}

// repeat answers a message whose (sender, id) is stored.
func (w *writer) repeat(m *broker.Message) (out broker.Accepted, refused, err error) {
	hash, known, err := lookup(bg, w.st, m.Sender, m.ID)
	if err != nil {
		return out, nil, err
	}
	if !bytes.Equal(hash[:], m.Hash[:]) {
		return out, broker.ErrIDReused, nil
	}
	return broker.Accepted{Duplicate: true, Outcomes: known}, nil, nil
}

// meshRow returns the row id of a mesh. broker.ErrNotFound.
func (w *writer) meshRow(id wire.ID) (int64, error) {
	if row, ok := w.meshes[id]; ok {
		return row, nil
	}
	row, err := meshRow(bg, w.st, id)
	if err == nil {
		w.meshes[id] = row
	}
	return row, err
}

const settleQuery = `UPDATE delivery SET state = ?, code = ?, at = ?, wrap = NULL
	WHERE id = ? AND recipient = ? AND state = 0
	RETURNING message, size, (SELECT mesh FROM message WHERE seq = delivery.message)`

// settle ends deliveries and drops the bodies nobody waits for any more.
func (w *writer) settle(ends []broker.Settlement) ([]bool, error) {
	settled := make([]bool, len(ends))
	for i := range ends {
		e := &ends[i]
		state, code := stateDelivered, ""
		if e.State == wire.StateBounced {
			state, code = stateBounced, string(e.Code)
		}
		var seq, size, mesh int64
		err := w.st.row(bg, settleQuery, []any{state, code, toMillis(e.At), e.Delivery, int64(e.Recipient)}, &seq, &size, &mesh)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := w.dropBody(seq); err != nil {
			return nil, err
		}
		w.queued(mesh, -1, -size)
		settled[i] = true
	}
	return settled, nil
}

// dropBody makes a message a tombstone once none of its deliveries is queued.
// NOT INDEXED keeps the planner on the primary key: it is a range of a few rows.
func (w *writer) dropBody(seq int64) error {
	_, err := w.st.exec(bg, `UPDATE message SET nonce = NULL, body = NULL WHERE seq = ?1 AND NOT EXISTS (
		SELECT 1 FROM delivery NOT INDEXED WHERE id >= ?1 AND id < ?1 + message.recipients AND state = 0)`, seq)
	return err
}
