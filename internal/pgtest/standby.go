package pgtest

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Standby starts a streaming standby, destroyed when t ends. It is synchronous:
// a commit of s waits until the standby has it on disk.
func (s *Server) Standby(t testing.TB) *Server {
	t.Helper()
	r, err := newServer(s.bin, s.opts)
	if err != nil {
		t.Fatal(err)
	}
	r.primary = s
	t.Cleanup(func() {
		_ = s.exec("postgres", "SET synchronous_commit = local; ALTER SYSTEM RESET synchronous_standby_names") // it may be stopped
		_ = s.exec("postgres", "SELECT pg_reload_conf()")
		if err := r.destroy(); err != nil {
			t.Error(err)
		}
	})
	source := fmt.Sprintf("host=%s user=postgres application_name=standby", s.dir)
	if c, err := pgx.ParseConfig(s.URL("postgres")); err == nil {
		source += fmt.Sprintf(" port=%d", c.Port)
	}
	if err := r.tool("pg_basebackup", "-D", r.data(), "-d", source, "-c", "fast", "-X", "stream", "-R", "--no-sync"); err != nil {
		t.Fatal(err)
	}
	if err := r.Run(); err != nil {
		t.Fatal(err)
	}
	s.Exec(t, "ALTER SYSTEM SET synchronous_standby_names = 'standby'")
	s.Exec(t, "SELECT pg_reload_conf()")
	s.await(t, "SELECT count(*) > 0 FROM pg_stat_replication WHERE sync_state = 'sync'")
	return r
}

// Promote makes a standby a server of its own. Its primary must be gone.
func (s *Server) Promote(t testing.TB) {
	t.Helper()
	s.Exec(t, "SELECT pg_promote(true, 60)")
	s.await(t, "SELECT NOT pg_is_in_recovery()")
}

// await waits until a query says true.
func (s *Server) await(t testing.TB, sql string) {
	t.Helper()
	c, err := pgx.Connect(bg, s.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(bg)
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		var ok bool
		if err := c.QueryRow(bg, sql).Scan(&ok); err != nil {
			t.Fatal(err)
		}
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, sql)
		}
	}
}
