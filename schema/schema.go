// Package schema holds the database schema as goose migrations, one directory
// per dialect. A published migration is never edited; the next one changes it.
package schema

import (
	"embed"
	"io/fs"
)

//go:embed sqlite/*.sql postgres/*.sql
var files embed.FS

// SQLite returns the migrations of the SQLite store.
func SQLite() fs.FS { return dialect("sqlite") }

// Postgres returns the migrations of the Postgres store.
func Postgres() fs.FS { return dialect("postgres") }

func dialect(name string) fs.FS {
	sub, err := fs.Sub(files, name)
	if err != nil {
		panic(err) // the directory is embedded: only a bad name could fail
	}
	return sub
}
