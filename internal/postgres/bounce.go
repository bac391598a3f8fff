package postgres

import (
	"context"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
	"github.com/claudemesh/claudemesh/schema"
)

// bounceQuery ends deliveries by number: $1 numbers, $2 at, $3 code, $4 epoch.
const bounceQuery = `WITH gone AS (
		DELETE FROM delivery WHERE id = ANY ($1) RETURNING id, message, recipient, size
	), ended AS (
		INSERT INTO outcome (id, message, recipient, at, epoch, size, state, code)
		SELECT id, message, recipient, $2, $4, size, 2, $3 FROM gone
	), counted AS (
		UPDATE mesh SET queued = queued - c.n, queued_bytes = queued_bytes - c.bytes
		FROM (SELECT m.mesh, count(*) AS n, sum(gone.size) AS bytes FROM gone JOIN message m ON m.seq = gone.message GROUP BY m.mesh) c
		WHERE mesh.id = c.mesh
	), d AS (
		SELECT id, message, recipient, 2::smallint AS state, $3::text AS code, $2::bigint AS at, size FROM gone
	)
	SELECT ` + outcomeColumns + ` FROM d JOIN message m ON m.seq = d.message ` + outcomePeers + ` ORDER BY d.id`

// bounce ends queued deliveries. The caller has locked their meshes' rows.
func bounce(ctx context.Context, tx pgx.Tx, numbers []int64, code wire.Code, now time.Time, epoch int64) ([]broker.Outcome, error) {
	if len(numbers) == 0 {
		return nil, nil
	}
	out, err := collect(ctx, tx, bounceQuery, numbers, schema.Millis(now), string(code), epoch)
	if err != nil {
		return nil, err
	}
	_, err = tx.Exec(ctx, "SELECT drop_bodies(array_agg(DISTINCT message)) FROM outcome WHERE id = ANY ($1)", numbers)
	return out, err
}

// bounceQueue ends everything that waits for some peers of a mesh, whose row
// the caller has locked. It is no node's doing: every node is told of it.
func bounceQueue(ctx context.Context, tx pgx.Tx, peers []broker.PeerID, code wire.Code, now time.Time) ([]broker.Outcome, error) {
	numbers, err := list(ctx, tx, pgx.RowTo[int64], "SELECT id FROM delivery WHERE recipient = ANY ($1) ORDER BY id", peers)
	if err != nil {
		return nil, err
	}
	return bounce(ctx, tx, numbers, code, now, 0)
}

// lockMeshes locks the rows of meshes in the order that all transactions follow.
func lockMeshes(ctx context.Context, tx pgx.Tx, rows []int64) error {
	_, err := tx.Exec(ctx, "SELECT FROM mesh WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE", rows)
	return err
}

// expireStep bounds the deliveries that one transaction of Expire bounces, as it holds up
// the meshes' other writers.
const expireStep = 1000

const (
	expiredMeshesQuery = `SELECT DISTINCT m.mesh FROM (
		SELECT message FROM delivery WHERE expires <= $1 ORDER BY expires, id LIMIT $2) d JOIN message m ON m.seq = d.message`
	expiredQuery = `SELECT d.id FROM delivery d JOIN message m ON m.seq = d.message
		WHERE d.expires <= $1 AND m.mesh = ANY ($3) ORDER BY d.expires, d.id LIMIT $2 FOR UPDATE OF d SKIP LOCKED`
	// What an attempt has bounced whose commit was not heard of.
	bouncedQuery = settledQuery + `
		WHERE d.id = ANY ($1) AND d.epoch = $2 AND d.at = $3 AND d.code = $4 ORDER BY d.id`
)

// Expire implements broker.QueueStore. It works in steps, each its own
// transaction; what is bounced is returned even when a later step fails.
func (s *Store) Expire(ctx context.Context, now time.Time, limit int) ([]broker.Outcome, error) {
	var out []broker.Outcome
	for len(out) < limit {
		want := min(expireStep, limit-len(out))
		step, err := s.expire(ctx, now, want)
		out = append(out, step...)
		if err != nil && len(out) == 0 {
			return nil, err
		}
		if err != nil || len(step) < want {
			break
		}
	}
	return out, nil
}

func (s *Store) expire(ctx context.Context, now time.Time, limit int) (out []broker.Outcome, err error) {
	epoch, ms := s.enlisted().Epoch, schema.Millis(now)
	var due []int64
	err = s.tx(ctx, func(ctx context.Context, tx pgx.Tx) (err error) {
		if len(due) > 0 { // a further attempt: the last may have committed
			out, err = collect(ctx, tx, bouncedQuery, due, epoch, ms, string(wire.CodeExpired))
			if err != nil || len(out) > 0 {
				return err
			}
		}
		meshes, err := list(ctx, tx, pgx.RowTo[int64], expiredMeshesQuery, ms, limit)
		if err != nil || len(meshes) == 0 {
			return err
		}
		if err := lockMeshes(ctx, tx, meshes); err != nil {
			return err
		}
		if due, err = list(ctx, tx, pgx.RowTo[int64], expiredQuery, ms, limit, meshes); err != nil {
			return err
		}
		out, err = bounce(ctx, tx, due, wire.CodeExpired, now, epoch)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

const (
	pruneQuery = `WITH dead AS (
			SELECT seq, recipients FROM message m WHERE expires < $1 AND NOT EXISTS (
				SELECT 1 FROM delivery d WHERE d.id >= m.seq AND d.id < m.seq + m.recipients)
			ORDER BY expires, seq LIMIT $2 FOR UPDATE SKIP LOCKED
		), outcomes AS (
			DELETE FROM outcome USING dead WHERE outcome.id >= dead.seq AND outcome.id < dead.seq + dead.recipients
		), messages AS (
			DELETE FROM message USING dead WHERE message.seq = dead.seq RETURNING 1
		)
		SELECT count(*) FROM messages`
	prunePeersQuery = `DELETE FROM peer WHERE forgotten > 0 AND id IN (SELECT id FROM peer
		WHERE forgotten > 0 AND forgotten <= coalesce((SELECT min(seq) FROM message), $1) LIMIT $2 FOR UPDATE SKIP LOCKED)`
)

// Prune implements broker.QueueStore. It also deletes the forgotten peers that
// no message can name any more.
func (s *Store) Prune(ctx context.Context, before time.Time, limit int) (pruned int, err error) {
	err = s.tx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, pruneQuery, schema.Millis(before), limit).Scan(&pruned); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, prunePeersQuery, int64(math.MaxInt64), limit)
		return err
	})
	if err != nil {
		return 0, err
	}
	return pruned, nil
}
