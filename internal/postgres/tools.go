package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/schema"
)

// Errors of the tools.
var (
	// ErrNoSchema means that no broker was ever started on the database.
	ErrNoSchema = errors.New("it is not a broker's database")
	// ErrOlder means that an older version of the broker wrote the database.
	ErrOlder = errors.New("database is older than this broker")
	// ErrCorrupt means that rows of the database contradict one another.
	ErrCorrupt = errors.New("database is damaged")
	// ErrMoving means that a move into the database has begun and not ended.
	ErrMoving = errors.New("a move into the database has not ended; give the same migrate command again, or begin with an empty database")
)

// toolConfig is the configuration of a connection for tools: it takes its time.
func toolConfig(url string) (*pgx.ConnConfig, error) {
	cfg, err := poolConfig(url, Options{}.withDefaults())
	if err != nil {
		return nil, err
	}
	p := cfg.ConnConfig.RuntimeParams
	p["statement_timeout"], p["idle_in_transaction_session_timeout"] = "0", "0"
	return cfg.ConnConfig, nil
}

// Connect opens a connection beside running brokers, to a database of this
// version. ErrNoSchema, ErrNewer, ErrOlder.
func Connect(ctx context.Context, url string) (*pgx.Conn, error) {
	cfg, err := toolConfig(url)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := checkVersion(ctx, conn); err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	return conn, nil
}

func checkVersion(ctx context.Context, q querier) error {
	if there, err := hasTable(ctx, q, versionTable); err != nil || !there {
		return errors.Join(err, ErrNoSchema)
	}
	var current int64
	if err := q.QueryRow(ctx, "SELECT coalesce(max(version_id), 0) FROM "+versionTable+" WHERE is_applied").Scan(&current); err != nil {
		return fmt.Errorf("read the schema version: %w", err)
	}
	files, err := fs.Glob(schema.Postgres(), "*.sql")
	if err != nil {
		return err
	}
	known, err := goose.NumericComponent(slices.Max(files))
	switch {
	case err != nil:
		return err
	case current == 0:
		return ErrNoSchema
	case current > known:
		return fmt.Errorf("%w: its schema is version %d, this broker knows up to %d; use a newer one", ErrNewer, current, known)
	case current < known:
		return fmt.Errorf("%w: its schema is version %d of %d; give the schema command first", ErrOlder, current, known)
	}
	return nil
}

func hasTable(ctx context.Context, q querier, name string) (there bool, err error) {
	err = q.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", name).Scan(&there)
	return there, err
}

// Migrate makes the schema or brings it up to date, as Open does. ErrNewer.
func Migrate(ctx context.Context, url string) error {
	cfg, err := toolConfig(url)
	if err != nil {
		return err
	}
	return migrate(ctx, cfg, slog.New(slog.DiscardHandler))
}

// checkMoving refuses a database that a move has not filled yet.
func checkMoving(ctx context.Context, cfg *pgx.ConnConfig) error {
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	moving, err := hasTable(ctx, conn, "moving")
	if err == nil && moving {
		err = ErrMoving
	}
	return errors.Join(err, conn.Close(ctx))
}

// problemQueries each return a line per problem.
var problemQueries = []string{
	`SELECT format('the queue counters of mesh %s do not match its queue', encode(g.mesh_id, 'hex')) FROM mesh g
		LEFT JOIN (SELECT m.mesh, count(*) AS n, sum(d.size) AS bytes FROM delivery d JOIN message m ON m.seq = d.message
			GROUP BY m.mesh) q ON q.mesh = g.id
		WHERE g.queued <> coalesce(q.n, 0) OR g.queued_bytes <> coalesce(q.bytes, 0)`,
	`SELECT format('message %s has no body but is queued', d.message) FROM delivery d
		LEFT JOIN body b ON b.seq = d.message WHERE b.seq IS NULL GROUP BY d.message`,
	`SELECT format('body %s is of no queued delivery', b.seq) FROM body b
		LEFT JOIN delivery d ON d.message = b.seq WHERE d.id IS NULL`,
	`SELECT format('delivery %s has no message', d.id) FROM (SELECT id, message FROM delivery UNION ALL SELECT id, message FROM outcome) d
		LEFT JOIN message m ON m.seq = d.message WHERE m.seq IS NULL`,
	`SELECT format('delivery %s is queued and settled', id) FROM delivery JOIN outcome USING (id)`,
	`SELECT format('delivery %s is not among those of message %s', d.id, m.seq)
		FROM (SELECT id, message FROM delivery UNION ALL SELECT id, message FROM outcome) d
		JOIN message m ON m.seq = d.message WHERE d.id < m.seq OR d.id >= m.seq + m.recipients`,
	`SELECT format('message %s has %s deliveries of %s', m.seq, count(d.message), m.recipients) FROM message m
		LEFT JOIN (SELECT message FROM delivery UNION ALL SELECT message FROM outcome) d ON d.message = m.seq
		GROUP BY m.seq HAVING count(d.message) <> m.recipients`,
	`SELECT format('delivery %s does not expire with its message', d.id) FROM delivery d
		JOIN message m ON m.seq = d.message WHERE d.expires <> m.expires`,
	`SELECT format('message %s is of no mesh', m.seq) FROM message m LEFT JOIN mesh g ON g.id = m.mesh WHERE g.id IS NULL`,
	`SELECT format('delivery %s is for no peer', d.id) FROM delivery d LEFT JOIN peer p ON p.id = d.recipient WHERE p.id IS NULL`,
	`SELECT format('the next delivery number, %s, was given before', next)
		FROM (SELECT last_value + is_called::int AS next FROM delivery_number) n
		WHERE next <= (SELECT greatest(max(seq), (SELECT max(id) FROM delivery), (SELECT max(id) FROM outcome)) FROM message)`,
}

// Check reads what the database holds, as of one moment, and returns every
// contradiction it finds, wrapped in ErrCorrupt. Brokers may be at work.
func Check(ctx context.Context, url string) error {
	conn, err := Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return err
	}
	var errs []error
	for _, query := range problemQueries {
		rows, err := tx.Query(ctx, query)
		if err != nil {
			return err
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		for _, line := range lines {
			errs = append(errs, errors.New(line))
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("%w:\n%w", ErrCorrupt, errors.Join(errs...))
	}
	return nil
}

// ResetToken replaces the admin token's hash. Running brokers see it at once.
// broker.ErrNotFound before the first broker's first start.
func ResetToken(ctx context.Context, url string, hash [32]byte) error {
	conn, err := Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	done, err := conn.Exec(ctx, "UPDATE broker SET token_hash = $1 WHERE id = 1", hash[:])
	if err == nil && done.RowsAffected() == 0 {
		return broker.ErrNotFound
	}
	return err
}
