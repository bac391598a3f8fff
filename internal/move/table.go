package move

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/claudemesh/claudemesh/schema"
)

// table is a table in the form that both dialects are read and written in. It is
// that of the SQLite schema, with what the Postgres one needs besides:
//
//   - message has nonce and body of group messages, while a delivery is queued;
//     the body of a direct is the wrap of its queued delivery, nonce first.
//   - delivery has queued and settled ones, with mode and expires of their
//     message. Of settled ones priority and attempts are 0: Postgres keeps neither.
//   - number has the next numbers of deliveries and of peers.
type table struct {
	name    string
	columns []string
	keys    int      // so many columns, from the first, are the key, in whose order rows are moved
	flags   []string // columns that are 0 or 1 here and booleans in Postgres
}

// row has int64, string, []byte or nil for each column.
type row []any

// tables are in the order in which references between them hold.
var tables = []*table{
	{name: "broker", keys: 1, columns: []string{"id", "seed", "token_hash", "created"}},
	{name: "mesh", keys: 1, columns: []string{"id", "mesh_id", "owner", "name", "genesis_body", "genesis_sig", "created",
		"members_version", "generation", "queued", "queued_bytes"}},
	{name: "member", keys: 1, flags: []string{"removed"}, columns: []string{"id", "mesh", "pubkey", "name", "role", "invite",
		"certificate", "joined", "version", "removed"}},
	{name: "invite", keys: 1, flags: []string{"closed", "voided"}, columns: []string{"id", "invite_id", "mesh", "capability_body",
		"capability_sig", "blob", "generation", "max_uses", "uses", "expires", "created", "closed", "voided"}},
	{name: "invite_close", keys: 1, columns: []string{"id", "mesh", "invite_id", "body", "sig", "version"}},
	{name: "revocation", keys: 1, columns: []string{"id", "mesh", "member", "body", "sig", "version"}},
	{name: "role", keys: 1, columns: []string{"id", "mesh", "body", "sig", "version"}},
	{name: "pause", keys: 1, columns: []string{"id", "mesh", "signer", "hash", "until", "body", "sig", "version"}},
	{name: "block", keys: 1, columns: []string{"id", "mesh", "member", "blocked"}},
	{name: "key_box", keys: 3, columns: []string{"mesh", "generation", "member", "issuer", "box", "previous", "version"}},
	{name: "peer", keys: 1, columns: []string{"id", "mesh", "pubkey", "member", "attested_at", "attestation_sig",
		"card_generation", "card_seq", "card_blob", "card_sig", "last_seen", "forgotten"}},
	message, delivery, number,
}

var (
	message = &table{name: "message", keys: 1, columns: []string{"seq", "mesh", "sender", "id", "hash", "mode", "recipients",
		"created", "expires", "nonce", "body"}}
	delivery = &table{name: "delivery", keys: 1, columns: []string{"id", "message", "recipient", "priority", "state", "code",
		"attempts", "at", "size", "wrap", "mode", "expires"}}
	number = &table{name: "number", keys: 1, columns: []string{"id", "next"}}
)

// The places of columns that are asked for by name, and the rows of number.
const (
	messageNonce = 9
	messageBody  = 10

	deliveryMessage = 1
	deliveryState   = 4
	deliveryWrap    = 9
	deliveryMode    = 10

	nextDelivery = int64(1)
	nextPeer     = int64(2)
)

// errDamaged is a source that check would find fault with.
var errDamaged = errors.New("the source is damaged; run check on it")

// start is a key below all others.
func (t *table) start() []any {
	if t.keys == 3 {
		return []any{int64(math.MinInt64), int64(math.MinInt64), []byte{}}
	}
	return []any{int64(math.MinInt64)}
}

// place returns the index of a column.
func (t *table) place(column string) int { return slices.Index(t.columns, column) }

// key returns the key of a row.
func (t *table) key(r row) []any { return r[:t.keys:t.keys] }

// check refuses a row that could not be moved: a delivery without its message,
// or of a mode that no broker knows.
func (t *table) check(r row) error {
	if t != delivery {
		return nil
	}
	mode, ok := r[deliveryMode].(int64)
	if !ok || mode < 1 || int(mode) >= len(schema.Modes) {
		return fmt.Errorf("%w: delivery %d has no message of a known mode", errDamaged, r[0])
	}
	if _, ok := r[deliveryWrap].([]byte); direct(r) && !ok && r[deliveryState] == int64(schema.StateQueued) {
		return fmt.Errorf("%w: delivery %d is queued and has no body", errDamaged, r[0])
	}
	return nil
}

// direct reports whether a delivery is that of a direct.
func direct(r row) bool { return schema.Modes[r[deliveryMode].(int64)].Direct() }

// size is about how many bytes a row has.
func (r row) size() (n int) {
	for _, v := range r {
		switch v := v.(type) {
		case []byte:
			n += len(v)
		case string:
			n += len(v)
		}
		n += 8
	}
	return n
}

// encode appends a row in the form whose SHA-256 is told. A value is a byte for
// its type, then: 0 NULL, nothing; 1 an integer, 8 bytes big-endian; 2 bytes
// and 3 text, their length in 8 bytes, then they.
func (r row) encode(b []byte) ([]byte, error) {
	for i, v := range r {
		switch v := v.(type) {
		case nil:
			b = append(b, 0)
		case int64:
			b = binary.BigEndian.AppendUint64(append(b, 1), uint64(v))
		case []byte:
			b = append(binary.BigEndian.AppendUint64(append(b, 2), uint64(len(v))), v...)
		case string:
			b = append(binary.BigEndian.AppendUint64(append(b, 3), uint64(len(v))), v...)
		default:
			return nil, fmt.Errorf("column %d is a %T", i, v)
		}
	}
	return b, nil
}

// compare orders keys as both databases do.
func compare(a, b []any) int {
	for i := range a {
		var c int
		switch x := a[i].(type) {
		case int64:
			y, _ := b[i].(int64)
			c = cmp.Compare(x, y)
		case []byte:
			y, _ := b[i].([]byte)
			c = bytes.Compare(x, y)
		}
		if c != 0 {
			return c
		}
	}
	return 0
}

// keyText writes a key for people: integers, and bytes in hex.
func keyText(key []any) string {
	var b []byte
	for i, v := range key {
		if i > 0 {
			b = append(b, ' ')
		}
		if raw, ok := v.([]byte); ok {
			b = fmt.Appendf(b, "%x", raw)
		} else {
			b = fmt.Appendf(b, "%v", v)
		}
	}
	return string(b)
}
