package mailbox

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// ErrHeldFull says that so many messages of a mesh wait for a person that no
// more can.
var ErrHeldFull = errors.New("100 messages of this mesh wait for a person already")

// Held is a message that is not sent before a person says so. It is data of
// this machine, never sent.
type Held struct {
	Number   int64         `json:"-"` // set by Hold
	Mesh     wire.ID       `json:"mesh"`
	Sender   wire.Key      `json:"sender"` // whose session would send it
	To       []string      `json:"to"`
	Text     string        `json:"text"`
	Priority wire.Priority `json:"priority"`
	ReplyTo  wire.ID       `json:"reply_to,omitzero"`
	Hop      uint64        `json:"hop,omitempty"`
	Expires  int64         `json:"expires,omitempty"` // its lifetime, in ms from when it is sent
	Reason   string        `json:"reason"`            // an enum
	At       int64         `json:"at"`                // Unix ms
}

// Holding is what waits for a person before it is sent.
type Holding interface {
	// Hold stores a message and returns its Number. ErrHeldFull.
	Hold(ctx context.Context, h Held) (int64, error)
	// HeldMessages returns those of a mesh, or of all for a zero one, in order.
	HeldMessages(ctx context.Context, mesh wire.ID) ([]Held, error)
	// TakeHeld removes one and returns it: to one taker only. ErrNotFound.
	TakeHeld(ctx context.Context, number int64) (Held, error)
}

const (
	countHeld  = `SELECT count(*) FROM held WHERE mesh = ?`
	insertHeld = `INSERT INTO held (mesh, body) VALUES (?, ?)`
	selectHeld = `SELECT number, body FROM held WHERE ?1 = zeroblob(16) OR mesh = ?1 ORDER BY number`
	deleteHeld = `DELETE FROM held WHERE number = ? RETURNING body`
)

// Hold stores a message.
func (d *disk) Hold(ctx context.Context, h Held) (number int64, err error) {
	body, err := json.Marshal(h)
	if err != nil {
		return 0, err
	}
	err = d.write(ctx, func(t *tx) (bool, error) {
		var n int
		if err := t.get(countHeld, []any{h.Mesh[:]}, &n); err != nil {
			return false, err
		}
		if n >= heldMost {
			return false, ErrHeldFull
		}
		number, err = t.insert(insertHeld, h.Mesh[:], body)
		return true, err
	})
	if err != nil {
		return 0, err
	}
	return number, nil
}

// HeldMessages returns what waits.
func (d *disk) HeldMessages(ctx context.Context, mesh wire.ID) (all []Held, err error) {
	err = d.read(ctx, func(t *tx) error {
		return t.each(selectHeld, []any{mesh[:]}, func(rows *sql.Rows) error {
			var h Held
			var body sql.RawBytes
			if err := rows.Scan(&h.Number, &body); err != nil {
				return err
			}
			all = append(all, h)
			return json.Unmarshal(body, &all[len(all)-1])
		})
	})
	return all, err
}

// TakeHeld removes a message.
func (d *disk) TakeHeld(ctx context.Context, number int64) (h Held, err error) {
	err = d.write(ctx, func(t *tx) (bool, error) {
		var body []byte
		if err := t.get(deleteHeld, []any{number}, &body); noRows(err) {
			return false, ErrNotFound
		} else if err != nil {
			return false, err
		}
		h.Number = number
		return true, json.Unmarshal(body, &h)
	})
	return h, err
}
