package mailbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/claudemesh/claudemesh/internal/wire"
)

const (
	drawNumber = `INSERT INTO counter (mesh, sender, recipient, priority, last) VALUES (?, ?, ?, ?, 1)
		ON CONFLICT DO UPDATE SET last = last + 1 RETURNING last`
	insertOutgoing = `INSERT INTO outgoing (mesh, sender, id, mode, target, priority, sent, expires,
		reply_to, replaces, text, to_person, nonce, ciphertext, hop, digest)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`
	insertRecipient = `INSERT INTO out_recipient (message, position, key, member, name, wrap, online, state, code, at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
	outgoingColumns = `SELECT number, mesh, sender, id, mode, target, priority, sent, expires,
		reply_to, replaces, text, to_person, nonce, ciphertext, hop FROM outgoing `
	selectPending = outgoingColumns + `WHERE number IN (SELECT message FROM out_recipient WHERE state = 0 AND message > ?1)
		AND mesh = ?2 AND (?3 = zeroblob(32) OR sender = ?3) AND (?4 = 0 OR sent <= ?4)
		ORDER BY number LIMIT ?5`
	selectOutgoing   = outgoingColumns + `WHERE id = ?`
	selectRecipients = `SELECT key, member, name, wrap, online, state, code, at
		FROM out_recipient WHERE message = ? ORDER BY position`
	// The condition is the function later: bounced (4) ends stored and accepted,
	// any other state ends those below it.
	advance = `UPDATE out_recipient SET state = ?1, code = CASE ?1 WHEN 4 THEN ?2 ELSE code END,
		online = CASE ?1 WHEN 1 THEN ?3 ELSE online END, at = ?4
		WHERE message = (SELECT number FROM outgoing WHERE id = ?5 AND mesh = ?6) AND key = ?7
		AND state < CASE ?1 WHEN 4 THEN 2 ELSE ?1 END`
	selectUnsettled = `SELECT id FROM outgoing WHERE number IN (SELECT message FROM out_recipient WHERE state = 1)
		AND mesh = ? AND expires > ? ORDER BY number LIMIT ?`
	dropMember = `UPDATE out_recipient SET state = 4, code = ?1, at = ?2, wrap = NULL
		WHERE state = 0 AND (key = ?3 OR member = ?3)
		AND (SELECT mesh FROM outgoing WHERE number = message) = ?4`
)

// Put draws numbers, has the message sealed and stores it.
func (d *disk) Put(ctx context.Context, lanes []Lane, seal func([]uint64) (Outgoing, error)) (number int64, err error) {
	err = d.write(ctx, func(t *tx) (bool, error) {
		seqs := make([]uint64, len(lanes))
		for i, l := range lanes {
			if err := t.get(drawNumber, []any{l.Mesh[:], l.Sender[:], l.Recipient[:], l.Priority.Rank()}, &seqs[i]); err != nil {
				return false, err
			}
		}
		o, err := seal(seqs)
		if err != nil {
			return false, err
		}
		if err := checkOutgoing(&o); err != nil {
			return false, err
		}
		number, err = insertMessage(t, &o)
		return true, err
	})
	if err != nil {
		return 0, err
	}
	return number, nil
}

func insertMessage(t *tx, o *Outgoing) (int64, error) {
	res, err := t.conn.Result(t.ctx, insertOutgoing, o.Mesh[:], o.Sender[:], o.ID[:], string(o.Mode), o.Target, o.Priority.Rank(),
		o.Sent, o.Expires, o.ReplyTo[:], o.Replaces[:], o.Text, o.ToPerson, blob(o.Nonce), blob(o.Ciphertext),
		int64(o.Hop), textDigest(o.Text))
	if err != nil {
		return 0, err
	}
	switch n, err := res.RowsAffected(); {
	case err != nil:
		return 0, err
	case n == 0:
		return 0, errTaken(o.ID)
	}
	number, err := res.LastInsertId()
	if err != nil {
		return 0, err
	}
	for i := range o.Recipients {
		r := &o.Recipients[i]
		if _, err := t.exec(insertRecipient, number, i, r.Key[:], r.Member[:], r.Name, r.Wrap,
			r.Online, r.State.rank(), string(r.Code), r.At); err != nil {
			return 0, err
		}
	}
	return number, nil
}

// blob stores nil as an empty blob, for columns that are not null.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// Pending returns what waits for the broker.
func (d *disk) Pending(ctx context.Context, mesh wire.ID, sender wire.Key, after, notAfter int64, limit int) (msgs []Outgoing, err error) {
	err = d.read(ctx, func(t *tx) error {
		msgs, err = outgoing(t, selectPending, after, mesh[:], sender[:], notAfter, limitOf(limit))
		return err
	})
	return msgs, err
}

// Outgoing returns one sent message.
func (d *disk) Outgoing(ctx context.Context, id wire.ID) (o Outgoing, err error) {
	err = d.read(ctx, func(t *tx) error {
		msgs, err := outgoing(t, selectOutgoing, id[:])
		if err != nil {
			return err
		}
		if len(msgs) == 0 {
			return ErrNotFound
		}
		o = msgs[0]
		return nil
	})
	return o, err
}

// outgoing reads messages and then their recipients, on one snapshot.
func outgoing(t *tx, query string, args ...any) (msgs []Outgoing, err error) {
	err = t.each(query, args, func(rows *sql.Rows) error {
		var o Outgoing
		var rank int
		var hop int64
		if err := rows.Scan(&o.Number, fixed(o.Mesh[:]), fixed(o.Sender[:]), fixed(o.ID[:]), &o.Mode, &o.Target, &rank,
			&o.Sent, &o.Expires, fixed(o.ReplyTo[:]), fixed(o.Replaces[:]), &o.Text, &o.ToPerson, &o.Nonce, &o.Ciphertext, &hop); err != nil {
			return err
		}
		o.Priority, o.Hop = wire.Priorities[rank], uint64(hop)
		msgs = append(msgs, o)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range msgs {
		if msgs[i].Recipients, err = recipients(t, msgs[i].Number); err != nil {
			return nil, err
		}
	}
	return msgs, nil
}

func recipients(t *tx, number int64) (list []OutRecipient, err error) {
	err = t.each(selectRecipients, []any{number}, func(rows *sql.Rows) error {
		var r OutRecipient
		var rank int
		if err := rows.Scan(fixed(r.Key[:]), fixed(r.Member[:]), &r.Name, &r.Wrap, &r.Online, &rank, &r.Code, &r.At); err != nil {
			return err
		}
		r.State = states[rank]
		list = append(list, r)
		return nil
	})
	return list, err
}

// Advance moves one recipient to a later state.
func (d *disk) Advance(ctx context.Context, mesh, id wire.ID, recipient wire.Key, to State, code wire.Code, online bool, at int64) (changed bool, err error) {
	rank := to.rank()
	if rank < 0 {
		return false, fmt.Errorf("unknown state %q", to)
	}
	err = d.write(ctx, func(t *tx) (bool, error) {
		n, err := t.exec(advance, rank, string(code), online, at, id[:], mesh[:], recipient[:])
		changed = n > 0
		return changed, err
	})
	return changed && err == nil, err
}

// Unsettled returns what to ask the broker about.
func (d *disk) Unsettled(ctx context.Context, mesh wire.ID, now int64, limit int) (ids []wire.ID, err error) {
	err = d.read(ctx, func(t *tx) error {
		return t.each(selectUnsettled, []any{mesh[:], now, limitOf(limit)}, func(rows *sql.Rows) error {
			var id wire.ID
			if err := rows.Scan(fixed(id[:])); err != nil {
				return err
			}
			ids = append(ids, id)
			return nil
		})
	})
	return ids, err
}

// Drop bounces what waits for a member.
func (d *disk) Drop(ctx context.Context, mesh wire.ID, member wire.Key, code wire.Code, at int64) error {
	return d.write(ctx, func(t *tx) (bool, error) {
		n, err := t.exec(dropMember, string(code), at, member[:], mesh[:])
		return n > 0, err
	})
}

func noRows(err error) bool { return errors.Is(err, sql.ErrNoRows) }
