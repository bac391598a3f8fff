package pgtest_test

import (
	"context"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/claudemesh/claudemesh/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

var bg = context.Background()

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(bg, url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(bg) })
	return c
}

func exec(t *testing.T, c *pgx.Conn, sql string) {
	t.Helper()
	if _, err := c.Exec(bg, sql); err != nil {
		t.Fatal(err)
	}
}

func number(t *testing.T, c *pgx.Conn, sql string) (n int64) {
	t.Helper()
	if err := c.QueryRow(bg, sql).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

const insert = "INSERT INTO body (seq, nonce, ciphertext) VALUES (numbers(3), '\\x00ff', '')"

// A snapshot has what is committed, and its numbers go on from there.
func TestSnapshot(t *testing.T) {
	from := pgtest.Database(t)
	c := connect(t, from)
	exec(t, c, insert)
	exec(t, c, "BEGIN")
	exec(t, c, insert)
	copied := connect(t, pgtest.Shared(t).Snapshot(t, from))
	if n := number(t, copied, "SELECT count(*) FROM body WHERE nonce = '\\x00ff'"); n != 1 {
		t.Errorf("%d rows, want the committed one", n)
	}
	if n := number(t, copied, "SELECT numbers(1)"); n != 7 {
		t.Errorf("number %d after 6 were given", n)
	}
}

func TestFailover(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{TCP: true})
	from := s.Database(t)
	standby := s.Standby(t)
	over, err := pgtest.At(from, s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	exec(t, connect(t, over), insert)
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	standby.Promote(t)
	c := connect(t, standby.On(t, from))
	exec(t, c, insert)
	if n := number(t, c, "SELECT count(*) FROM body"); n != 2 {
		t.Errorf("%d rows, want 2", n)
	}
}

func TestRestart(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	url := s.Database(t)
	exec(t, connect(t, url), insert)
	for _, mode := range []pgtest.Mode{pgtest.Fast, pgtest.Immediate} {
		if err := s.Restart(mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(); err != nil {
		t.Fatal(err)
	}
	if n := number(t, connect(t, url), "SELECT count(*) FROM body"); n != 1 {
		t.Errorf("%d rows, want 1", n)
	}
}
