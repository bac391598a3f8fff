package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// TestDatabaseNames: a file and a URL are told apart, and no password is shown.
func TestDatabaseNames(t *testing.T) {
	t.Parallel()
	for db, shown := range map[string]string{
		"mesh.db":                          "mesh.db",
		"/var/lib/mesh:1.db":               "/var/lib/mesh:1.db",
		"postgres://a:hush@db.example/m":   "postgres://db.example/m",
		"postgresql://db.example:5433/m":   "postgres://db.example:5433/m",
		"postgres:///m?host=/run/pg":       "postgres:///run/pg/m",
		"postgres://db/m?password=hush":    "postgres://db/m",
		"postgres://a:hu%zzsh@db.example/": "postgres",
	} {
		d, err := parseDatabase("--db", db)
		if err != nil || d.String() != shown {
			t.Errorf("%s: shown as %q, %v; want %q", db, d, err, shown)
		}
	}
	if _, err := parseDatabase("--db", "mysql://db/m"); !errors.Is(err, errUsage) {
		t.Errorf("another scheme: %v", err)
	}
}

// TestDatabaseFile: a URL in a file is taken beside an empty --db, and not beside another.
func TestDatabaseFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "database-url")
	if err := os.WriteFile(path, []byte("postgres://127.0.0.1:1/m?connect_timeout=1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for db, usage := range map[string]bool{"": false, "mesh.db": true} {
		t.Setenv("CLAUDEMESH_BROKER_DB", db)
		err := command(io.Discard, io.Discard).Run(t.Context(), []string{"claudemesh-broker", "schema", "--db-file", path})
		if err == nil || errors.Is(err, errUsage) != usage {
			t.Errorf("beside %q: %v", db, err)
		}
	}
}
