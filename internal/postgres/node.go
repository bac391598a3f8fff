package postgres

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/claudemesh/claudemesh/broker"
)

// renewTry bounds one try to renew the lease; there are two.
const renewTry = time.Second

// keepConfig is the pool's configuration for node keeping. It has one connection
// as long as all is well: more are for those that hang and have yet to be closed.
func keepConfig(cfg *pgxpool.Config) *pgxpool.Config {
	cfg = cfg.Copy()
	cfg.MaxConns = 20
	cfg.ConnConfig.RuntimeParams["statement_timeout"] = strconv.FormatInt(renewTry.Milliseconds(), 10)
	return cfg
}

// Enlist implements broker.ClusterStore.
func (s *Store) Enlist(ctx context.Context, name string, lease time.Duration) (node broker.Node, err error) {
	if err := s.retire(ctx, name); err != nil {
		return broker.Node{}, err
	}
	node.Name = name
	err = s.txOf(ctx, broker.Node{}, func(ctx context.Context, tx pgx.Tx) error {
		// One at a time under a name, as there may be no row to lock.
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(4710002, hashtext($1))", name); err != nil {
			return err
		}
		var before int64
		err := tx.QueryRow(ctx, "SELECT epoch FROM node WHERE name = $1", name).Scan(&before)
		if err == nil {
			err = bury(ctx, tx, before)
		} else if errors.Is(err, pgx.ErrNoRows) {
			err = nil
		}
		if err != nil {
			return err
		}
		return tx.QueryRow(ctx, `INSERT INTO node (name, epoch, until)
			VALUES ($1, nextval('node_epoch'), clock_timestamp() + make_interval(secs => $2)) RETURNING epoch`,
			name, lease.Seconds()).Scan(&node.Epoch)
	})
	if err != nil {
		return broker.Node{}, err
	}
	s.setNode(node, lease)
	return node, nil
}

// setNode makes the store write for a node; for none with the zero one.
func (s *Store) setNode(node broker.Node, lease time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.node, s.lease = node, lease
}

// retire ends the lease that a name has. No transaction of it can begin from
// then on, so a burial has an end to wait for.
func (s *Store) retire(ctx context.Context, name string) error {
	return s.txOf(ctx, broker.Node{}, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "UPDATE node SET until = '-infinity' WHERE name = $1", name)
		return err
	})
}

// bury deletes a node, which waits for its transactions, and then what it held:
// the other way round, such a transaction could wait for this one.
func bury(ctx context.Context, tx pgx.Tx, epoch int64) error {
	if _, err := tx.Exec(ctx, "DELETE FROM node WHERE epoch = $1", epoch); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `DELETE FROM presence WHERE peer IN
		(SELECT peer FROM presence WHERE epoch = $1 ORDER BY peer FOR UPDATE)`, epoch)
	return err
}

// Renew implements broker.ClusterStore. It returns within two seconds or little
// more, whatever the rest of the store does.
func (s *Store) Renew(ctx context.Context) (standing []broker.Node, err error) {
	s.mu.Lock()
	node, lease := s.node, s.lease
	s.mu.Unlock()
	if node.Epoch == 0 {
		return nil, broker.ErrFenced
	}
	for range 2 {
		standing, err = s.renew(ctx, node, lease)
		if s.closed.Load() {
			return nil, broker.ErrClosed
		}
		if err == nil || errors.Is(err, broker.ErrFenced) || ctx.Err() != nil {
			break
		}
	}
	return standing, translate(err)
}

const (
	renewQuery = `UPDATE node SET until = clock_timestamp() + make_interval(secs => $3)
		WHERE name = $1 AND epoch = $2 AND until > clock_timestamp()`
	// A node with an open transaction is left for the next time, as is one that
	// held more than can be deleted in a moment: what an overdue node held does
	// not count. Presence rows that are locked are taken over or deleted right now.
	buryOverdueQuery = `WITH overdue AS MATERIALIZED (
			SELECT epoch FROM node WHERE until < clock_timestamp() FOR UPDATE SKIP LOCKED),
		held AS MATERIALIZED (
			SELECT peer FROM presence WHERE epoch IN (SELECT epoch FROM overdue) LIMIT 5000 FOR UPDATE SKIP LOCKED),
		gone AS (DELETE FROM presence WHERE peer IN (SELECT peer FROM held))
		DELETE FROM node WHERE epoch IN (SELECT epoch FROM overdue) AND NOT EXISTS
			(SELECT 1 FROM presence p WHERE p.epoch = node.epoch AND p.peer NOT IN (SELECT peer FROM held))`
	standingNodesQuery = "SELECT name, epoch FROM node WHERE until > clock_timestamp() ORDER BY name"
)

func (s *Store) renew(ctx context.Context, node broker.Node, lease time.Duration) ([]broker.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, renewTry)
	defer cancel()
	tag, err := s.keep.Exec(ctx, renewQuery, node.Name, node.Epoch, lease.Seconds())
	if err != nil {
		return nil, err
	}
	if tag.RowsAffected() == 0 {
		return nil, s.whyFenced(ctx, node)
	}
	if _, err := s.keep.Exec(ctx, buryOverdueQuery); err != nil {
		// The lease is renewed all the same, and the next time is soon.
		s.opts.Logger.LogAttrs(ctx, slog.LevelWarn, "overdue nodes are not buried", slog.Any("error", err))
	}
	return list(ctx, s.keep, pgx.RowToStructByPos[broker.Node], standingNodesQuery)
}

// whyFenced tells a node that was replaced, or is being, from one that was late.
func (s *Store) whyFenced(ctx context.Context, node broker.Node) error {
	var replaced bool
	err := s.keep.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM node WHERE name = $1 AND (epoch > $2 OR until = '-infinity'))",
		node.Name, node.Epoch).Scan(&replaced)
	if err != nil {
		return err
	}
	if replaced {
		return broker.ErrReplaced
	}
	return broker.ErrFenced
}

// Resign implements broker.ClusterStore.
func (s *Store) Resign(ctx context.Context) error {
	node := s.enlisted()
	if node.Epoch == 0 {
		return nil
	}
	err := s.txOf(ctx, broker.Node{}, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "UPDATE node SET until = '-infinity' WHERE epoch = $1", node.Epoch)
		return err
	})
	if err == nil {
		err = s.txOf(ctx, broker.Node{}, func(ctx context.Context, tx pgx.Tx) error { return bury(ctx, tx, node.Epoch) })
	}
	if err == nil {
		s.setNode(broker.Node{}, 0)
	}
	return err
}
