package mailbox

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

//go:embed migrations/*.sql
var migrations embed.FS

// versionTable is where goose keeps the schema version.
const versionTable = "schema_version"

// The settings of every connection. The busy timeout is long because each
// holder of the lock fsyncs and several processes may stand in line. The
// _pragma list runs before journal_mode, and so the page size is set before
// the journal mode writes a new file's first page.
const (
	commonQuery = "_busy_timeout=10000&_journal_mode=WAL&_synchronous=FULL&_foreign_keys=ON&_dqs=0" +
		"&_pragma=page_size(8192)&_pragma=temp_store(MEMORY)"
	writerQuery = commonQuery + "&_txlock=immediate"
	readerQuery = commonQuery + "&_query_only=1"
)

// openPool opens a pool in the file: form, since SQLite would strip the query
// from a plain path.
func openPool(path, query string, conns int) (*sql.DB, error) {
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") { // C:/...
		path = "/" + path
	}
	u := url.URL{Scheme: "file", OmitHost: true, Path: path}
	db, err := sql.Open("sqlite", u.String()+"?"+query)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// migrate brings the schema up to date, on the writer and under the lock. It
// refuses what it must not touch: another program's database and a newer schema.
func migrate(ctx context.Context, db *sql.DB) error {
	var all, ours int
	err := db.QueryRowContext(ctx, "SELECT count(*), count(CASE WHEN name = ? THEN 1 END) FROM sqlite_schema WHERE type = 'table'",
		versionTable).Scan(&all, &ours)
	if err != nil {
		return translate(err)
	}
	if all > 0 && ours == 0 {
		return fmt.Errorf("%w: it holds another program's tables", ErrCorrupt)
	}
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, files,
		goose.WithDisableGlobalRegistry(true), goose.WithTableName(versionTable))
	if err != nil {
		return err
	}
	current, target, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read the schema version: %w", translate(err))
	}
	if current > target {
		return fmt.Errorf("%w: its schema is version %d, this one knows up to %d; update claudemesh and start it again", ErrNewer, current, target)
	}
	if current == target {
		return nil
	}
	if _, err := p.Up(ctx); err != nil {
		if partial, ok := errors.AsType[*goose.PartialError](err); ok {
			err = partial.Err
		}
		return fmt.Errorf("migrate: %w", translate(err))
	}
	return nil
}

// translate gives a driver error the meaning it has to callers.
func translate(err error) error {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return err
	}
	switch e.Code() & 0xff {
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB:
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	case lib.SQLITE_FULL:
		return fmt.Errorf("the disk is full: %w", err)
	case lib.SQLITE_BUSY:
		return fmt.Errorf("another process holds the mailbox: %w", err)
	}
	return err
}

// isFatal reports whether the kernel failed to bring data to the disk. The page
// cache then no longer holds what the file does.
func isFatal(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && (e.Code() == lib.SQLITE_IOERR_FSYNC || e.Code() == lib.SQLITE_IOERR_DIR_FSYNC)
}
