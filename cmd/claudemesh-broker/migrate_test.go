package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/claudemesh/claudemesh/internal/move"
	"github.com/claudemesh/claudemesh/internal/pgtest"
)

// A broker's database moves to Postgres and back, and a broker starts on each.
func TestMigrate(t *testing.T) {
	dir := t.TempDir()
	file, back := filepath.Join(dir, "mesh.db"), filepath.Join(dir, "back.db")
	url := pgtest.Start(t, pgtest.Options{}).Blank(t)
	urlFile := filepath.Join(dir, "database-url")
	if err := os.WriteFile(urlFile, []byte(url+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code := start(t, "--db", file).stop(); code != 0 {
		t.Fatal(code)
	}

	succeeds := func(want string, args ...string) (out, errs string) {
		t.Helper()
		code, out, errs := tool(t, args...)
		if code != 0 || !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("%q: exit %d, out %q, err %q", args, code, out, errs)
		}
		return out, errs
	}
	fails := func(exit int, want string, args ...string) {
		t.Helper()
		if code, out, errs := tool(t, args...); code != exit || out != "" || !strings.Contains(errs, want) {
			t.Errorf("%q: exit %d, out %q, err %q", args, code, out, errs)
		}
	}
	_, errs := succeeds("Nothing was changed", "migrate", "--from", file, "--to", url, "--dry-run")
	if errs != "" {
		t.Errorf("a dry run tells %q", errs)
	}
	fails(1, "not a broker's database", "check", "--db-file", urlFile)
	out, errs := succeeds(`(?s)broker +1 +[0-9a-f]{64}.*hold the same`, "migrate", "--from", file, "--to-file", urlFile)
	if !strings.Contains(errs, "moving: ") || !strings.Contains(errs, "verifying: 100%") {
		t.Errorf("progress %q, result %q", errs, out)
	}
	succeeds("is whole", "check", "--db-file", urlFile)
	succeeds(`^\S+\n$`, "token", "reset", "--db-file", urlFile)
	fails(1, "pg_dump", "backup", "--db-file", urlFile, filepath.Join(dir, "backup.db"))
	fails(1, "not empty", "migrate", "--from", startedOn(t, filepath.Join(dir, "other.db")), "--to", url)

	s := start(t, "--db", url)
	fails(1, "in use", "migrate", "--from", url, "--to", back)
	if code := s.stop(); code != 0 {
		t.Fatal(code)
	}
	out, errs = succeeds("{", "migrate", "--from-file", urlFile, "--to", back, "--json")
	var m migrated
	if err := json.Unmarshal([]byte(out), &m); err != nil || errs != "" || m.Moved == 0 || m.To != back {
		t.Errorf("%q, %q, %v", out, errs, err)
	}
	out, errs = succeeds("^$", "migrate", "--from", back, "--to", filepath.Join(dir, "again.db"), "--quiet")
	if out+errs != "" {
		t.Errorf("quiet tells %q, %q", out, errs)
	}
	start(t, "--db", startedOn(t, back))
	fails(2, "--from and --to", "migrate", "--from", file)
	fails(2, "choose", "migrate", "--from", file, "--to", back, "--json", "--quiet")
	fails(2, "--to is a SQLite file", "migrate", "--from", file, "--to", "mysql://x")
}

// startedOn makes a database, or shows that a broker starts on one.
func startedOn(t *testing.T, file string) string {
	t.Helper()
	if code := start(t, "--db", file).stop(); code != 0 {
		t.Fatal(code)
	}
	return file
}

// On a terminal a bar is drawn over itself and taken away.
func TestBar(t *testing.T) {
	var out buffer
	b := &bar{w: &out, terminal: true}
	b.show(move.Progress{Phase: "moving", Table: "message", Done: 50, Total: 100})
	b.show(move.Progress{Phase: "verifying", Table: "message", Done: 100, Total: 100})
	b.end()
	want := "\r\x1b[Kmoving    [" + strings.Repeat("#", 15) + strings.Repeat("-", 15) + "]  50%  50 of 100 rows  message" +
		"\r\x1b[Kverifying [" + strings.Repeat("#", 30) + "] 100%  100 of 100 rows  message\r\x1b[K"
	if out.String() != want {
		t.Errorf("got  %q\nwant %q", out.String(), want)
	}
}
