package postgres

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/claudemesh/claudemesh/schema"
)

// versionTable is where goose keeps the schema version.
const versionTable = "schema_version"

// migrate brings the schema up to date under an advisory lock: of several
// brokers that start at once one migrates and the others wait for it.
func migrate(ctx context.Context, cfg *pgx.ConnConfig, log *slog.Logger) error {
	cfg = cfg.Copy()
	cfg.RuntimeParams["statement_timeout"] = "0"
	cfg.RuntimeParams["idle_in_transaction_session_timeout"] = "0"
	db := stdlib.OpenDB(*cfg)
	defer db.Close()
	// Every second, for five minutes: a migration of large tables takes its time.
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300))
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, schema.Postgres(),
		goose.WithDisableGlobalRegistry(true), goose.WithTableName(versionTable), goose.WithSlog(log), goose.WithSessionLocker(locker))
	if err != nil {
		return err
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	current, known, err := p.GetVersions(ctx)
	if err != nil {
		return err
	}
	if current > known {
		return fmt.Errorf("%w: its schema is version %d, this broker knows up to %d; run a newer broker", ErrNewer, current, known)
	}
	return nil
}
