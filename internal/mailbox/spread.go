package mailbox

import (
	"context"
	"database/sql"

	"github.com/claudemesh/claudemesh/internal/wire"
)

const (
	selectSpread = `SELECT DISTINCT r.key FROM outgoing o JOIN out_recipient r ON r.message = o.number
		WHERE o.digest = ? AND o.mesh = ? AND o.sender = ? AND o.sent >= ?`
	isKnownText = `SELECT EXISTS (SELECT 1 FROM outgoing WHERE digest = ?1) OR EXISTS (SELECT 1 FROM incoming WHERE digest = ?1)`
	selectHop   = `SELECT max(hop) FROM (
		SELECT hop FROM incoming WHERE id = ?1 AND recipient IN (SELECT unhex(value) FROM json_each(?2))
		UNION ALL
		SELECT hop FROM incoming INDEXED BY incoming_read WHERE recipient IN (SELECT unhex(value) FROM json_each(?2))
		AND read_at >= max(?4, 1) AND read_at > 0 AND (sender_session IN (SELECT unhex(value) FROM json_each(?3))
		OR sender_member IN (SELECT unhex(value) FROM json_each(?3))))`
	// How many automatic messages have passed between two, in both directions.
	countAutomatic = `SELECT (SELECT count(*) FROM incoming
		WHERE sender_session = ?1 AND recipient = ?2 AND received >= ?3 AND hop > 0)
		+ (SELECT count(*) FROM outgoing o WHERE sender = ?2 AND sent >= ?3 AND hop > 0
		AND EXISTS (SELECT 1 FROM out_recipient r WHERE r.message = o.number AND r.key = ?1))`
)

// Spread returns who was sent a text.
func (d *disk) Spread(ctx context.Context, mesh wire.ID, sender wire.Key, digest [16]byte, since int64) (to []wire.Key, known bool, err error) {
	err = d.read(ctx, func(t *tx) error {
		if err := t.get(isKnownText, []any{digest[:]}, &known); err != nil {
			return err
		}
		return t.each(selectSpread, []any{digest[:], mesh[:], sender[:], since}, func(rows *sql.Rows) error {
			var key wire.Key
			err := rows.Scan(fixed(key[:]))
			to = append(to, key)
			return err
		})
	})
	return to, known, err
}

// HopOf returns the highest hop of what a message answers.
func (d *disk) HopOf(ctx context.Context, recipients []wire.Key, replyTo wire.ID, from []wire.Key, since int64) (hop uint64, ok bool, err error) {
	err = d.read(ctx, func(t *tx) error {
		var highest sql.NullInt64
		if err := t.get(selectHop, []any{replyTo[:], hexList(recipients), hexList(from), since}, &highest); err != nil {
			return err
		}
		hop, ok = uint64(highest.Int64), highest.Valid
		return nil
	})
	return hop, ok, err
}

// textDigest is the digest of a text as it is stored: NULL for none.
func textDigest(text string) []byte {
	if text == "" {
		return nil
	}
	d := Digest(text)
	return d[:]
}
