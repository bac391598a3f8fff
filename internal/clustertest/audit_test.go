package clustertest

import (
	"os"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/claudemesh/claudemesh/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// TestAuditCanFail plants each breach: writes of a node that is buried, of none,
// and in another's name.
func TestAuditCanFail(t *testing.T) {
	const (
		fenced  = "SELECT fence('n', 1)"
		outcome = "INSERT INTO outcome (id, message, recipient, at, epoch, size, state) VALUES (1, 1, 1, 1, 1, 1, 1)"
		forged  = "INSERT INTO outcome (id, message, recipient, at, epoch, size, state) VALUES (1, 1, 1, 1, 2, 1, 1)"
		blind   = "CREATE OR REPLACE FUNCTION fence_itself(me text, mine bigint) RETURNS void LANGUAGE plpgsql AS 'BEGIN END'"
		bury    = "DELETE FROM node"
	)
	for _, c := range []struct {
		name          string
		before        []string // of the writer's transaction
		during, after string   // of another: before the commit, and after it
		want          int
	}{
		{"clean", []string{fenced, outcome}, "", "", 0},
		{"buried afterwards", []string{fenced, outcome}, "", bury, 0},
		{"not fenced", []string{outcome}, "", "", 1},
		{"in another's name", []string{fenced, forged}, "", "", 1},
		{"buried meanwhile, by a fence that locks nothing", []string{blind, fenced, outcome}, bury, "", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := t.Context()
			db := pgtest.Database(t)
			a := NewAudit(t, db)
			exec := func(c *pgx.Conn, sql string) {
				t.Helper()
				_, err := c.Exec(ctx, sql)
				Must(t, err)
			}
			connect := func() *pgx.Conn {
				c, err := pgx.Connect(ctx, db)
				Must(t, err)
				t.Cleanup(func() { _ = c.Close(ctx) })
				return c
			}
			writer, other := connect(), connect()
			exec(other, "INSERT INTO node (name, epoch, until) VALUES ('n', 1, now() + interval '1 hour')")
			if c.before[0] == blind {
				exec(other, blind)
				c.before = c.before[1:]
			}
			exec(writer, "BEGIN")
			for _, sql := range c.before {
				exec(writer, sql)
			}
			exec(other, c.during)
			exec(writer, "COMMIT")
			exec(other, c.after)
			checked, breaches := a.Result()
			if checked != 1 || len(breaches) != c.want {
				t.Errorf("%d checked, breaches %+v", checked, breaches)
			}
		})
	}
}
