package move

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/claudemesh/claudemesh/internal/postgres"
	"github.com/claudemesh/claudemesh/schema"
)

// pg is an end of a move in a Postgres database.
type pg struct {
	conn  *pgx.Conn
	guard *pgx.Conn // holds the lock that keeps brokers away
}

var _ target = (*pg)(nil)

// pgSettings are those of the connection that does the work. The plans are
// fixed to walks along the keys: nothing is known of new tables, and the rows are wanted
// in that order. A crash of the server may take the last commits of a move, which
// is resumed then; finish makes all of them durable.
const pgSettings = `SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_sort = off; SET enable_seqscan = off;
	SET jit = off; SET max_parallel_workers_per_gather = 0; SET synchronous_commit = off`

func openPG(ctx context.Context, url string) (_ *pg, err error) {
	p := new(pg)
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if p.conn, err = postgres.Connect(ctx, url); err != nil {
		return nil, err
	}
	if _, err := p.conn.Exec(ctx, pgSettings); err != nil {
		return nil, err
	}
	if p.guard, err = postgres.Connect(ctx, url); err != nil {
		return nil, err
	}
	return p, p.keepBrokersAway(ctx)
}

// openPGSource refuses a database that a move has not filled yet.
func openPGSource(ctx context.Context, url string) (*pg, error) {
	p, err := openPG(ctx, url)
	if err != nil {
		return nil, err
	}
	marked, err := p.moving(ctx)
	if err == nil && marked != "" {
		err = postgres.ErrMoving
	}
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// openPGTarget makes the schema if need be; for a dry run it returns nil then.
func openPGTarget(ctx context.Context, url string, dry bool) (*pg, error) {
	p, err := openPG(ctx, url)
	if !errors.Is(err, postgres.ErrNoSchema) && !errors.Is(err, postgres.ErrOlder) {
		return p, err
	}
	if dry {
		return nil, nil
	}
	if err := postgres.Migrate(ctx, url); err != nil {
		return nil, err
	}
	return openPG(ctx, url)
}

// keepBrokersAway refuses a database on which a broker runs. The lock on its
// nodes keeps brokers from enlisting, and another move from beginning, until the
// connection ends.
func (p *pg) keepBrokersAway(ctx context.Context) error {
	if _, err := p.guard.Exec(ctx, "SET lock_timeout = '10s'"); err != nil {
		return err
	}
	if err := p.standing(ctx); err != nil {
		return err
	}
	if _, err := p.guard.Exec(ctx, "BEGIN; LOCK TABLE node IN SHARE ROW EXCLUSIVE MODE"); err != nil {
		return fmt.Errorf("%w: the lock on its nodes is not free: %w", ErrInUse, err)
	}
	return p.standing(ctx)
}

func (p *pg) standing(ctx context.Context) error {
	rows, err := p.guard.Query(ctx, "SELECT name FROM node WHERE until > clock_timestamp() ORDER BY name")
	if err != nil {
		return err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err == nil && len(names) > 0 {
		return fmt.Errorf("%w: brokers that run on it: %s; stop them first (one that was killed counts for 10 s more)",
			ErrInUse, strings.Join(names, ", "))
	}
	return err
}

func (p *pg) close() error {
	var errs []error
	for _, c := range []*pgx.Conn{p.conn, p.guard} {
		if c != nil {
			errs = append(errs, c.Close(context.Background()))
		}
	}
	return errors.Join(errs...)
}

// pgRows are the queries that are not just the columns of a table. A direct with a
// nonce of another length could not be taken apart again: it counts as having no body.
var pgRows = map[*table]string{
	message: `SELECT m.seq, m.mesh, m.sender, m.id, m.hash, m.mode, m.recipients, m.created, m.expires, b.nonce, b.ciphertext
		FROM message m LEFT JOIN body b ON b.seq = m.seq AND m.mode IN (2, 3) WHERE m.seq > $1 ORDER BY m.seq`,
	delivery: `SELECT d.id, d.message, d.recipient, d.priority, d.state, d.code, d.attempts, d.at, d.size,
			CASE WHEN d.state <> 0 OR m.mode IN (2, 3) THEN d.wrap WHEN length(b.nonce) = 24 THEN b.nonce || b.ciphertext END,
			m.mode, coalesce(d.expires, m.expires)
		FROM (
			SELECT id, message, recipient, priority, 0::smallint AS state, '' AS code, attempts, at, size, wrap, expires FROM delivery
			UNION ALL SELECT id, message, recipient, 0, state, code, 0, at, size, NULL, NULL FROM outcome
		) d LEFT JOIN message m ON m.seq = d.message LEFT JOIN body b ON b.seq = d.message AND d.state = 0 AND m.mode IN (1, 4)
		WHERE d.id > $1 ORDER BY d.id`,
	number: `SELECT id, next FROM (
		SELECT 1 AS id, greatest(last_value + is_called::int, (SELECT max(id) + 1 FROM delivery),
			(SELECT max(id) + 1 FROM outcome), (SELECT max(seq) + 1 FROM message)) AS next FROM delivery_number
		UNION ALL SELECT 2, greatest(last_value + is_called::int, (SELECT max(id) + 1 FROM peer)) FROM peer_id_seq
		) n WHERE id > $1::bigint ORDER BY id`,
}

func (p *pg) rows(ctx context.Context, t *table, after []any) iter.Seq2[row, error] {
	query, ok := pgRows[t]
	if !ok {
		keys := strings.Join(t.columns[:t.keys], ", ")
		query = fmt.Sprintf("SELECT %s FROM %s WHERE (%s) > (%s) ORDER BY %s", strings.Join(t.columns, ", "), t.name,
			keys, strings.Join([]string{"$1::bigint", "$2::bigint", "$3"}[:t.keys], ", "), keys)
	}
	return func(yield func(row, error) bool) {
		rows, err := p.conn.Query(ctx, query, after...)
		if err != nil {
			yield(nil, err)
			return
		}
		defer rows.Close()
		for rows.Next() {
			r, err := rows.Values()
			if err == nil {
				err = t.check(plain(r))
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(nil, err)
		}
	}
}

// plain makes all integers int64; booleans are 0 and 1.
func plain(r row) row {
	for i, v := range r {
		switch v := v.(type) {
		case int16:
			r[i] = int64(v)
		case int32:
			r[i] = int64(v)
		case bool:
			r[i] = int64(0)
			if v {
				r[i] = int64(1)
			}
		}
	}
	return r
}

func (p *pg) count(ctx context.Context, t *table) (n int64, err error) {
	query := "SELECT count(*) FROM " + t.name
	switch t {
	case number:
		return 2, nil
	case delivery:
		query = "SELECT (SELECT count(*) FROM delivery) + (SELECT count(*) FROM outcome)"
	}
	err = p.conn.QueryRow(ctx, query).Scan(&n)
	return n, err
}

func (p *pg) bytes(ctx context.Context) (n int64, err error) {
	err = p.conn.QueryRow(ctx, "SELECT pg_database_size(current_database())").Scan(&n)
	return n, err
}

func (p *pg) moving(ctx context.Context) (source string, err error) {
	var there bool
	err = p.conn.QueryRow(ctx, "SELECT to_regclass('moving') IS NOT NULL").Scan(&there)
	if err == nil && there {
		err = p.conn.QueryRow(ctx, "SELECT source FROM moving").Scan(&source)
	}
	return source, err
}

func (p *pg) begin(ctx context.Context, source string) error {
	_, err := p.conn.Exec(ctx, "CREATE TABLE moving AS SELECT $1::text AS source", pgx.QueryExecModeSimpleProtocol, source)
	return err
}

func (p *pg) last(ctx context.Context, t *table) ([]any, error) {
	key := t.start()
	if t == number {
		return key, nil
	}
	if t == delivery {
		err := p.conn.QueryRow(ctx, "SELECT coalesce(greatest((SELECT max(id) FROM delivery), (SELECT max(id) FROM outcome)), $1)",
			int64(math.MinInt64)).Scan(&key[0])
		return key, err
	}
	places := make([]any, t.keys)
	for i := range key {
		places[i] = &key[i]
	}
	keys := t.columns[:t.keys]
	err := p.conn.QueryRow(ctx, fmt.Sprintf("SELECT %s FROM %s ORDER BY %s DESC LIMIT 1",
		strings.Join(keys, ", "), t.name, strings.Join(keys, " DESC, "))).Scan(places...)
	if errors.Is(err, pgx.ErrNoRows) {
		err = nil
	}
	plain(key)
	return key, err
}

func (p *pg) insert(ctx context.Context, t *table, rows []row) error {
	return pgx.BeginFunc(ctx, p.conn, func(tx pgx.Tx) error {
		switch t {
		case message:
			return insertMessages(ctx, tx, rows)
		case delivery:
			return insertDeliveries(ctx, tx, rows)
		case number:
			return setNumbers(ctx, tx, rows)
		}
		for _, flag := range t.flags {
			i := t.place(flag)
			for _, r := range rows {
				r[i] = r[i] == int64(1)
			}
		}
		return fill(ctx, tx, t.name, t.columns, rows)
	})
}

// fill puts rows into a table.
func fill(ctx context.Context, tx pgx.Tx, name string, columns []string, rows []row) error {
	if len(rows) == 0 {
		return nil
	}
	_, err := tx.CopyFrom(ctx, pgx.Identifier{name}, columns, pgx.CopyFromSlice(len(rows), func(i int) ([]any, error) {
		return rows[i], nil
	}))
	return err
}

var (
	bodyColumns    = []string{"seq", "nonce", "ciphertext"}
	queuedColumns  = []string{"id", "message", "recipient", "expires", "at", "size", "attempts", "priority", "wrap"}
	settledColumns = []string{"id", "message", "recipient", "at", "epoch", "size", "state", "code"}
)

func insertMessages(ctx context.Context, tx pgx.Tx, rows []row) error {
	var messages, bodies []row
	for _, r := range rows {
		messages = append(messages, r[:messageNonce])
		if r[messageBody] != nil {
			bodies = append(bodies, row{r[0], r[messageNonce], r[messageBody]})
		}
	}
	if err := fill(ctx, tx, "message", message.columns[:messageNonce], messages); err != nil {
		return err
	}
	return fill(ctx, tx, "body", bodyColumns, bodies)
}

// nonceBytes is how much of a direct's wrap is its nonce.
const nonceBytes = 24

func insertDeliveries(ctx context.Context, tx pgx.Tx, rows []row) error {
	var bodies, queued, settled []row
	for _, r := range rows {
		id, msg, recipient, priority, state, code := r[0], r[deliveryMessage], r[2], r[3], r[deliveryState], r[5]
		attempts, at, size, wrap, expires := r[6], r[7], r[8], r[deliveryWrap], r[11]
		if state != int64(schema.StateQueued) {
			settled = append(settled, row{id, msg, recipient, at, int64(0), size, state, code})
			continue
		}
		if direct(r) {
			b, _ := wrap.([]byte) // check saw that it is there
			n := min(len(b), nonceBytes)
			bodies = append(bodies, row{msg, b[:n:n], b[n:]})
			wrap = nil
		}
		queued = append(queued, row{id, msg, recipient, expires, at, size, attempts, priority, wrap})
	}
	if err := fill(ctx, tx, "body", bodyColumns, bodies); err != nil {
		return err
	}
	if err := fill(ctx, tx, "delivery", queuedColumns, queued); err != nil {
		return err
	}
	return fill(ctx, tx, "outcome", settledColumns, settled)
}

// setNumbers has all that is counted go on from where the source was.
func setNumbers(ctx context.Context, tx pgx.Tx, rows []row) error {
	for _, r := range rows {
		sequence := "delivery_number"
		if r[0] == nextPeer {
			sequence = "peer_id_seq"
		}
		if _, err := tx.Exec(ctx, "SELECT setval($1::text::regclass, $2, false)", sequence, r[1]); err != nil {
			return err
		}
	}
	for _, name := range []string{"mesh", "member", "invite", "invite_close", "revocation", "role", "pause", "block"} {
		if _, err := tx.Exec(ctx, fmt.Sprintf("SELECT setval('%[1]s_id_seq', (SELECT coalesce(max(id), 0) + 1 FROM %[1]s), false)", name)); err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, `UPDATE mesh SET outcast_version = greatest(
		(SELECT coalesce(max(version), 0) FROM revocation r WHERE r.mesh = mesh.id),
		(SELECT coalesce(max(version), 0) FROM invite_close c WHERE c.mesh = mesh.id))`)
	return err
}

func (p *pg) finish(ctx context.Context) error {
	if _, err := p.conn.Exec(ctx, "ANALYZE broker, mesh, member, invite, invite_close, revocation, role, pause, block, key_box, peer, message, body, delivery, outcome"); err != nil {
		return err
	}
	if _, err := p.conn.Exec(ctx, "SET synchronous_commit = on"); err != nil {
		return err
	}
	_, err := p.conn.Exec(ctx, "DROP TABLE IF EXISTS moving")
	return err
}
