package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/claudemesh/claudemesh/broker"
)

// openTool opens an existing database without its lock, beside a running
// broker, and refuses one that this version does not know.
func openTool(ctx context.Context, path string) (*sql.DB, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	if err := checkHeader(path); err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	db, err := openPool(abs, toolQuery, 1)
	if err != nil {
		return nil, err
	}
	if err := checkKnown(ctx, db); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, opened(err)), db.Close())
	}
	return db, nil
}

// checkKnown refuses what is not a broker's database or is a newer one.
func checkKnown(ctx context.Context, db *sql.DB) error {
	if err := checkVersion(ctx, db); err != nil {
		return err
	}
	tables, err := countTables(ctx, db)
	if err != nil {
		return err
	}
	if tables.version == 0 {
		return fmt.Errorf("%w: it is not a broker's database", ErrCorrupt)
	}
	p, err := provider(db, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	return checkNewer(ctx, db, p)
}

// Backup copies the database at path, which a broker may have open, to the new
// file dest: consistent as of one moment, compact, checked, mode 0600. It
// refuses an existing dest, and leaves none when it fails.
func Backup(ctx context.Context, path, dest string) (err error) {
	if _, err := os.Lstat(dest); err == nil {
		return fmt.Errorf("%s: %w", dest, os.ErrExist)
	}
	db, err := openTool(ctx, path)
	if err != nil {
		return err
	}
	defer db.Close()
	// SQLite copies into an existing file if it is empty; this one is private.
	tmp, err := os.CreateTemp(filepath.Dir(dest), "."+filepath.Base(dest)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	if _, err := db.ExecContext(ctx, "VACUUM INTO ?", tmp.Name()); err != nil {
		return fmt.Errorf("copy %s: %w", path, translate(err))
	}
	if err := Check(ctx, tmp.Name()); err != nil {
		return fmt.Errorf("check the copy: %w", err)
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	// Link, unlike rename, does not replace what came to be there meanwhile.
	if err := os.Link(tmp.Name(), dest); errors.Is(err, os.ErrExist) {
		return err
	} else if err != nil { // a file system without links
		if err := os.Rename(tmp.Name(), dest); err != nil {
			return err
		}
	}
	return syncDir(filepath.Dir(dest))
}

// syncDir makes a new name in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Check reads the whole database at path and returns every problem it finds,
// wrapped in ErrCorrupt. A broker may have it open.
func Check(ctx context.Context, path string) error {
	db, err := openTool(ctx, path)
	if err != nil {
		return err
	}
	defer db.Close()
	problems, err := problems(ctx, db)
	if err != nil {
		return fmt.Errorf("%s: %w", path, opened(translate(err)))
	}
	var errs []error
	for _, p := range problems {
		errs = append(errs, errors.New(p))
	}
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("%s: %w:\n%w", path, ErrCorrupt, errors.Join(errs...))
}

// problemQueries each return a line per problem; "ok" is none.
var problemQueries = []string{
	"PRAGMA integrity_check(1000)",
	`SELECT "table" || ' row ' || coalesce(rowid, '?') || ' refers to a missing row of ' || parent FROM pragma_foreign_key_check`,
	`SELECT 'the queue counters of mesh ' || lower(hex(g.mesh_id)) || ' do not match its queue' FROM mesh g
		LEFT JOIN (SELECT m.mesh, count(*) AS n, sum(d.size) AS bytes FROM delivery d JOIN message m ON m.seq = d.message
			WHERE d.state = 0 GROUP BY m.mesh) q ON q.mesh = g.id
		WHERE g.queued <> coalesce(q.n, 0) OR g.queued_bytes <> coalesce(q.bytes, 0)`,
	`SELECT 'message ' || m.seq || ' has no body but is queued' FROM delivery d JOIN message m ON m.seq = d.message
		WHERE d.state = 0 AND (CASE WHEN m.mode IN (1, 4) THEN d.wrap ELSE m.body END) IS NULL GROUP BY m.seq`,
	`SELECT 'message ' || seq || ' has mode ' || mode FROM message WHERE mode NOT BETWEEN 1 AND 4`,
	`SELECT 'delivery ' || id || ' has state ' || state || ' and priority ' || priority FROM delivery
		WHERE state NOT BETWEEN 0 AND 2 OR priority NOT BETWEEN 0 AND 2`,
	`SELECT 'delivery ' || d.id || ' has no message' FROM delivery d LEFT JOIN message m ON m.seq = d.message WHERE m.seq IS NULL`,
}

func problems(ctx context.Context, db *sql.DB) (found []string, err error) {
	for i, query := range problemQueries {
		rows, err := db.QueryContext(ctx, query)
		if err != nil {
			return found, err
		}
		for rows.Next() {
			var line string
			if err := rows.Scan(&line); err != nil {
				return found, errors.Join(err, rows.Close())
			}
			if line != "ok" {
				found = append(found, line)
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return found, err
		}
		if i == 0 && len(found) > 0 {
			break // what follows reads through the damage
		}
	}
	return found, nil
}

// ResetToken replaces the admin token's hash in the database at path. A running
// broker sees it at once. broker.ErrNotFound before the broker's first start.
func ResetToken(ctx context.Context, path string, hash [32]byte) error {
	db, err := openTool(ctx, path)
	if err != nil {
		return err
	}
	defer db.Close()
	res, err := db.ExecContext(ctx, setTokenQuery, hash[:])
	if err != nil {
		return translate(err)
	}
	n, err := res.RowsAffected()
	if err == nil && n == 0 {
		return broker.ErrNotFound
	}
	return err
}
