package move

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"strings"

	"github.com/claudemesh/claudemesh/internal/sqlite"
)

// lite is an end of a move in a SQLite file.
type lite struct {
	*sqlite.Offline
	path string
}

var _ target = (*lite)(nil)

func openLite(ctx context.Context, path string) (*lite, error) {
	o, err := sqlite.OpenOffline(ctx, path)
	if err != nil {
		return nil, offline(err)
	}
	return &lite{o, path}, nil
}

// openLiteTarget returns nil for a dry run when there is nothing yet.
func openLiteTarget(ctx context.Context, path string, dry bool) (*lite, error) {
	if dry {
		if _, err := os.Lstat(path); err == nil {
			return nil, fmt.Errorf("%s: %w", path, fs.ErrExist)
		}
		if _, err := os.Lstat(path + sqlite.MovingSuffix); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
	}
	o, err := sqlite.CreateOffline(ctx, path)
	if err != nil {
		return nil, offline(err)
	}
	return &lite{o, path + sqlite.MovingSuffix}, nil
}

// offline says what to do when the database is in use.
func offline(err error) error {
	if errors.Is(err, sqlite.ErrLocked) {
		return fmt.Errorf("%w: %w; stop it first", ErrInUse, err)
	}
	return err
}

func (l *lite) close() error { return l.Close() }

// liteRows are the queries that are not just the columns of a table.
var liteRows = map[*table]string{
	delivery: `SELECT d.id, d.message, d.recipient, iif(d.state = 0, d.priority, 0), d.state, d.code,
		iif(d.state = 0, d.attempts, 0), d.at, d.size, d.wrap, m.mode, m.expires
		FROM delivery d NOT INDEXED LEFT JOIN message m ON m.seq = d.message WHERE d.id > ? ORDER BY d.id`,
	number: `SELECT id, next FROM (
		SELECT 1 AS id, max(next, (SELECT coalesce(max(id), 0) + 1 FROM delivery),
			(SELECT coalesce(max(seq), 0) + 1 FROM message)) AS next FROM counter
		UNION ALL SELECT 2, 1 + max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'peer'), 0),
			coalesce((SELECT max(id) FROM peer), 0))) WHERE id > ? ORDER BY id`,
}

func (l *lite) rows(ctx context.Context, t *table, after []any) iter.Seq2[row, error] {
	query, ok := liteRows[t]
	if !ok {
		keys := strings.Join(t.columns[:t.keys], ", ")
		query = fmt.Sprintf("SELECT %s FROM %s WHERE (%s) > (%s) ORDER BY %s", strings.Join(t.columns, ", "), t.name,
			keys, marks(t.keys), keys)
	}
	return func(yield func(row, error) bool) {
		rows, err := l.DB.QueryContext(ctx, query, after...)
		if err != nil {
			yield(nil, err)
			return
		}
		defer rows.Close()
		places := make([]any, len(t.columns))
		for rows.Next() {
			r := make(row, len(t.columns))
			for i := range r {
				places[i] = &r[i]
			}
			err := rows.Scan(places...)
			if err == nil {
				err = t.check(r)
			}
			if !yield(present(r), err) || err != nil {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(nil, err)
		}
	}
}

// present makes empty bytes of those that the driver read as nil ones: no bytes
// are not NULL.
func present(r row) row {
	for i, v := range r {
		if b, ok := v.([]byte); ok && b == nil {
			r[i] = []byte{}
		}
	}
	return r
}

func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?, ", n), ", ") }

func (l *lite) count(ctx context.Context, t *table) (n int64, err error) {
	if t == number {
		return 2, nil
	}
	err = l.DB.QueryRowContext(ctx, "SELECT count(*) FROM "+t.name).Scan(&n)
	return n, err
}

// bytes is the size of the file and of what waits to be folded into it.
func (l *lite) bytes(context.Context) (n int64, err error) {
	for _, name := range []string{l.path, l.path + "-wal"} {
		info, err := os.Stat(name)
		if errors.Is(err, fs.ErrNotExist) && name != l.path {
			continue
		}
		if err != nil {
			return 0, err
		}
		n += info.Size()
	}
	return n, nil
}

func (l *lite) moving(ctx context.Context) (source string, err error) {
	var there bool
	err = l.DB.QueryRowContext(ctx, "SELECT count(*) > 0 FROM sqlite_schema WHERE name = 'moving'").Scan(&there)
	if err == nil && there {
		err = l.DB.QueryRowContext(ctx, "SELECT source FROM moving").Scan(&source)
	}
	return source, err
}

func (l *lite) begin(ctx context.Context, source string) error {
	return l.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "CREATE TABLE moving (source TEXT NOT NULL) STRICT"); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "INSERT INTO moving (source) VALUES (?)", source)
		return err
	})
}

func (l *lite) last(ctx context.Context, t *table) ([]any, error) {
	key := t.start()
	if t == number {
		return key, nil
	}
	places := make([]any, t.keys)
	for i := range key {
		places[i] = &key[i]
	}
	keys := t.columns[:t.keys]
	err := l.DB.QueryRowContext(ctx, fmt.Sprintf("SELECT %s FROM %s ORDER BY %s DESC LIMIT 1",
		strings.Join(keys, ", "), t.name, strings.Join(keys, " DESC, "))).Scan(places...)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return key, err
}

func (l *lite) insert(ctx context.Context, t *table, rows []row) error {
	if t == number {
		return l.setNumbers(ctx, rows)
	}
	columns := t.columns
	if t == delivery {
		columns = columns[:deliveryMode] // the rest is the message's
	}
	return l.tx(ctx, func(tx *sql.Tx) error {
		st, err := tx.PrepareContext(ctx, fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s)", t.name, strings.Join(columns, ", "), marks(len(columns))))
		if err != nil {
			return err
		}
		defer st.Close()
		for _, r := range rows {
			if _, err := st.ExecContext(ctx, r[:len(columns)]...); err != nil {
				return fmt.Errorf("row %s: %w", keyText(t.key(r)), err)
			}
		}
		return nil
	})
}

func (l *lite) setNumbers(ctx context.Context, rows []row) error {
	return l.tx(ctx, func(tx *sql.Tx) error {
		for _, r := range rows {
			next := r[1].(int64)
			if r[0] == nextDelivery {
				if _, err := tx.ExecContext(ctx, "UPDATE counter SET next = ?", next); err != nil {
					return err
				}
				continue
			}
			if _, err := tx.ExecContext(ctx, "DELETE FROM sqlite_sequence WHERE name = 'peer'"); err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, "INSERT INTO sqlite_sequence (name, seq) VALUES ('peer', ?)", next-1); err != nil {
				return err
			}
		}
		return nil
	})
}

func (l *lite) tx(ctx context.Context, run func(tx *sql.Tx) error) error {
	tx, err := l.DB.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := run(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

func (l *lite) finish(ctx context.Context) error {
	if _, err := l.DB.ExecContext(ctx, "DROP TABLE IF EXISTS moving"); err != nil {
		return err
	}
	return l.Publish(ctx)
}
