package mailbox

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"github.com/claudemesh/claudemesh/internal/prepared"
)

// readers is the size of the read pool, beside the connection of the poller.
const readers = 3

// lockRetry is how often a process that waits for another to finish Open looks again.
const lockRetry = 10 * time.Millisecond

// disk is the Mailbox in a SQLite file.
type disk struct {
	path    string
	id      string
	w       *writer
	writeDB *sql.DB
	readDB  *sql.DB
	reads   *prepared.Readers
	hub     hub
	poll    *poller

	mu     sync.Mutex
	closed bool
}

var _ Mailbox = (*disk)(nil)

// Open opens the mailbox at path, which several processes may share, and
// creates it with mode 0600 if there is none. The directory must exist and,
// like the file, be open to its owner only. ErrNewer, ErrCorrupt.
func Open(ctx context.Context, path string) (_ Mailbox, err error) {
	path, err = resolve(path)
	if err != nil {
		return nil, err
	}
	if err := checkPrivate(filepath.Dir(path)); err != nil {
		return nil, err
	}
	// Processes that start at once take turns: SQLite's own locks do not cover
	// making the file, switching it to WAL and reading the version to migrate from.
	lock := flock.New(path+".lock", flock.SetFlag(lockFlags), flock.SetPermissions(0o600))
	if _, err := lock.TryLockContext(ctx, lockRetry); err != nil {
		return nil, fmt.Errorf("lock %s: %w", lock.Path(), err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := createFile(path); err != nil {
		return nil, err
	}
	d := &disk{path: path}
	if err := d.open(ctx); err != nil {
		return nil, explain(path, errors.Join(err, d.release()))
	}
	return d, nil
}

func (d *disk) open(ctx context.Context) (err error) {
	if err := checkHeader(d.path); err != nil {
		return err
	}
	if d.writeDB, err = openPool(d.path, writerQuery, 1); err != nil {
		return err
	}
	if err := migrate(ctx, d.writeDB); err != nil {
		return err
	}
	if d.readDB, err = openPool(d.path, readerQuery, readers+1); err != nil {
		return err
	}
	d.reads = prepared.NewReaders(d.readDB, readers)
	if d.w, err = newWriter(ctx, d.writeDB); err != nil {
		return translate(err)
	}
	err = d.write(ctx, func(t *tx) (bool, error) {
		if _, err := t.exec("INSERT INTO meta (one, id) VALUES (1, ?) ON CONFLICT DO NOTHING", newID()); err != nil {
			return false, err
		}
		return false, t.get("SELECT id FROM meta WHERE one = 1", nil, &d.id)
	})
	if err != nil {
		return err
	}
	d.poll, err = newPoller(ctx, d.readDB, &d.hub)
	return translate(err)
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// ID returns the id that was drawn when the file was made.
func (d *disk) ID() string { return d.id }

// Watch returns a channel of hints.
func (d *disk) Watch(ctx context.Context) <-chan struct{} {
	ch := d.hub.add(ctx)
	d.poll.wake()
	return ch
}

// WatchClosely returns a channel of early hints.
func (d *disk) WatchClosely(ctx context.Context) <-chan struct{} {
	d.poll.close.Add(1)
	context.AfterFunc(ctx, func() { d.poll.close.Add(-1) })
	return d.Watch(ctx)
}

// Close waits for the write that is under way and closes the file.
func (d *disk) Close() error {
	d.mu.Lock()
	was := d.closed
	d.closed = true
	d.mu.Unlock()
	if was {
		return nil
	}
	return d.release()
}

func (d *disk) isClosed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

// release closes whatever is open, the writer last so that it folds the WAL
// into the file if no other process has it open.
func (d *disk) release() error {
	var errs []error
	if d.poll != nil {
		errs = append(errs, d.poll.stop())
	}
	if d.readDB != nil {
		errs = append(errs, d.reads.Close(), d.readDB.Close())
	}
	if d.w != nil {
		errs = append(errs, d.w.close())
	}
	if d.writeDB != nil {
		errs = append(errs, d.writeDB.Close())
	}
	return errors.Join(errs...)
}

// write runs do in one transaction and hints at the watchers if do says that it
// changed something.
func (d *disk) write(ctx context.Context, do func(*tx) (changed bool, err error)) error {
	if d.isClosed() {
		return ErrClosed
	}
	changed, err := d.w.run(ctx, do)
	if err != nil {
		return translate(err)
	}
	if changed {
		d.hub.notify()
	}
	return nil
}

// read runs do on one snapshot. As in a write, the context counts while waiting
// for a turn: to watch it costs more than most queries.
func (d *disk) read(ctx context.Context, do func(*tx) error) error {
	if d.isClosed() {
		return ErrClosed
	}
	err := d.reads.Snapshot(ctx, func(c *prepared.Conn) error {
		return do(&tx{ctx: context.WithoutCancel(ctx), conn: c})
	})
	if errors.Is(err, prepared.ErrClosed) {
		return ErrClosed
	}
	return translate(err)
}
