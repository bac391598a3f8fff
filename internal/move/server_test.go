package move_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/claudemesh/claudemesh/internal/move"
	"github.com/claudemesh/claudemesh/internal/pgtest"
)

// A server that crashes may lose a move's last commits, and the move goes on
// from what is left.
func TestServerCrashes(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	file, url := filepath.Join(t.TempDir(), "mesh.db"), s.Blank(t)
	w, told := filledDB(t, file, 500)
	for _, at := range []int64{30, 60, 90} {
		crashed := false
		_, err := move.Run(bg, file, url, move.Options{Progress: func(p move.Progress) {
			if p.Done >= p.Total*at/100 && !crashed {
				crashed = true
				w.ok(s.Restart(pgtest.Immediate))
			}
		}}.InBatches(20))
		if err == nil {
			t.Error("the move did not notice")
		}
	}
	if r := run(t, file, url, move.Options{}); r.Found == 0 {
		t.Error("nothing was left")
	}
	w.same(w.tells(url), told)
}

// No broker can enlist on either Postgres database while it is moved.
func TestKeepsBrokersAway(t *testing.T) {
	file, from, to := filepath.Join(t.TempDir(), "mesh.db"), pgtest.Shared(t).Blank(t), pgtest.Shared(t).Blank(t)
	w, told := filledDB(t, file, 50)
	run(t, file, from, move.Options{})
	asked := 0
	run(t, from, to, move.Options{Progress: func(move.Progress) {
		for _, url := range []string{from, to} {
			if !enlistWaits(t, url) {
				t.Error("a broker enlists")
			}
			asked++
		}
	}})
	if asked == 0 || enlistWaits(t, to) {
		t.Error("the lock was not asked for, or is there yet")
	}
	w.same(w.tells(to), told)
}

// enlistWaits reports whether a lock stands in the way of a new node.
func enlistWaits(t *testing.T, url string) bool {
	t.Helper()
	c, err := pgx.Connect(bg, url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(bg)
	_, err = c.Exec(bg, strings.Join([]string{
		"SET lock_timeout = '50ms'", "BEGIN", "INSERT INTO node (name, epoch, until) VALUES ('x', 1, now())", "ROLLBACK"}, ";"))
	pe, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pe.Code == "55P03"
}
