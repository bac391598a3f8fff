package mailbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// writer owns this process's only connection that writes. Its turn is taken
// with a context, for another writer may wait seconds for another process.
type writer struct {
	turn  chan struct{} // holds one value while the writer is free
	conn  *sql.Conn
	stmts map[string]*sql.Stmt // by query
	fatal error                // an fsync failed: what the file holds is unknown
}

func newWriter(ctx context.Context, db *sql.DB) (*writer, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	w := &writer{turn: make(chan struct{}, 1), conn: conn, stmts: make(map[string]*sql.Stmt)}
	w.turn <- struct{}{}
	return w, nil
}

// close waits for its turn and keeps it.
func (w *writer) close() error {
	<-w.turn
	defer close(w.turn)
	var errs []error
	for _, st := range w.stmts {
		errs = append(errs, st.Close())
	}
	w.stmts = nil
	return errors.Join(append(errs, w.conn.Close())...)
}

// run executes do between BEGIN IMMEDIATE and COMMIT. The context counts while
// waiting for the lock; what has begun is finished, so that a commit is never
// left in doubt.
func (w *writer) run(ctx context.Context, do func(*tx) (bool, error)) (changed bool, err error) {
	select {
	case _, open := <-w.turn:
		if !open {
			return false, ErrClosed
		}
	case <-ctx.Done():
		return false, ctx.Err()
	}
	defer func() { w.turn <- struct{}{} }()
	if w.fatal != nil {
		return false, w.fatal
	}
	t := &tx{ctx: context.WithoutCancel(ctx), prepare: w.prepare}
	done := false
	defer func() { // also when do panics
		if !done {
			_, _ = w.conn.ExecContext(t.ctx, "ROLLBACK")
		}
	}()
	if _, err := w.conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return false, err
	}
	if changed, err = do(t); err != nil {
		return false, err
	}
	if _, err := t.exec("COMMIT"); err != nil {
		if isFatal(err) {
			w.fatal = fmt.Errorf("the disk failed; restart claudemesh: %w", err)
		}
		return false, err
	}
	done = true
	return changed, nil
}

func (w *writer) prepare(query string) (*sql.Stmt, error) {
	if st, ok := w.stmts[query]; ok {
		return st, nil
	}
	st, err := w.conn.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, fmt.Errorf("prepare %q: %w", query, err)
	}
	w.stmts[query] = st
	return st, nil
}

// tx runs statements, each prepared once, in a transaction that its maker ends.
type tx struct {
	ctx     context.Context
	prepare func(query string) (*sql.Stmt, error)
}

// exec runs a statement and returns the number of rows it changed.
func (t *tx) exec(query string, args ...any) (int64, error) {
	res, err := t.result(query, args)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// insert runs a statement and returns the number of the row it made.
func (t *tx) insert(query string, args ...any) (int64, error) {
	res, err := t.result(query, args)
	if err != nil {
		return 0, err
	}
	return res.LastInsertId()
}

func (t *tx) result(query string, args []any) (sql.Result, error) {
	st, err := t.prepare(query)
	if err != nil {
		return nil, err
	}
	return st.ExecContext(t.ctx, args...)
}

// get reads one row; sql.ErrNoRows if there is none.
func (t *tx) get(query string, args []any, dest ...any) error {
	st, err := t.prepare(query)
	if err != nil {
		return err
	}
	return st.QueryRowContext(t.ctx, args...).Scan(dest...)
}

// each calls scan for every row.
func (t *tx) each(query string, args []any, scan func(*sql.Rows) error) error {
	st, err := t.prepare(query)
	if err != nil {
		return err
	}
	rows, err := st.QueryContext(t.ctx, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// fixed scans a blob into an array of exactly its length.
type fixed []byte

// Scan implements sql.Scanner.
func (f fixed) Scan(v any) error {
	b, ok := v.([]byte)
	if !ok || len(b) != len(f) {
		return fmt.Errorf("%w: want a blob of %d bytes", ErrCorrupt, len(f))
	}
	copy(f, b)
	return nil
}
