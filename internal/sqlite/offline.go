package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
)

// MovingSuffix goes onto the name of a database while it is moved into a file:
// the file gets its name when it is whole.
const MovingSuffix = ".moving"

// Errors of moving a database.
var (
	// ErrMoving means that a move into the database has begun and not ended.
	ErrMoving = errors.New("a move into the database has not ended; " +
		"give the same migrate command again, or remove the " + MovingSuffix + " file")
	// ErrOlder means that an older version of the broker wrote the database.
	ErrOlder = errors.New("database is older than this broker")
)

// offlineQuery reads and leaves the file as it is: not even its WAL is folded in.
const offlineQuery = "mode=ro&_busy_timeout=5000&_dqs=0&_query_only=1"

// arrivalQuery writes many rows. A power cut may take the last commits and
// damages nothing; Publish makes all of them durable.
const arrivalQuery = "_busy_timeout=5000&_journal_mode=WAL&_synchronous=NORMAL&_foreign_keys=ON&_dqs=0&_txlock=immediate" +
	"&_pragma=page_size(8192)&_pragma=temp_store(MEMORY)&_pragma=cache_size(-32768)"

// Offline is a database that no broker has open or can open until Close.
type Offline struct {
	DB   *sql.DB
	lock *flock.Flock
	file string // a new one's name until Publish
	path string
}

// OpenOffline opens an existing database of this version for reading alone.
// ErrLocked, ErrMoving, ErrNewer, ErrOlder, ErrCorrupt.
func OpenOffline(ctx context.Context, path string) (_ *Offline, err error) {
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return nil, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	o := &Offline{path: path}
	if o.lock, err = takeLock(path); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.Close())
		}
	}()
	if err := checkHeader(path); err != nil {
		return nil, err
	}
	if o.DB, err = openPool(path, offlineQuery, 1); err != nil {
		return nil, err
	}
	if err := checkCurrent(ctx, o.DB); err != nil {
		return nil, fmt.Errorf("%s: %w", path, opened(translate(err)))
	}
	return o, nil
}

// checkCurrent refuses what is not a whole database of this version.
func checkCurrent(ctx context.Context, db *sql.DB) error {
	if err := checkKnown(ctx, db); err != nil {
		return err
	}
	if err := checkMoving(ctx, db); err != nil {
		return err
	}
	p, err := provider(db, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	current, known, err := versions(ctx, db, p)
	if err == nil && current < known {
		err = fmt.Errorf("%w: its schema is version %d of %d; start this broker on it once, and stop it", ErrOlder, current, known)
	}
	return err
}

// CreateOffline makes a database that will be at path once Publish is called, or
// opens what an earlier call began. No broker can be started on path meanwhile.
// fs.ErrExist when there is a file at path, ErrLocked.
func CreateOffline(ctx context.Context, path string) (_ *Offline, err error) {
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	path = filepath.Join(dir, filepath.Base(path))
	o := &Offline{path: path, file: path + MovingSuffix}
	if o.lock, err = takeLock(path); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.Close())
		}
	}()
	if _, err := os.Lstat(path); err == nil {
		return nil, fmt.Errorf("%s: %w", path, fs.ErrExist)
	}
	if _, err := createFile(o.file); err != nil {
		return nil, err
	}
	if err := checkHeader(o.file); err != nil {
		return nil, err
	}
	if o.DB, err = openPool(o.file, arrivalQuery, 1); err != nil {
		return nil, err
	}
	if err := migrate(ctx, o.DB, slog.New(slog.DiscardHandler)); err != nil {
		return nil, fmt.Errorf("%s: %w", o.file, err)
	}
	return o, nil
}

// Publish makes what was written durable and gives the database its name. It
// can only be closed then.
func (o *Offline) Publish(ctx context.Context) error {
	if _, err := o.DB.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		return translate(err)
	}
	if err := o.DB.Close(); err != nil {
		return translate(err)
	}
	o.DB = nil
	if err := syncFile(o.file); err != nil {
		return err
	}
	if err := os.Rename(o.file, o.path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(o.path))
}

// Close closes the database and lets others open it.
func (o *Offline) Close() error {
	var err error
	if o.DB != nil {
		err = o.DB.Close()
	}
	return errors.Join(err, o.lock.Close())
}

// checkMoving refuses a database that a move has not filled yet.
func checkMoving(ctx context.Context, db *sql.DB) error {
	var moving bool
	err := db.QueryRowContext(ctx, "SELECT count(*) > 0 FROM sqlite_schema WHERE name = 'moving'").Scan(&moving)
	if err == nil && moving {
		err = ErrMoving
	}
	return translate(err)
}

// syncFile makes a file durable.
func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
