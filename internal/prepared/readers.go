package prepared

import (
	"context"
	"database/sql"
	"errors"
	"sync"
)

// ErrClosed is returned by a read after Close.
var ErrClosed = errors.New("the database is closed")

// Readers is connections that read. Whoever reads holds one of them and its
// statements, and never waits for a second.
type Readers struct {
	db    *sql.DB
	turns chan struct{} // a token for each connection that is in use

	mu     sync.Mutex
	idle   []*Conn // the one used last at the end: its cache is warm
	closed bool
}

// NewReaders takes up to n connections of a pool, as they are needed.
func NewReaders(db *sql.DB, n int) *Readers {
	return &Readers{db: db, turns: make(chan struct{}, n)}
}

// Snapshot runs read in one transaction, so that all its queries see one state.
func (r *Readers) Snapshot(ctx context.Context, read func(c *Conn) error) error {
	return r.with(ctx, func(c *Conn) (healthy bool, err error) {
		// Neither waits for anything, and to watch a context costs more.
		short := context.WithoutCancel(ctx)
		if _, err := c.Result(short, "BEGIN"); err != nil {
			return false, err
		}
		defer func() { // also when read panics
			_, failed := c.Result(short, "ROLLBACK")
			healthy = failed == nil
		}()
		return true, read(c)
	})
}

// Row reads the one row of a query. sql.ErrNoRows when there is none.
func (r *Readers) Row(ctx context.Context, query string, args []any, dest ...any) error {
	return r.with(ctx, func(c *Conn) (bool, error) {
		err := c.Row(ctx, query, args, dest...)
		return err == nil || errors.Is(err, sql.ErrNoRows), err
	})
}

// Each calls scan for every row.
func (r *Readers) Each(ctx context.Context, query string, args []any, scan func(*sql.Rows) error) error {
	return r.with(ctx, func(c *Conn) (bool, error) {
		err := c.Each(ctx, query, args, scan)
		return err == nil, err
	})
}

// with waits for a connection. One that is not healthy afterwards is closed.
func (r *Readers) with(ctx context.Context, use func(c *Conn) (healthy bool, err error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case r.turns <- struct{}{}:
		defer func() { <-r.turns }()
	case <-ctx.Done():
		return ctx.Err()
	}
	c, err := r.take(ctx)
	if err != nil {
		return err
	}
	healthy := false
	defer func() { r.put(c, healthy) }()
	healthy, err = use(c)
	return err
}

func (r *Readers) take(ctx context.Context) (*Conn, error) {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil, ErrClosed
	}
	if n := len(r.idle); n > 0 {
		c := r.idle[n-1]
		r.idle = r.idle[:n-1]
		r.mu.Unlock()
		return c, nil
	}
	r.mu.Unlock()
	return Open(ctx, r.db)
}

func (r *Readers) put(c *Conn, healthy bool) {
	if !healthy {
		_ = c.Close() // it failed already
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.idle = append(r.idle, c)
}

// Close waits for the reads under way and closes the connections.
func (r *Readers) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	for range cap(r.turns) {
		r.turns <- struct{}{}
	}
	defer func() {
		for range cap(r.turns) {
			<-r.turns
		}
	}()
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, c := range r.idle {
		errs = append(errs, c.Close())
	}
	r.idle = nil
	return errors.Join(errs...)
}
