package sqlite

import (
	"context"
	"fmt"
	"log/slog"
)

// With adds parameters, each after an &, to the data source names.
func (o Options) With(query string) Options {
	o.query += query
	return o
}

// LimitPages makes the database full at n pages.
func (s *Store) LimitPages(n int) error {
	return s.w.do(context.Background(), func(w *writer) error {
		var got int
		return w.st.Row(bg, fmt.Sprintf("PRAGMA max_page_count = %d", n), nil, &got)
	})
}

// Pages counts the database's pages.
func (s *Store) Pages() (n int, err error) {
	err = s.w.do(context.Background(), func(w *writer) error { return w.st.Row(bg, "PRAGMA page_count", nil, &n) })
	return n, err
}

// Fail makes the writer meet an error.
func (s *Store) Fail(err error) error {
	return s.w.do(context.Background(), func(*writer) error { return err })
}

// Pragma reads a setting of the writer's connection.
func (s *Store) Pragma(name string) (v string, err error) {
	err = s.w.do(context.Background(), func(w *writer) error { return w.st.Row(bg, "PRAGMA "+name, nil, &v) })
	return v, err
}

// MigrateDown takes the schema of the database at path back to a version.
func MigrateDown(ctx context.Context, path string, version int64) error {
	db, err := openPool(path, writerQuery, 1)
	if err != nil {
		return err
	}
	defer db.Close()
	p, err := provider(db, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	_, err = p.DownTo(ctx, version)
	return err
}
