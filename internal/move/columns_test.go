package move_test

import (
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/claudemesh/claudemesh/internal/move"
	"github.com/claudemesh/claudemesh/internal/pgtest"
)

// Every column of both schemas is moved, but for what is not a broker's to keep.
func TestColumns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mesh.db")
	if err := openStore(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var there []string
	rows, err := db.Query(`SELECT t.name || '.' || c.name FROM sqlite_schema t JOIN pragma_table_info(t.name) c
		WHERE t.type = 'table' AND t.name NOT IN ('counter', 'schema_version', 'sqlite_sequence')`)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		there = append(there, name)
	}
	sameColumns(t, there, move.Columns())

	conn, err := pgx.Connect(bg, pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(bg)
	found, err := conn.Query(bg, `SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = 'public'
		AND table_name NOT IN ('schema_version', 'node', 'presence')
		AND (table_name, column_name) NOT IN (('peer', 'changed'), ('outcome', 'settled'))`)
	if err != nil {
		t.Fatal(err)
	}
	if there, err = pgx.CollectRows(found, pgx.RowTo[string]); err != nil {
		t.Fatal(err)
	}
	sameColumns(t, there, move.PostgresColumns())
}

func sameColumns(t *testing.T, there []string, moved map[string][]string) {
	t.Helper()
	left := make(map[string]bool)
	for _, name := range there {
		left[name] = true
	}
	for table, columns := range moved {
		for _, c := range columns {
			if !left[table+"."+c] {
				t.Errorf("%s.%s is moved and in no schema", table, c)
			}
			delete(left, table+"."+c)
		}
	}
	for name := range left {
		t.Errorf("%s is not moved", name)
	}
}
