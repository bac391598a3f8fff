// Package prepared runs SQL on connections that keep their statements: to
// prepare a small query takes SQLite several times as long as to run it.
package prepared

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// Conn is a connection that prepares each query once and keeps it: queries are
// constants. It serves one goroutine at a time.
type Conn struct {
	conn  *sql.Conn
	stmts map[string]*sql.Stmt // by query
}

// Open takes a connection from a pool.
func Open(ctx context.Context, db *sql.DB) (*Conn, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	return &Conn{conn: conn, stmts: make(map[string]*sql.Stmt)}, nil
}

// Raw is the connection itself.
func (c *Conn) Raw() *sql.Conn { return c.conn }

// Close closes the statements and gives the connection back.
func (c *Conn) Close() error {
	var errs []error
	for _, st := range c.stmts {
		errs = append(errs, st.Close())
	}
	clear(c.stmts)
	return errors.Join(append(errs, c.conn.Close())...)
}

func (c *Conn) get(ctx context.Context, query string) (*sql.Stmt, error) {
	if st, ok := c.stmts[query]; ok {
		return st, nil
	}
	st, err := c.conn.PrepareContext(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("prepare %q: %w", query, err)
	}
	c.stmts[query] = st
	return st, nil
}

// Result runs a statement.
func (c *Conn) Result(ctx context.Context, query string, args ...any) (sql.Result, error) {
	st, err := c.get(ctx, query)
	if err != nil {
		return nil, err
	}
	return st.ExecContext(ctx, args...)
}

// Exec runs a statement and returns the number of rows it changed.
func (c *Conn) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	res, err := c.Result(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// Row reads the one row of a query. sql.ErrNoRows when there is none.
func (c *Conn) Row(ctx context.Context, query string, args []any, dest ...any) error {
	st, err := c.get(ctx, query)
	if err != nil {
		return err
	}
	return st.QueryRowContext(ctx, args...).Scan(dest...)
}

// Each calls scan for every row.
func (c *Conn) Each(ctx context.Context, query string, args []any, scan func(*sql.Rows) error) error {
	st, err := c.get(ctx, query)
	if err != nil {
		return err
	}
	rows, err := st.QueryContext(ctx, args...)
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
