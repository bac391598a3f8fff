// Package sqlite is the broker's store in one SQLite file.
//
// One goroutine owns the only connection that writes. Work is appended to a
// slice in memory; the writer takes all of it, runs it in one transaction and
// commits with fsync, so the work that arrives during one commit shares the
// next: group commit without a timer. Reads use a pool of their own and see
// every commit whose callers were told of it.
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
	"sync"
	"sync/atomic"

	"github.com/gofrs/flock"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/prepared"
)

// Errors of Open, Check and Backup.
var (
	// ErrNewer means that a newer version of the broker wrote the database.
	ErrNewer = errors.New("database is newer than this broker")
	// ErrLocked means that another broker has the database open.
	ErrLocked = errors.New("another broker has the database open")
	// ErrCorrupt means that the file is damaged or was never a broker's database.
	ErrCorrupt = errors.New("database is damaged")
)

// readers is the size of the read pool.
const readers = 4

// Options configure a Store. The zero value works.
type Options struct {
	// Logger hears of storage faults; nil discards.
	Logger *slog.Logger
	// OnFatal is called when an fsync failed: what the kernel has written is then
	// unknown, so the process must end and recover from the file. nil panics.
	OnFatal func(error)

	query string // goes onto every connection's data source name; for tests
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.OnFatal == nil {
		o.OnFatal = func(err error) { panic(fmt.Errorf("sqlite: fsync failed: %w", err)) }
	}
	return o
}

// Store is a broker.Store in one SQLite file.
type Store struct {
	lock    *flock.Flock
	readDB  *sql.DB
	reads   *prepared.Readers
	writeDB *sql.DB
	w       *writer
	closed  atomic.Bool
	close   sync.Once
	closeEr error

	oldest atomic.Int64 // no delivery below it is queued; see Stats
}

var _ broker.Store = (*Store)(nil)

// Open opens the database at path, creating it with mode 0600 when there is
// none, and brings its schema up to date. ErrLocked, ErrNewer, ErrCorrupt, ErrMoving.
func Open(ctx context.Context, path string, opts Options) (_ *Store, err error) {
	opts = opts.withDefaults()
	if path, err = ensureFile(path); err != nil {
		return nil, err
	}
	s := new(Store)
	if s.lock, err = takeLock(path); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	if err := checkHeader(path); err != nil {
		return nil, opened(err)
	}
	if s.writeDB, err = openPool(path, writerQuery+opts.query, 1); err != nil {
		return nil, err
	}
	if err := checkMoving(ctx, s.writeDB); err != nil {
		return nil, fmt.Errorf("%s: %w", path, opened(err))
	}
	if err := migrate(ctx, s.writeDB, opts.Logger); err != nil {
		return nil, fmt.Errorf("%s: %w", path, opened(err))
	}
	if s.readDB, err = openPool(path, readerQuery+opts.query, readers); err != nil {
		return nil, err
	}
	s.reads = prepared.NewReaders(s.readDB, readers)
	if s.w, err = startWriter(ctx, s.writeDB, opts); err != nil {
		return nil, fmt.Errorf("%s: %w", path, opened(err))
	}
	return s, nil
}

// takeLock takes the lock of the database at path, whose name is free of
// symbolic links. ErrLocked.
func takeLock(path string) (*flock.Flock, error) {
	lock := flock.New(path+".lock", flock.SetPermissions(0o600))
	ok, err := lock.TryLock()
	if err == nil && ok {
		return lock, nil
	}
	if err == nil {
		err = ErrLocked
	}
	return nil, errors.Join(fmt.Errorf("%s: %w", path, err), lock.Close())
}

// ensureFile is createFile, unless a move is to make the file.
func ensureFile(path string) (string, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(path + MovingSuffix); err == nil {
			return "", fmt.Errorf("%s: %w", path, ErrMoving)
		}
	}
	return createFile(path)
}

// createFile creates the database file, so that it (and with it the WAL, which
// takes its mode) is private, and returns its path free of symbolic links, so
// that one database has one lock.
func createFile(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", err
	}
	if err := f.Close(); err != nil {
		return "", err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

// opened adds the way out to an error that a damaged file causes.
func opened(err error) error {
	if errors.Is(err, ErrCorrupt) {
		return fmt.Errorf("%w; restore the latest backup, or move the file away to start anew", err)
	}
	return err
}

// Close commits what was accepted and closes the database.
func (s *Store) Close() error {
	s.close.Do(func() {
		s.w.stop()
		s.closed.Store(true)
		s.closeEr = s.release()
	})
	return s.closeEr
}

// release closes whatever is open; the writer's connection goes last among the
// databases so that it is the one to fold the WAL into the file.
func (s *Store) release() error {
	var errs []error
	if s.readDB != nil {
		errs = append(errs, s.reads.Close(), s.readDB.Close())
	}
	if s.writeDB != nil {
		errs = append(errs, s.writeDB.Close())
	}
	return errors.Join(append(errs, s.lock.Close())...)
}

// readErr translates an error of the read pool.
func (s *Store) readErr(err error) error {
	if err == nil || errors.Is(err, broker.ErrNotFound) {
		return err
	}
	if s.closed.Load() {
		return broker.ErrClosed
	}
	if errors.Is(err, sql.ErrNoRows) {
		return broker.ErrNotFound
	}
	return translate(err)
}
