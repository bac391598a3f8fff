package sqlite

import (
	"fmt"
	"time"

	"github.com/claudemesh/claudemesh/internal/wire"
	"github.com/claudemesh/claudemesh/schema"
)

// fixed scans a BLOB into an array; NULL makes it zero.
type fixed []byte

// Scan implements sql.Scanner.
func (f fixed) Scan(src any) error {
	b, ok := src.([]byte)
	if src == nil {
		clear(f)
		return nil
	}
	if !ok || len(b) != len(f) {
		return fmt.Errorf("want %d bytes, got %T of %d", len(f), src, len(b))
	}
	copy(f, b)
	return nil
}

// millis scans Unix milliseconds; 0 and NULL are the zero time.
type millis struct{ t *time.Time }

// Scan implements sql.Scanner.
func (m millis) Scan(src any) error {
	v, ok := src.(int64)
	if src != nil && !ok {
		return fmt.Errorf("want milliseconds, got %T", src)
	}
	*m.t = schema.Time(v)
	return nil
}

// blob makes bytes that SQLite stores as a BLOB even when there are none.
func blob(b wire.Blob) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// raw scans a BLOB. The driver reads an empty one as NULL, which database/sql
// stores in a []byte but in no type made of it.
func raw(b *wire.Blob) *[]byte { return (*[]byte)(b) }
