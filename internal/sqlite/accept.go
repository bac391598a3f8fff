package sqlite

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
	"github.com/claudemesh/claudemesh/schema"
)

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
	mode, rank := schema.ModeNumber(m.Mode), m.Priority.Rank()
	if mode == 0 || rank < 0 {
		return out, fmt.Errorf("message of mode %q, priority %q", m.Mode, m.Priority), nil
	}
	mesh, err := w.meshRow(m.Mesh)
	if errors.Is(err, broker.ErrNotFound) {
		return out, err, nil
	} else if err != nil {
		return out, nil, err
	}
	var nonce, body, own []byte // own is a direct's body, which stands in its delivery
	switch {
	case m.Mode.Direct():
		own = joined(m.Nonce, m.Ciphertext)
	case len(m.Deliveries) > 0: // else it is a tombstone from the start
		nonce, body = blob(m.Nonce), blob(m.Ciphertext)
	}
	created := schema.Millis(m.Created)
	n, err := w.hot.message.exec(w.st.Raw(), seq, mesh, int64(m.Sender), m.ID[:], m.Hash[:], int64(mode),
		int64(len(m.Deliveries)), created, schema.Millis(m.Expires), nonce, body)
	if err != nil {
		return out, nil, err
	}
	if n == 0 {
		return w.repeat(m)
	}
	size := int64(0)
	for i := range m.Deliveries {
		d := &m.Deliveries[i]
		each, wrap := m.Size(*d), d.Wrap
		if own != nil {
			wrap = own
		}
		if _, err := w.hot.delivery.exec(w.st.Raw(), seq+int64(i), seq, int64(d.Recipient), int64(rank), created, each, wrap); err != nil {
			return out, nil, err
		}
		size += each
	}
	w.next = seq + max(1, int64(len(m.Deliveries)))
	w.queued(mesh, int64(len(m.Deliveries)), size)
	w.cursor.reopen(schema.Millis(m.Expires))
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

// hotStatements are what a message costs: two for accepting a direct, one for settling it.
type hotStatements struct{ message, delivery, settle hotStatement }

func newHotStatements() hotStatements {
	return hotStatements{
		message: hotStatement{query: `INSERT INTO message (seq, mesh, sender, id, hash, mode, recipients, created, expires, nonce, body)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id, sender) DO NOTHING`},
		delivery: hotStatement{query: `INSERT INTO delivery (id, message, recipient, priority, state, at, size, wrap)
			VALUES (?, ?, ?, ?, 0, ?, ?, ?)`},
		settle: hotStatement{query: `UPDATE delivery SET state = ?, code = ?, at = ?, wrap = NULL
			WHERE id = ? AND recipient = ? AND state = 0`},
	}
}

func (h *hotStatements) close() error {
	return errors.Join(h.message.close(), h.delivery.close(), h.settle.close())
}

// settle ends deliveries and drops the bodies nobody waits for any more.
func (w *writer) settle(ends []broker.Settlement) ([]bool, error) {
	settled := make([]bool, len(ends))
	for i := range ends {
		e := &ends[i]
		state, code := schema.StateDelivered, ""
		if e.State == wire.StateBounced {
			state, code = schema.StateBounced, string(e.Code)
		}
		n, err := w.hot.settle.exec(w.st.Raw(), int64(state), code, schema.Millis(e.At), e.Delivery, int64(e.Recipient))
		if err != nil {
			return nil, err
		}
		if n == 0 {
			continue
		}
		if !e.Mode.Direct() {
			if err := w.dropBody(e.Message); err != nil {
				return nil, err
			}
		}
		mesh, err := w.meshRow(e.Mesh)
		if err != nil {
			return nil, err
		}
		w.queued(mesh, -1, -e.Size)
		settled[i] = true
	}
	return settled, nil
}

// dropBody makes a group message a tombstone once none of its deliveries is
// queued. NOT INDEXED keeps the planner on the primary key: it is a range of a few rows.
func (w *writer) dropBody(seq int64) error {
	_, err := w.st.Exec(bg, `UPDATE message SET nonce = NULL, body = NULL WHERE seq = ?1 AND body IS NOT NULL AND NOT EXISTS (
		SELECT 1 FROM delivery NOT INDEXED WHERE id >= ?1 AND id < ?1 + message.recipients AND state = 0)`, seq)
	return err
}

// joined is a direct's body as its delivery holds it; split takes it apart. A
// nonce has 24 bytes.
func joined(nonce, ciphertext []byte) []byte {
	return append(append(make([]byte, 0, len(nonce)+len(ciphertext)), nonce...), ciphertext...)
}

func split(body []byte) (nonce, ciphertext []byte) {
	n := min(len(body), 24)
	return body[:n:n], body[n:]
}
