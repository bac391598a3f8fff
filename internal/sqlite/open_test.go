package sqlite_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/pressly/goose/v3"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/sqlite"
	"github.com/claudemesh/claudemesh/internal/wire"
	"github.com/claudemesh/claudemesh/schema"
)

var update = flag.Bool("update", false, "rewrite testdata")

// refused opens path, which must fail with want and say each of parts.
func refused(t *testing.T, path string, want error, parts ...string) {
	t.Helper()
	s, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	if err == nil {
		s.Close()
		t.Fatal("it was opened")
	}
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error %q does not say %q", err, p)
		}
	}
}

// edit runs statements on a database that no store has open.
func edit(t testing.TB, path string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, q := range statements {
		if _, err := db.Exec(q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
}

func TestOpenNewer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "broker.db")
	open(t, path).Close()
	edit(t, path, "INSERT INTO schema_version (version_id, is_applied) VALUES (7, 1)")
	refused(t, path, sqlite.ErrNewer, "version 7", "up to 3", "run a newer broker")
	for name, err := range map[string]error{
		"Check":      sqlite.Check(t.Context(), path),
		"Backup":     sqlite.Backup(t.Context(), path, path+".bak"),
		"ResetToken": sqlite.ResetToken(t.Context(), path, [32]byte{1}),
	} {
		if !errors.Is(err, sqlite.ErrNewer) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOpenLocked(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "broker.db")
	s := open(t, path)
	refused(t, path, sqlite.ErrLocked, "another broker")
	link := filepath.Join(dir, "link.db")
	if err := os.Symlink(path, link); err != nil {
		t.Skip(err)
	}
	refused(t, link, sqlite.ErrLocked)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, link)
}

func TestOpenNotADatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "broker.db")
	content := []byte(strings.Repeat("this is a diary\n", 1000))
	for _, n := range []int{1, 15, 16, 16000} {
		if err := os.WriteFile(path, content[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, path, sqlite.ErrCorrupt, "not a SQLite database")
		if got, _ := os.ReadFile(path); !bytes.Equal(got, content[:n]) {
			t.Error("the file was changed")
		}
	}
	other := filepath.Join(t.TempDir(), "other.db")
	edit(t, other, "CREATE TABLE diary (day TEXT)")
	refused(t, other, sqlite.ErrCorrupt, "another program", "backup")
}

func TestOpenCorrupt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "broker.db")
	open(t, path).Close()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte{0xff}, 4000), 100); err != nil { // the schema's page
		t.Fatal(err)
	}
	f.Close()
	refused(t, path, sqlite.ErrCorrupt, "restore the latest backup")
}

func TestOpenSettings(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a %41?b#c")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "broker.db")
	s := open(t, path)
	for name, want := range map[string]string{"page_size": "8192", "journal_mode": "wal", "synchronous": "2", "foreign_keys": "1",
		"busy_timeout": "5000", "wal_autocheckpoint": "1000"} {
		if got, err := s.Pragma(name); err != nil || got != want {
			t.Errorf("%s is %q, %v; want %q", name, got, err, want)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 4 {
		t.Errorf("%d files, want database, WAL, shm and lock", len(entries))
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", e.Name(), info.Mode(), err)
		}
	}
}

// TestSchema holds the end of all migrations against a file that is reviewed.
func TestSchema(t *testing.T) {
	path := filepath.Join(t.TempDir(), "broker.db")
	open(t, path).Close()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	dump := func() string {
		var b strings.Builder
		rows, err := db.Query("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND tbl_name NOT IN ('schema_version', 'sqlite_sequence') ORDER BY tbl_name, type DESC, name")
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var s string
			if err := rows.Scan(&s); err != nil {
				t.Fatal(err)
			}
			b.WriteString(s + ";\n\n")
		}
		return b.String()
	}
	got, golden := dump(), filepath.Join("testdata", "schema.sql")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the schema differs from %s (run with -update and review):\n%s", golden, got)
	}

	p, err := goose.NewProvider(goose.DialectSQLite3, db, schema.SQLite(), goose.WithDisableGlobalRegistry(true), goose.WithTableName("schema_version"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.DownTo(context.Background(), 0); err != nil {
		t.Fatal(err)
	}
	if left := dump(); left != "" {
		t.Errorf("down leaves %s", left)
	}
	if _, err := p.Up(context.Background()); err != nil {
		t.Fatal(err)
	}
	if again := dump(); again != got {
		t.Errorf("up after down makes another schema:\n%s", again)
	}
}

// TestLibc: SQLite is tested with one version of the C library it is translated
// for, and must be linked with that one.
func TestLibc(t *testing.T) {
	linked := make(map[string]string)
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			linked[d.Path] = d.Version
		}
	}
	list := func(args ...string) string {
		out, err := exec.Command("go", append([]string{"list", "-m"}, args...)...).Output()
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		return strings.TrimSpace(string(out))
	}
	if linked["modernc.org/libc"] == "" { // test binaries carry no build info
		linked["modernc.org/libc"] = list("-f", "{{.Version}}", "modernc.org/libc")
	}
	mod, err := os.ReadFile(list("-f", "{{.GoMod}}", "modernc.org/sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "modernc.org/libc " + linked["modernc.org/libc"] + "\n"; !strings.Contains(string(mod), want) {
		t.Errorf("linked with %s, which modernc.org/sqlite does not ask for", want)
	}
}

// TestMigrateBodies: what waits in a database of the first schema waits after
// the migration that moves the bodies of directs.
func TestMigrateBodies(t *testing.T) {
	path := filepath.Join(t.TempDir(), "broker.db")
	s := open(t, path)
	id, peer := mesh(t, s)
	for i := range 6 {
		m := message(id, peer, 100*i)
		m.Nonce[0], m.Nonce[23] = byte(i), 0
		if i%2 == 1 {
			m.Mode, m.Deliveries = wire.ModeGroup, []broker.NewDelivery{{Recipient: peer, Wrap: []byte{9, 0, byte(i)}}}
		}
		n, err := accept(s, m)
		if err == nil && i > 3 {
			err = settle(s, delivered(m, n, 0))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	want, err := queued(s, peer)
	if err != nil || len(want) != 4 {
		t.Fatal(len(want), err)
	}
	s.Close()
	if err := sqlite.MigrateDown(t.Context(), path, 1); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	var bodies, size int
	if err := db.QueryRow("SELECT count(body), sum(length(nonce) + length(body)) FROM message").Scan(&bodies, &size); err != nil {
		t.Fatal(err)
	}
	if bodies != 4 || size != 4*24+600 {
		t.Errorf("the first schema holds %d bodies of %d bytes", bodies, size)
	}
	db.Close()
	got, err := queued(open(t, path), peer)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("after the migration: %+v, want %+v, %v", got, want, err)
	}
	if err := sqlite.Check(t.Context(), path); err != nil {
		t.Error(err)
	}
}
