package mailbox

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/pressly/goose/v3"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// oldSchema makes a mailbox as it was before a migration.
func oldSchema(t *testing.T, path, before string, rows ...string) {
	t.Helper()
	files := fstest.MapFS{}
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		base := strings.TrimPrefix(name, "migrations/")
		if base >= before {
			continue
		}
		data, err := migrations.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files[base] = &fstest.MapFile{Data: data}
	}
	if err := createFile(path); err != nil {
		t.Fatal(err)
	}
	db, err := openPool(path, writerQuery, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	p, err := goose.NewProvider(goose.DialectSQLite3, db, files, goose.WithDisableGlobalRegistry(true), goose.WithTableName(versionTable))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		if _, err := db.Exec(row); err != nil {
			t.Fatal(err)
		}
	}
}

// What was unread before there was trust enters as its sender wanted.
func TestMigrateTrust(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "p")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path, ctx := filepath.Join(dir, "m.db"), context.Background()
	row := `INSERT INTO incoming (mesh, recipient, sender_member, sender_session, sender_name, id, mode, target, priority, content_type,
		text, reply_to, replaces, sent, expires, received, seq, offered, read_at, reader) VALUES (zeroblob(16), zeroblob(32), zeroblob(32),
		zeroblob(32), 'bob', randomblob(16), 'dm', 'x', PRIORITY, 'text/plain', 't', zeroblob(16), zeroblob(16), 1, 2, 3, 1, 0, 0, zeroblob(32))`
	oldSchema(t, path, "00003",
		strings.Replace(row, "PRIORITY", "2", 1), strings.Replace(row, "PRIORITY", "0", 1), strings.Replace(row, "PRIORITY", "1", 1))
	box, err := Open(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	msgs, more, err := box.List(ctx, Query{Recipients: []wire.Key{{}}})
	if err != nil || len(msgs) != 3 || more != 0 {
		t.Fatal(len(msgs), more, err)
	}
	for i, m := range msgs {
		if want := wire.Priorities[i]; m.Priority != want || m.Urgency != want || m.Gate != OpenGate || m.Own || m.Hop != 0 {
			t.Errorf("%d: %+v", i, m)
		}
	}
}
