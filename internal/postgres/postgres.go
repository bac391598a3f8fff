// Package postgres is the broker's store in a Postgres database, which any
// number of brokers share.
//
// One writer per store gathers what Accept and Settle are given and commits it
// in batches, each one round trip: the statements of a batch are sent together,
// so a broker that is stopped half-way leaves no transaction open. All
// other methods run in transactions of their own. What fails because
// a connection or the server was lost is tried again; each write can be
// repeated without harm.
//
// Every transaction that touches the queue or the members of meshes first locks
// their mesh rows, in the order of their ids.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/claudemesh/claudemesh/broker"
)

// ErrNewer means that a newer version of the broker wrote the database.
var ErrNewer = errors.New("database is newer than this broker")

// Options configure a Store. The zero value works.
type Options struct {
	Logger *slog.Logger // nil discards
	// Conns is the size of the pool; the writer has a connection besides. Default 8.
	Conns int
	// Patience is how long a method goes on trying while the server is away. Default 8 s.
	Patience time.Duration
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Conns == 0 {
		o.Conns = 8
	}
	if o.Patience == 0 {
		o.Patience = 8 * time.Second
	}
	return o
}

// Store is a broker.ClusterStore in a Postgres database.
type Store struct {
	opts Options
	pool *pgxpool.Pool
	keep *pgxpool.Pool // for Renew alone, which must not wait for others
	w    *writer

	pages pages

	closed  atomic.Bool
	close   sync.Once
	commits struct{ n, ops, nanos atomic.Int64 }

	mu    sync.Mutex // guards the following
	node  broker.Node
	lease time.Duration
}

var _ broker.ClusterStore = (*Store)(nil)

// IsURL reports whether a database is named as Postgres databases are.
func IsURL(db string) bool {
	return strings.HasPrefix(db, "postgres://") || strings.HasPrefix(db, "postgresql://")
}

// Open connects to the database and brings its schema up to date. Several
// brokers may do so at once. ErrNewer, ErrMoving.
func Open(ctx context.Context, url string, opts Options) (_ *Store, err error) {
	opts = opts.withDefaults()
	cfg, err := poolConfig(url, opts)
	if err != nil {
		return nil, err
	}
	if err := checkMoving(ctx, cfg.ConnConfig); err != nil {
		return nil, err
	}
	if err := migrate(ctx, cfg.ConnConfig, opts.Logger); err != nil {
		return nil, err
	}
	s := &Store{opts: opts}
	s.pages.s = s
	if s.pool, err = pgxpool.NewWithConfig(context.WithoutCancel(ctx), cfg); err != nil {
		return nil, err
	}
	if s.keep, err = pgxpool.NewWithConfig(context.WithoutCancel(ctx), keepConfig(cfg)); err != nil {
		s.pool.Close()
		return nil, err
	}
	if s.w, err = startWriter(ctx, s, cfg.ConnConfig); err != nil {
		s.keep.Close()
		s.pool.Close()
		return nil, err
	}
	return s, nil
}

// poolConfig parses a URL and sets what correctness rests on.
func poolConfig(url string, opts Options) (*pgxpool.Config, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("database URL: %w", hideURL(err, url))
	}
	cfg.MaxConns = int32(opts.Conns)
	p := cfg.ConnConfig.RuntimeParams
	p["synchronous_commit"] = "on"
	p["default_transaction_isolation"] = "read committed"
	p["idle_in_transaction_session_timeout"] = "5000" // a stopped broker holds no lock for longer
	p["statement_timeout"] = "30000"
	p["timezone"] = "UTC"
	// A plan is made once and fits any size of the queue: by the indices, whatever
	// the statistics of a young database say.
	p["plan_cache_mode"] = "force_generic_plan"
	p["enable_seqscan"] = "off"
	p["jit"] = "off"
	p["max_parallel_workers_per_gather"] = "0"
	if p["application_name"] == "" {
		p["application_name"] = "claudemesh-broker"
	}
	cfg.ConnConfig.ConnectTimeout = 5 * time.Second
	return cfg, nil
}

// hideURL keeps a password that stands in the URL out of messages.
func hideURL(err error, url string) error {
	return errors.New(strings.ReplaceAll(err.Error(), url, "(hidden)"))
}

// Close commits what was accepted and closes the connections.
func (s *Store) Close() error {
	s.close.Do(func() {
		s.w.stop()
		s.pages.stop()
		s.closed.Store(true)
		s.keep.Close()
		s.pool.Close()
	})
	return nil
}

// tx runs a function in a transaction that is fenced once the store has
// enlisted. A cancelled ctx keeps it from starting and does not end it half-way.
// When the connection is lost, also during the commit, it runs again: run must
// come to the same end when its changes are there already.
func (s *Store) tx(ctx context.Context, run func(ctx context.Context, tx pgx.Tx) error) error {
	return s.txOf(ctx, s.enlisted(), run)
}

// txOf is tx for a node; the zero one is not fenced.
func (s *Store) txOf(ctx context.Context, node broker.Node, run func(ctx context.Context, tx pgx.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.transact(context.WithoutCancel(ctx), node, run)
}

// transact is txOf that ctx can end at any time.
func (s *Store) transact(ctx context.Context, node broker.Node, run func(ctx context.Context, tx pgx.Tx) error) error {
	return s.insist(ctx, func(ctx context.Context) error {
		start := time.Now()
		err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
			if node.Epoch != 0 {
				if _, err := tx.Exec(ctx, "SELECT fence($1, $2)", node.Name, node.Epoch); err != nil {
					return err
				}
			}
			return run(ctx, tx)
		})
		if err == nil {
			s.committed(1, start)
		}
		return err
	})
}

// committed counts a transaction for Stats.
func (s *Store) committed(ops int, start time.Time) {
	s.commits.n.Add(1)
	s.commits.ops.Add(int64(ops))
	s.commits.nanos.Add(int64(time.Since(start)))
}

// querier reads: the pool, a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// read runs statements that change nothing, again when a connection is lost.
func (s *Store) read(ctx context.Context, run func(ctx context.Context, q querier) error) error {
	return s.insist(ctx, func(ctx context.Context) error { return run(ctx, s.pool) })
}

// snapshot is read with all statements seeing the same moment.
func (s *Store) snapshot(ctx context.Context, run func(ctx context.Context, q querier) error) error {
	return s.insist(ctx, func(ctx context.Context) error {
		return pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly},
			func(tx pgx.Tx) error { return run(ctx, tx) })
	})
}

// insist tries until it succeeds, fails for good, or patience ends.
func (s *Store) insist(ctx context.Context, try func(ctx context.Context) error) error {
	deadline := time.Now().Add(s.opts.Patience)
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := s.once(ctx, try)
		if s.closed.Load() {
			return broker.ErrClosed
		}
		if err == nil || !passing(err) || time.Now().Add(pause).After(deadline) {
			return translate(err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// attemptTimeout bounds one attempt: longer than the server's own limit for a statement, it
// is for a connection that is dead and does not know it.
const attemptTimeout = 35 * time.Second

func (s *Store) once(ctx context.Context, try func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	return try(ctx)
}

// enlisted returns the node that the store writes for; zero before Enlist.
func (s *Store) enlisted() broker.Node {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.node
}
