package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// preparer is a *sql.DB or a *sql.Conn.
type preparer interface {
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
}

// statements prepares each query once and keeps it. Queries are constants.
type statements struct {
	on preparer
	mu sync.Mutex
	m  map[string]*sql.Stmt // by query
}

func newStatements(on preparer) *statements {
	return &statements{on: on, m: make(map[string]*sql.Stmt)}
}

func (s *statements) known(query string) *sql.Stmt {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[query]
}

// get prepares a query that is not known yet. It holds no lock meanwhile: to
// prepare takes a connection, and who has one may want the lock.
func (s *statements) get(ctx context.Context, query string) (*sql.Stmt, error) {
	if st := s.known(query); st != nil {
		return st, nil
	}
	st, err := s.on.PrepareContext(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("prepare %q: %w", query, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if first := s.m[query]; first != nil {
		return first, st.Close()
	}
	s.m[query] = st
	return st, nil
}

func (s *statements) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, st := range s.m {
		errs = append(errs, st.Close())
	}
	clear(s.m)
	return errors.Join(errs...)
}

// exec runs a statement and returns the number of rows it changed.
func (s *statements) exec(ctx context.Context, query string, args ...any) (int64, error) {
	st, err := s.get(ctx, query)
	if err != nil {
		return 0, err
	}
	res, err := st.ExecContext(ctx, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// row reads the one row of a query. sql.ErrNoRows when there is none.
func (s *statements) row(ctx context.Context, query string, args []any, dest ...any) error {
	st, err := s.get(ctx, query)
	if err != nil {
		return err
	}
	return st.QueryRowContext(ctx, args...).Scan(dest...)
}

// each calls scan for every row.
func (s *statements) each(ctx context.Context, query string, args []any, scan func(*sql.Rows) error) error {
	st, err := s.get(ctx, query)
	if err != nil {
		return err
	}
	return eachRow(ctx, st, args, scan)
}

func eachRow(ctx context.Context, st *sql.Stmt, args []any, scan func(*sql.Rows) error) error {
	rows, err := st.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	return scanAll(rows, scan)
}

func scanAll(rows *sql.Rows, scan func(*sql.Rows) error) error {
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// snapshot runs read in one transaction, so that all its queries see one state.
func (s *statements) snapshot(ctx context.Context, db *sql.DB, read func(q *snapshot) error) error {
	q := &snapshot{s: s}
	err := q.read(ctx, db, read)
	for query := range q.missed { // for the next time; not before the connection is given back
		if err == nil {
			_, err = s.get(ctx, query)
		}
	}
	return err
}

// snapshot is a transaction. It has its connection, so it may not wait for another:
// a query that is not prepared yet runs as it is.
type snapshot struct {
	s      *statements
	tx     *sql.Tx
	missed map[string]bool
}

func (q *snapshot) read(ctx context.Context, db *sql.DB, read func(q *snapshot) error) (err error) {
	if q.tx, err = db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true}); err != nil {
		return err
	}
	defer q.tx.Rollback() // it only read
	return read(q)
}

// find returns nil for a query that is not prepared.
func (q *snapshot) find(ctx context.Context, query string) *sql.Stmt {
	if st := q.s.known(query); st != nil {
		return q.tx.StmtContext(ctx, st)
	}
	if q.missed == nil {
		q.missed = map[string]bool{}
	}
	q.missed[query] = true
	return nil
}

func (q *snapshot) row(ctx context.Context, query string, args []any, dest ...any) error {
	if st := q.find(ctx, query); st != nil {
		return st.QueryRowContext(ctx, args...).Scan(dest...)
	}
	return q.tx.QueryRowContext(ctx, query, args...).Scan(dest...)
}

func (q *snapshot) each(ctx context.Context, query string, args []any, scan func(*sql.Rows) error) error {
	if st := q.find(ctx, query); st != nil {
		return eachRow(ctx, st, args, scan)
	}
	rows, err := q.tx.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	return scanAll(rows, scan)
}

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
