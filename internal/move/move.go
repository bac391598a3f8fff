// Package move moves a broker's database between a SQLite file and Postgres, in
// either direction, while no broker runs on it.
//
// Both ends are read and written here, and not in the stores, because what they
// must agree on is one thing: the columns in table.go, which a test holds
// against both schemas. Rows go over in the order of their keys, a batch in each
// transaction, so that a move which was cut off goes on after the last row
// that is there. Until the move has ended a table, moving, stands in the target, on
// which no broker starts. At the end both are read again and compared.
package move

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/claudemesh/claudemesh/internal/postgres"
)

// Errors of Run.
var (
	// ErrInUse means that a broker, or another move, has one of the databases.
	ErrInUse = errors.New("the database is in use")
	// ErrNotEmpty means that the target holds something else than the beginning of this move.
	ErrNotEmpty = errors.New("the target is not empty")
	// ErrDiffers means that source and target do not hold the same.
	ErrDiffers = errors.New("source and target differ")
)

// A batch is what one transaction writes.
const (
	batchRows  = 2000
	batchBytes = 8 << 20
)

// Options configure a move. The zero value works.
type Options struct {
	DryRun   bool           // look, and change nothing
	Progress func(Progress) // is told after each batch; nil is not

	batch int // rows; for tests
}

// Progress is how far a move is.
type Progress struct {
	Phase       string // moving, then verifying
	Table       string
	Done, Total int64 // rows, of all tables
}

// Report is what a move did, or with DryRun would do.
type Report struct {
	Bytes  int64   `json:"bytes"` // the source's size on its disk
	Found  int64   `json:"found"` // rows that an earlier, unfinished move had brought over
	Moved  int64   `json:"moved"` // rows that this one did
	Tables []Table `json:"tables"`
}

// Table is what a report says of one table.
type Table struct {
	Name string `json:"table"`
	Rows int64  `json:"rows"`
	// SHA256 is that of all rows in the order of their keys, in a form that is
	// the same for both dialects (see row.encode); empty for a dry run.
	SHA256 string `json:"sha256,omitempty"`
}

// end is one of the two databases.
type end interface {
	// rows yields the rows of a table whose keys are above after, in their order.
	// An error is the last it yields.
	rows(ctx context.Context, t *table, after []any) iter.Seq2[row, error]
	count(ctx context.Context, t *table) (int64, error)
	bytes(ctx context.Context) (int64, error) // on disk
	close() error
}

// target is the end that is written.
type target interface {
	end
	// moving returns the source of the move that has begun and not ended, or "".
	moving(ctx context.Context) (source string, err error)
	begin(ctx context.Context, source string) error
	// last returns the key of a table's last row, or one below all.
	last(ctx context.Context, t *table) (key []any, err error)
	// insert adds rows in a transaction. Of number it sets what is there.
	insert(ctx context.Context, t *table, rows []row) error
	finish(ctx context.Context) error
}

// Run moves what the database from holds to the database to. Each is the path
// of a SQLite file or a Postgres URL. The source is not changed. A move that
// was cut off goes on when it is run again. ErrInUse, ErrNotEmpty, ErrDiffers.
func Run(ctx context.Context, from, to string, o Options) (r Report, err error) {
	if o.batch == 0 {
		o.batch = batchRows
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	src, err := openSource(ctx, from)
	if err != nil {
		return r, fmt.Errorf("the source: %w", err)
	}
	defer closing(src, &err)
	dst, err := openTarget(ctx, to, o.DryRun)
	if err != nil {
		return r, fmt.Errorf("the target: %w", err)
	}
	if dst != nil {
		defer closing(dst, &err)
	}
	m := &mover{from: src, to: dst, opts: o}
	err = m.run(ctx)
	return m.report, err
}

func closing(e end, err *error) { *err = errors.Join(*err, e.close()) }

func openSource(ctx context.Context, db string) (end, error) {
	if postgres.IsURL(db) {
		return openPGSource(ctx, db)
	}
	return openLite(ctx, db)
}

// openTarget returns nil for a dry run when there is nothing yet.
func openTarget(ctx context.Context, db string, dry bool) (target, error) {
	if postgres.IsURL(db) {
		p, err := openPGTarget(ctx, db, dry)
		if p == nil {
			return nil, err
		}
		return p, err
	}
	l, err := openLiteTarget(ctx, db, dry)
	if l == nil {
		return nil, err
	}
	return l, err
}

// mover is a move.
type mover struct {
	from   end
	to     target // nil for a dry run to where nothing is
	opts   Options
	report Report

	done, total int64
}

func (m *mover) run(ctx context.Context) (err error) {
	var source string
	if source, m.report.Tables, err = describe(ctx, m.from); err != nil {
		return fmt.Errorf("the source: %w", err)
	}
	if m.report.Bytes, err = m.from.bytes(ctx); err != nil {
		return err
	}
	for _, t := range m.report.Tables {
		m.total += t.Rows
	}
	if m.to == nil {
		return nil
	}
	if err := m.begin(ctx, source); err != nil || m.opts.DryRun {
		return err
	}
	m.done = m.report.Found
	for _, t := range tables {
		if err := m.copy(ctx, t); err != nil {
			return fmt.Errorf("table %s: %w", t.name, err)
		}
	}
	m.done = 0
	for i, t := range tables {
		err := m.verify(ctx, t, &m.report.Tables[i])
		if errors.Is(err, ErrDiffers) && m.report.Found > 0 {
			err = fmt.Errorf("%w; if the source was used since the move began, begin with an empty target", err)
		}
		if err != nil {
			return fmt.Errorf("table %s: %w", t.name, err)
		}
	}
	return m.to.finish(ctx)
}

// describe counts what a database holds and makes of it, and of the broker's
// public key, a text by which a move knows its source again.
func describe(ctx context.Context, e end) (text string, found []Table, err error) {
	var parts []string
	for r, err := range e.rows(ctx, tables[0], tables[0].start()) {
		if err != nil {
			return "", nil, err
		}
		seed, ok := r[1].([]byte)
		if !ok || len(seed) != ed25519.SeedSize {
			return "", nil, fmt.Errorf("%w: the broker has no key", errDamaged)
		}
		parts = append(parts, hex.EncodeToString(ed25519.NewKeyFromSeed(seed)[ed25519.SeedSize:]))
	}
	for _, t := range tables {
		n, err := e.count(ctx, t)
		if err != nil {
			return "", nil, err
		}
		found = append(found, Table{Name: t.name, Rows: n})
		parts = append(parts, fmt.Sprintf("%s=%d", t.name, n))
	}
	return strings.Join(parts, " "), found, nil
}

// begin marks the target, unless it is marked, or holds all of the source: then
// a move was cut off at its end.
func (m *mover) begin(ctx context.Context, source string) error {
	there, found, err := describe(ctx, m.to)
	if err != nil {
		return fmt.Errorf("the target: %w", err)
	}
	for _, t := range found {
		if t.Name != number.name {
			m.report.Found += t.Rows
		}
	}
	marked, err := m.to.moving(ctx)
	switch {
	case err != nil:
		return err
	case marked == source, m.report.Found > 0 && there == source:
		return nil
	case marked != "":
		return fmt.Errorf("%w: a move of another database into it, or of this one as it was before, has not ended; begin with an empty database, or remove the .moving file", ErrNotEmpty)
	case m.report.Found > 0:
		return fmt.Errorf("%w: it is a broker's database already", ErrNotEmpty)
	case m.opts.DryRun:
		return nil
	}
	return m.to.begin(ctx, source)
}

// copy brings over the rows of a table that are not there yet.
func (m *mover) copy(ctx context.Context, t *table) error {
	after, err := m.to.last(ctx, t)
	if err != nil {
		return err
	}
	var batch []row
	size := 0
	flush := func() error {
		if err := m.to.insert(ctx, t, batch); err != nil {
			return err
		}
		m.report.Moved += int64(len(batch))
		m.tell("moving", t, int64(len(batch)))
		batch, size = batch[:0], 0
		return ctx.Err()
	}
	for r, err := range m.from.rows(ctx, t, after) {
		if err != nil {
			return err
		}
		batch, size = append(batch, r), size+r.size()
		if len(batch) == m.opts.batch || size >= batchBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if len(batch) == 0 {
		return nil
	}
	return flush()
}

// tell counts rows and tells how far the move is.
func (m *mover) tell(phase string, t *table, n int64) {
	m.done += n
	m.opts.Progress(Progress{Phase: phase, Table: t.name, Done: m.done, Total: m.total})
}
