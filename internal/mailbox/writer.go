package mailbox

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/claudemesh/claudemesh/internal/prepared"
)

// writer owns this process's only connection that writes. Its turn is taken
// with a context, for another writer may wait seconds for another process.
type writer struct {
	turn  chan struct{} // holds one value while the writer is free
	conn  *prepared.Conn
	fatal error // an fsync failed: what the file holds is unknown
}

func newWriter(ctx context.Context, db *sql.DB) (*writer, error) {
	conn, err := prepared.Open(ctx, db)
	if err != nil {
		return nil, err
	}
	w := &writer{turn: make(chan struct{}, 1), conn: conn}
	w.turn <- struct{}{}
	return w, nil
}

// close waits for its turn and keeps it.
func (w *writer) close() error {
	<-w.turn
	defer close(w.turn)
	return w.conn.Close()
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
	t := &tx{ctx: context.WithoutCancel(ctx), conn: w.conn}
	done := false
	defer func() { // also when do panics
		if !done {
			_, _ = t.exec("ROLLBACK")
		}
	}()
	if _, err := w.conn.Result(ctx, "BEGIN IMMEDIATE"); err != nil {
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

// tx is a transaction that its maker ends. Its context does not end.
type tx struct {
	ctx  context.Context
	conn *prepared.Conn
}

// exec runs a statement and returns the number of rows it changed.
func (t *tx) exec(query string, args ...any) (int64, error) {
	return t.conn.Exec(t.ctx, query, args...)
}

// insert runs a statement and returns the number of the row it made.
func (t *tx) insert(query string, args ...any) (int64, error) {
	res, err := t.conn.Result(t.ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return res.LastInsertId()
}

// get reads one row; sql.ErrNoRows if there is none.
func (t *tx) get(query string, args []any, dest ...any) error {
	return t.conn.Row(t.ctx, query, args, dest...)
}

// each calls scan for every row.
func (t *tx) each(query string, args []any, scan func(*sql.Rows) error) error {
	return t.conn.Each(t.ctx, query, args, scan)
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
