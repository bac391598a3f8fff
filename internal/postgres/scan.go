package postgres

import (
	"fmt"
	"time"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// fixed scans a bytea into an array; NULL makes it zero.
type fixed []byte

// ScanBytes implements pgtype.BytesScanner.
func (f fixed) ScanBytes(v []byte) error {
	if v == nil {
		clear(f)
		return nil
	}
	if len(v) != len(f) {
		return fmt.Errorf("%w: want %d bytes, got %d", errData, len(f), len(v))
	}
	copy(f, v)
	return nil
}

// millis scans Unix milliseconds; 0 is the zero time.
type millis struct{ t *time.Time }

// Scan implements sql.Scanner.
func (m millis) Scan(src any) error {
	v, ok := src.(int64)
	if !ok {
		return fmt.Errorf("%w: want milliseconds, got %T", errData, src)
	}
	*m.t = fromMillis(v)
	return nil
}

func fromMillis(v int64) time.Time {
	if v == 0 {
		return time.Time{}
	}
	return time.UnixMilli(v).UTC()
}

func toMillis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// blob makes bytes that are stored as bytea and not as NULL.
func blob(b wire.Blob) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
