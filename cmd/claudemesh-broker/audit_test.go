package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/claudemesh/claudemesh/internal/audit"
)

// A broker keeps its audit log beside its file, goes on with it after a restart,
// and prints and verifies it; one that was changed is found out.
func TestAudit(t *testing.T) {
	db := filepath.Join(t.TempDir(), "mesh.db")
	path := db + ".audit"
	for range 2 {
		s := start(t, "--db", db, "--open")
		if err := s.found(""); err != nil {
			t.Fatal(err)
		}
		code, out, errs := tool(t, "audit", path) // while it runs
		if code != 0 || !strings.Contains(out, "1 ") || !strings.Contains(out, " created mesh=") || strings.Contains(out, "acme") {
			t.Errorf("audit: %d %s%s", code, out, errs)
		}
		if code := s.stop(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st, err)
	}
	if code, out, errs := tool(t, "audit", path, "--verify"); code != 0 || !strings.Contains(out, "2 records") {
		t.Errorf("verify: %d %s%s", code, out, errs)
	}
	if code, out, _ := tool(t, "audit", path, "--verify", "--json"); code != 0 || !strings.Contains(out, `"records":2`) {
		t.Errorf("verify as JSON: %d %s", code, out)
	}
	_, out, _ := tool(t, "audit", path, "--json")
	var r audit.Record
	if lines := strings.Split(strings.TrimSpace(out), "\n"); len(lines) != 2 || json.Unmarshal([]byte(lines[1]), &r) != nil || r.Number != 2 || r.Event != audit.Created {
		t.Errorf("as JSON: %s", out)
	}

	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Replace(raw, []byte(`"created"`), []byte(`"removed"`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := tool(t, "audit", path, "--verify"); code != 1 || !strings.Contains(errs, "broken at record 1") {
		t.Errorf("a changed one: %d %s", code, errs)
	}
	if err := os.WriteFile(path, bytes.Replace(raw, []byte(`"created"`), []byte(`"removed"`), 2), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := tool(t, "--db", db, "--listen", "127.0.0.1:0"); code != 1 || !strings.Contains(errs, "broken at record 2") || !strings.Contains(errs, "name another") {
		t.Errorf("a start on a damaged one: %d %s", code, errs)
	}
}

func TestAuditElsewhere(t *testing.T) {
	dir := t.TempDir()
	db, named := filepath.Join(dir, "mesh.db"), filepath.Join(dir, "named")
	for _, where := range []string{auditOff, named} {
		s := start(t, "--db", db, "--open", "--audit", where)
		if err := s.found(""); err != nil {
			t.Fatal(err)
		}
		s.stop()
	}
	if n, err := audit.VerifyFile(named); n != 1 || err != nil {
		t.Error(n, err)
	}
	if _, err := os.Stat(db + ".audit"); !os.IsNotExist(err) {
		t.Error("there is one beside the database too")
	}
	for _, args := range [][]string{{"audit"}, {"audit", "a", "b"}} {
		if code, _, _ := tool(t, args...); code != 2 {
			t.Errorf("%v: exit code %d", args, code)
		}
	}
	if code, _, errs := tool(t, "audit", filepath.Join(dir, "none")); code != 1 || !strings.Contains(errs, "no such file") {
		t.Errorf("none: %d %s", code, errs)
	}
}

// What somebody wrote into the file does not reach the terminal as it is.
func TestAuditLine(t *testing.T) {
	line := auditLine(audit.Record{Number: 1, Entry: audit.Entry{Event: "created\x1b[2J", Note: "a\nb\u202e"}})
	if strings.ContainsAny(line, "\x1b\n\u202e") {
		t.Errorf("%q", line)
	}
}
