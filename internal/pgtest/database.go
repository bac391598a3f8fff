package pgtest

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/claudemesh/claudemesh/schema"
)

// template is the database that Database copies: the schema without a row.
const template = "template_mesh"

// versionTable is the one that package postgres uses.
const versionTable = "schema_version"

// Blank makes an empty database, without the schema, that is dropped when t ends.
func (s *Server) Blank(t testing.TB) (url string) {
	t.Helper()
	return s.create(t, "template0")
}

// Database makes a database with the schema and no rows, which is dropped when t ends.
func (s *Server) Database(t testing.TB) (url string) {
	t.Helper()
	s.template.Do(func() {
		if err := s.migrate(); err != nil {
			t.Fatal(err)
		}
	})
	return s.create(t, template)
}

func (s *Server) create(t testing.TB, from string) string {
	t.Helper()
	name := fmt.Sprintf("test%d", s.databases.Add(1))
	s.Exec(t, "CREATE DATABASE "+name+" TEMPLATE "+from)
	t.Cleanup(func() {
		_ = s.exec("postgres", "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)") // the server may be stopped
	})
	return s.URL(name)
}

// migrate makes the template.
func (s *Server) migrate() error {
	if err := s.exec("postgres", "CREATE DATABASE "+template); err != nil {
		return err
	}
	cfg, err := pgx.ParseConfig(s.URL(template))
	if err != nil {
		return err
	}
	db := stdlib.OpenDB(*cfg)
	p, err := goose.NewProvider(goose.DialectPostgres, db, schema.Postgres(),
		goose.WithDisableGlobalRegistry(true), goose.WithTableName(versionTable))
	if err == nil {
		_, err = p.Up(bg)
	}
	return errors.Join(err, db.Close())
}

// Snapshot makes a database with what another holds that is committed at this
// moment: what a crash would leave. The other may be in use.
func (s *Server) Snapshot(t testing.TB, from string) (url string) {
	t.Helper()
	to := s.Database(t)
	if err := copyRows(from, to); err != nil {
		t.Fatal(err)
	}
	return to
}

func copyRows(from, to string) (err error) {
	src, err := pgx.Connect(bg, from)
	if err != nil {
		return err
	}
	defer src.Close(bg)
	dest, err := pgx.Connect(bg, to)
	if err != nil {
		return err
	}
	defer dest.Close(bg)
	if _, err := dest.Exec(bg, "SET session_replication_role = replica; BEGIN"); err != nil { // no foreign keys
		return err
	}
	if _, err := src.Exec(bg, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		return err
	}
	names, err := tables(src, versionTable)
	if err != nil {
		return err
	}
	for _, table := range names {
		if err := copyTable(src, dest, pgx.Identifier{table}.Sanitize()); err != nil {
			return fmt.Errorf("copy %s: %w", table, err)
		}
	}
	// Numbers are given outside of transactions: they are read last.
	var set string
	err = src.QueryRow(bg, `SELECT coalesce(string_agg(format('SELECT setval(%L, %s);', format('%I', sequencename), last_value), ' '), '')
		FROM pg_sequences WHERE schemaname = 'public' AND last_value IS NOT NULL AND sequencename NOT LIKE $1`, versionTable+"%").Scan(&set)
	if err != nil {
		return err
	}
	_, err = dest.Exec(bg, set+" COMMIT")
	return err
}

// Rows is every row of every table of a database, as text.
func Rows(t testing.TB, from string) []byte {
	t.Helper()
	out, err := rows(from)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func rows(from string) (out []byte, err error) {
	conn, err := pgx.Connect(bg, from)
	if err != nil {
		return nil, err
	}
	defer conn.Close(bg)
	names, err := tables(conn, "")
	if err != nil {
		return nil, err
	}
	for _, table := range names {
		var text string
		err := conn.QueryRow(bg, "SELECT coalesce(string_agg(t::text, E'\n' ORDER BY t::text), '') FROM "+pgx.Identifier{table}.Sanitize()+" t").Scan(&text)
		if err != nil {
			return nil, err
		}
		out = append(out, table+":\n"+text+"\n"...)
	}
	return out, nil
}

// tables returns the names of a database's tables, but one.
func tables(conn *pgx.Conn, except string) ([]string, error) {
	rows, err := conn.Query(bg, `SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
		AND relname <> $1 ORDER BY 1`, except)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

func copyTable(src, dest *pgx.Conn, table string) error {
	r, w := io.Pipe()
	read := make(chan error, 1)
	go func() {
		_, err := src.PgConn().CopyTo(bg, w, "COPY "+table+" TO STDOUT (FORMAT binary)")
		w.CloseWithError(err)
		read <- err
	}()
	_, err := dest.PgConn().CopyFrom(bg, r, "COPY "+table+" FROM STDIN (FORMAT binary)")
	r.CloseWithError(err)
	return errors.Join(err, <-read)
}

// name returns the name of a URL's database.
func name(database string) (string, error) {
	u, err := url.Parse(database)
	if err != nil {
		return "", err
	}
	return strings.TrimPrefix(u.Path, "/"), nil
}

// On returns the URL of the same database on another server, such as a standby.
func (s *Server) On(t testing.TB, database string) string {
	t.Helper()
	n, err := name(database)
	if err != nil {
		t.Fatal(err)
	}
	return s.URL(n)
}
