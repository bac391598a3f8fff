package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"

	"github.com/pressly/goose/v3"
	lib "modernc.org/sqlite/lib"

	"github.com/claudemesh/claudemesh/schema"
)

// versionTable is where goose keeps the schema version.
const versionTable = "schema_version"

func provider(db *sql.DB, log *slog.Logger) (*goose.Provider, error) {
	return goose.NewProvider(goose.DialectSQLite3, db, schema.SQLite(),
		goose.WithDisableGlobalRegistry(true), goose.WithTableName(versionTable), goose.WithSlog(log))
}

// migrate brings the schema up to date, on the writer and under the lock. It
// refuses what it must not touch: another program's database and a newer schema.
func migrate(ctx context.Context, db *sql.DB, log *slog.Logger) error {
	if err := checkVersion(ctx, db); err != nil {
		return err
	}
	tables, err := countTables(ctx, db)
	if err != nil {
		return err
	}
	if tables.all > 0 && tables.version == 0 {
		return fmt.Errorf("%w: it holds another program's tables", ErrCorrupt)
	}
	p, err := provider(db, log)
	if err != nil {
		return err
	}
	if tables.version > 0 {
		if err := checkNewer(ctx, db, p); err != nil {
			return err
		}
	}
	if _, err := p.Up(ctx); err != nil {
		if partial, ok := errors.AsType[*goose.PartialError](err); ok {
			return fmt.Errorf("migrate to version %d: %w", partial.Failed.Source.Version, unfit(partial.Err))
		}
		return fmt.Errorf("migrate: %w", unfit(err))
	}
	return nil
}

// unfit is translate for migrations: they run on what earlier ones left, so one
// that does not fit met damage.
func unfit(err error) error {
	if e, ok := errors.AsType[coded](err); ok && e.Code()&0xff == lib.SQLITE_ERROR {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return translate(err)
}

type tableCount struct{ all, version int }

// countTables reads the schema, which fails on a file that SQLite cannot read.
func countTables(ctx context.Context, db *sql.DB) (n tableCount, err error) {
	err = db.QueryRowContext(ctx, "SELECT count(*), count(CASE WHEN name = ? THEN 1 END) FROM sqlite_schema WHERE type = 'table'",
		versionTable).Scan(&n.all, &n.version)
	return n, translate(err)
}

// checkNewer refuses a schema that a later version of the broker wrote.
func checkNewer(ctx context.Context, db *sql.DB, p *goose.Provider) error {
	current, known, err := versions(ctx, db, p)
	if err != nil {
		return err
	}
	if current > known {
		return fmt.Errorf("%w: its schema is version %d, this broker knows up to %d; run a newer broker", ErrNewer, current, known)
	}
	return nil
}

// versions returns the version of a schema and the latest that is known. It reads
// the table itself: goose would write one that it fails to read.
func versions(ctx context.Context, db *sql.DB, p *goose.Provider) (current, known int64, err error) {
	err = db.QueryRowContext(ctx, "SELECT coalesce(max(version_id), 0) FROM "+versionTable+" WHERE is_applied = 1").Scan(&current)
	if err != nil {
		return 0, 0, fmt.Errorf("read the schema version: %w", translate(err))
	}
	for _, source := range p.ListSources() {
		known = max(known, source.Version)
	}
	return current, known, nil
}
