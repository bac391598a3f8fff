package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/claudemesh/claudemesh/internal/wire"
	"github.com/claudemesh/claudemesh/schema"
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
	*m.t = schema.Time(v)
	return nil
}

// blob makes bytes that are stored as bytea and not as NULL.
func blob(b wire.Blob) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// raw scans a bytea into a blob, which is nil when there are no bytes.
func raw(b *wire.Blob) pgtype.BytesScanner { return (*rawBlob)(b) }

type rawBlob wire.Blob

// ScanBytes implements pgtype.BytesScanner.
func (r *rawBlob) ScanBytes(v []byte) error {
	*r = append(rawBlob(nil), v...)
	return nil
}

// list returns what a query finds; nil when that is nothing.
func list[T any](ctx context.Context, q querier, scan pgx.RowToFunc[T], sql string, args ...any) ([]T, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.AppendRows([]T(nil), rows, scan)
}

// each scans every row that a query finds and calls got after it.
func each(ctx context.Context, q querier, dest []any, got func(), sql string, args ...any) error {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	return scanEach(rows, dest, got)
}

func scanEach(rows pgx.Rows, dest []any, got func()) error {
	_, err := pgx.ForEachRow(rows, dest, func() error { got(); return nil })
	return err
}
