package mailbox

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/claudemesh/claudemesh/internal/audit"
	"github.com/claudemesh/claudemesh/internal/wire"
)

const (
	lastRecord    = `SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1`
	insertRecord  = `INSERT INTO audit (number, at, prev, hash, entry) VALUES (?, ?, ?, ?, ?)`
	selectRecords = `SELECT number, prev, hash, entry FROM audit WHERE number > ? ORDER BY number LIMIT ?`
	// What is kept goes from the first that is young enough to the end.
	pruneRecords = `DELETE FROM audit WHERE number <= (SELECT max(number) FROM audit) - ?3
		OR (number <= (SELECT max(number) FROM audit) - ?1
		AND number < coalesce((SELECT min(number) FROM audit WHERE at >= ?2), (SELECT max(number) FROM audit)))`
)

// ledger adds to the audit log within a transaction. It reads the last record once.
type ledger struct {
	*tx
	last  audit.Record // of it only number and hash
	known bool
}

func (l *ledger) add(entries ...audit.Entry) error {
	for _, e := range entries {
		if !l.known {
			if err := l.get(lastRecord, nil, &l.last.Number, fixed(l.last.Hash[:])); err != nil && !noRows(err) {
				return err
			}
			l.known = true
		}
		r := l.last.Next(e)
		if _, err := l.exec(insertRecord, r.Number, r.At, r.Prev[:], r.Hash[:], r.Canonical()); err != nil {
			return err
		}
		l.last = r
	}
	return nil
}

// show runs a query that marks one message read, and logs it. It reports whether
// the query found one.
func (l *ledger) show(reader wire.Key, at int64, query string, args ...any) (bool, error) {
	var m Incoming
	err := l.get(query, args, fixed(m.Mesh[:]), fixed(m.SenderMember[:]), fixed(m.SenderSession[:]), fixed(m.ID[:]))
	switch {
	case noRows(err):
		return false, nil
	case err != nil:
		return false, err
	}
	return true, l.add(shownTo(&m, reader, at))
}

// Record adds entries. Nobody waits to hear of it.
func (d *disk) Record(ctx context.Context, entries ...audit.Entry) error {
	return d.write(ctx, func(t *tx) (bool, error) { return false, (&ledger{tx: t}).add(entries...) })
}

// Audit returns records.
func (d *disk) Audit(ctx context.Context, after int64, limit int) (records []audit.Record, err error) {
	err = d.read(ctx, func(t *tx) error {
		return t.each(selectRecords, []any{after, limitOf(limit)}, func(rows *sql.Rows) error {
			var r audit.Record
			var entry sql.RawBytes
			if err := rows.Scan(&r.Number, fixed(r.Prev[:]), fixed(r.Hash[:]), &entry); err != nil {
				return err
			}
			if err := json.Unmarshal(entry, &r.Entry); err != nil {
				return fmt.Errorf("%w: audit record %d: %w", ErrCorrupt, r.Number, err)
			}
			records = append(records, r)
			return nil
		})
	})
	return records, err
}
