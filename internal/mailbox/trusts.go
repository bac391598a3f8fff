package mailbox

import (
	"context"
	"database/sql"

	"github.com/claudemesh/claudemesh/internal/wire"
)

const (
	trustColumns = `SELECT mesh, member, level, grants, blocked, verified, changed FROM trust `
	selectTrust  = trustColumns + `WHERE mesh = ? AND member = ?`
	selectTrusts = trustColumns + `WHERE mesh = ? ORDER BY member`
	upsertTrust  = `INSERT INTO trust (mesh, member, level, grants, blocked, verified, changed) VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT DO UPDATE SET level = excluded.level, grants = excluded.grants, blocked = excluded.blocked,
		verified = excluded.verified, changed = excluded.changed`
	selectGated = `SELECT number, mode, priority, braked FROM incoming
		WHERE read_at = 0 AND mesh = ? AND sender_member = ? AND own = 0`
	gateMessage = `UPDATE incoming SET urgency = ?, gate = ? WHERE number = ?`
	upsertPause = `INSERT INTO pause (mesh, until) VALUES (?, ?) ON CONFLICT DO UPDATE SET until = excluded.until`
	deletePause = `DELETE FROM pause WHERE mesh = ?`
	selectPause = `SELECT until FROM pause WHERE mesh = ? AND until > ?`
)

// ChangeTrust alters what is known of a member.
func (d *disk) ChangeTrust(ctx context.Context, mesh wire.ID, member wire.Key, at int64, change func(*Trust) error) (now Trust, err error) {
	err = d.write(ctx, func(t *tx) (bool, error) {
		was, err := trustOf(t, mesh, member)
		if err != nil {
			return false, err
		}
		if now, err = changeTrust(was, at, change); err != nil {
			return false, err
		}
		if _, err := t.exec(upsertTrust, mesh[:], member[:], string(now.Level), joined(now.Grants), now.Blocked, now.Verified, now.Changed); err != nil {
			return false, err
		}
		if err := regate(t, &now); err != nil {
			return false, err
		}
		return true, (&ledger{tx: t}).add(now.changes(&was)...)
	})
	if err != nil {
		return Trust{}, err
	}
	return now, nil
}

func trustOf(t *tx, mesh wire.ID, member wire.Key) (known Trust, err error) {
	known = noTrust(mesh, member)
	err = t.each(selectTrust, []any{mesh[:], member[:]}, func(rows *sql.Rows) error {
		known, err = scanTrust(rows)
		return err
	})
	return known, err
}

func scanTrust(rows *sql.Rows) (t Trust, err error) {
	var grants string
	err = rows.Scan(fixed(t.Mesh[:]), fixed(t.Member[:]), &t.Level, &grants, &t.Blocked, &t.Verified, &t.Changed)
	t.Grants = split(grants)
	return t, err
}

// regate judges the unread messages of a member anew.
func regate(t *tx, known *Trust) error {
	type row struct {
		Incoming
		braked bool
	}
	var unread []row
	err := t.each(selectGated, []any{known.Mesh[:], known.Member[:]}, func(rows *sql.Rows) error {
		var r row
		var rank int
		if err := rows.Scan(&r.Number, &r.Mode, &rank, &r.braked); err != nil {
			return err
		}
		r.Priority = wire.Priorities[rank]
		unread = append(unread, r)
		return nil
	})
	if err != nil {
		return err
	}
	for i := range unread {
		urgency, gate, _ := judge(known, &unread[i].Incoming, unread[i].braked)
		if _, err := t.exec(gateMessage, urgency.Rank(), int(gate), unread[i].Number); err != nil {
			return err
		}
	}
	return nil
}

// Trust returns what is known of a member.
func (d *disk) Trust(ctx context.Context, mesh wire.ID, member wire.Key) (known Trust, err error) {
	err = d.read(ctx, func(t *tx) error {
		known, err = trustOf(t, mesh, member)
		return err
	})
	return known, err
}

// Trusts returns what was changed in a mesh.
func (d *disk) Trusts(ctx context.Context, mesh wire.ID) (all []Trust, err error) {
	err = d.read(ctx, func(t *tx) error {
		return t.each(selectTrusts, []any{mesh[:]}, func(rows *sql.Rows) error {
			known, err := scanTrust(rows)
			all = append(all, known)
			return err
		})
	})
	return all, err
}

// SetPause holds a mesh back.
func (d *disk) SetPause(ctx context.Context, mesh wire.ID, until int64) error {
	return d.write(ctx, func(t *tx) (bool, error) {
		if until <= 0 {
			n, err := t.exec(deletePause, mesh[:])
			return n > 0, err
		}
		n, err := t.exec(upsertPause, mesh[:], until)
		return n > 0, err
	})
}

// Paused returns until when a mesh is paused.
func (d *disk) Paused(ctx context.Context, mesh wire.ID, now int64) (until int64, err error) {
	err = d.read(ctx, func(t *tx) error {
		err := t.get(selectPause, []any{mesh[:], now}, &until)
		if noRows(err) {
			return nil
		}
		return err
	})
	return until, err
}
