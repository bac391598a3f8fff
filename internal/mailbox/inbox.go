package mailbox

import (
	"context"
	"database/sql"
	"encoding/hex"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// The queries take the recipients as a JSON list of hex keys, and a zero blob
// for what does not matter: so each is one constant text, prepared once.
const (
	incomingColumns = `SELECT number, mesh, recipient, sender_member, sender_session, sender_name, id, mode, target,
		priority, content_type, text, reply_to, replaces, sent, expires, received, seq, offered, read_at, reader, urgency, gate, own, hop`
	matching = ` WHERE recipient IN (SELECT unhex(value) FROM json_each(?1))
		AND (?2 = zeroblob(16) OR mesh = ?2)
		AND (?3 = zeroblob(32) OR sender_member = ?3 OR sender_session = ?3)
		AND (?4 = zeroblob(16) OR reply_to = ?4) AND (NOT ?5 OR offered = 0)
		AND (?7 = 0 OR held_until <= ?7 OR holder = ?8) AND urgency <= ?9
		AND (?10 = '[]' OR (reply_to NOT IN (SELECT unhex(value) FROM json_each(?10)) AND mesh NOT IN (SELECT unhex(value) FROM json_each(?10))))
		AND gate <= ?11 AND (?7 = 0 OR ?11 >= 3 OR mesh NOT IN (SELECT mesh FROM pause WHERE until > ?7)) `
	// Unguided, the planner would read the whole history of a recipient.
	selectUnread  = incomingColumns + `, count(*) OVER () FROM incoming INDEXED BY incoming_unread` + matching + `AND read_at = 0 ORDER BY urgency, number LIMIT ?6`
	selectAll     = incomingColumns + `, count(*) OVER () FROM incoming` + matching + `ORDER BY number DESC LIMIT ?6`
	selectMessage = incomingColumns + `, 0 FROM incoming WHERE id = ?
		AND recipient IN (SELECT unhex(value) FROM json_each(?)) ORDER BY number LIMIT 1`
	selectOwed = incomingColumns + `, 0 FROM incoming WHERE mesh = ?1 AND read_at > 0 AND receipted = 0
		AND (?2 = zeroblob(32) OR reader = ?2) ORDER BY number LIMIT ?3`
	markRead = `UPDATE incoming SET read_at = ?, reader = ? WHERE number = ? AND read_at = 0
		RETURNING mesh, sender_member, sender_session, id`
	markOffered   = `UPDATE incoming SET offered = ? WHERE number = ? AND offered = 0 AND read_at = 0`
	markReceipted = `UPDATE incoming SET receipted = 1 WHERE number = ? AND receipted = 0`
	selectGaps    = `SELECT l.mesh, l.sender_session, l.sender_name, l.touched, g.first, g.last, g.noticed
		FROM gap g JOIN lane_in l ON l.number = g.lane
		WHERE g.noticed <= ?1 AND l.recipient IN (SELECT unhex(value) FROM json_each(?2))`
)

// hexList writes keys as a JSON list of hex strings.
func hexList(keys []wire.Key) string {
	b := []byte{'['}
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = hex.AppendEncode(b, k[:])
		b = append(b, '"')
	}
	return string(append(b, ']'))
}

// List returns received messages.
func (d *disk) List(ctx context.Context, q Query) (msgs []Incoming, more int, err error) {
	if len(q.Recipients) == 0 {
		return nil, 0, errNoRecipients
	}
	err = d.read(ctx, func(t *tx) error {
		msgs, more, err = list(t, q)
		return err
	})
	return msgs, more, err
}

// Take returns unread messages and marks them read.
func (d *disk) Take(ctx context.Context, q Query, reader wire.Key, at int64) (msgs []Incoming, more int, err error) {
	switch {
	case len(q.Recipients) == 0:
		return nil, 0, errNoRecipients
	case at <= 0:
		return nil, 0, errNoTime
	}
	q.Read = false // what was read has been given to its reader
	err = d.write(ctx, func(t *tx) (bool, error) {
		if msgs, more, err = list(t, q); err != nil {
			return false, err
		}
		log := ledger{tx: t}
		for i := range msgs {
			if _, err := log.show(reader, at, markRead, at, reader[:], msgs[i].Number); err != nil {
				return false, err
			}
			msgs[i].ReadAt, msgs[i].Reader = at, reader
		}
		return len(msgs) > 0, nil
	})
	if err != nil {
		return nil, 0, err
	}
	return msgs, more, nil
}

func list(t *tx, q Query) (msgs []Incoming, more int, err error) {
	query := selectUnread
	if q.Read {
		query = selectAll
	}
	msgs, total, err := incoming(t, query, hexList(q.Recipients), q.Mesh[:], q.From[:], q.ReplyTo[:], q.Unoffered, limitOf(q.Limit),
		q.Now, q.Holder, q.rank(), exceptList(q.Except), int(q.Gate))
	return msgs, max(0, total-len(msgs)), err
}

func incoming(t *tx, query string, args ...any) (msgs []Incoming, total int, err error) {
	err = t.each(query, args, func(rows *sql.Rows) error {
		var m Incoming
		var rank, urgency int
		var seq, hop int64
		if err := rows.Scan(&m.Number, fixed(m.Mesh[:]), fixed(m.Recipient[:]), fixed(m.SenderMember[:]), fixed(m.SenderSession[:]),
			&m.SenderName, fixed(m.ID[:]), &m.Mode, &m.Target, &rank, &m.ContentType, &m.Text, fixed(m.ReplyTo[:]), fixed(m.Replaces[:]),
			&m.Sent, &m.Expires, &m.Received, &seq, &m.Offered, &m.ReadAt, fixed(m.Reader[:]),
			&urgency, &m.Gate, &m.Own, &hop, &total); err != nil {
			return err
		}
		m.Priority, m.Seq = wire.Priorities[rank], uint64(seq)
		m.Urgency, m.Hop = wire.Priorities[urgency], uint64(hop)
		msgs = append(msgs, m)
		return nil
	})
	return msgs, total, err
}

// Message returns one received message.
func (d *disk) Message(ctx context.Context, id wire.ID, recipients []wire.Key) (m Incoming, err error) {
	err = d.read(ctx, func(t *tx) error {
		msgs, _, err := incoming(t, selectMessage, id[:], hexList(recipients))
		if err != nil {
			return err
		}
		if len(msgs) == 0 {
			return ErrNotFound
		}
		m = msgs[0]
		return nil
	})
	return m, err
}

// MarkRead marks one message read.
func (d *disk) MarkRead(ctx context.Context, number int64, reader wire.Key, at int64) (bool, error) {
	return d.mark(ctx, at, func(t *tx) (bool, error) {
		return (&ledger{tx: t}).show(reader, at, markRead, at, reader[:], number)
	})
}

// MarkOffered marks one unread message announced.
func (d *disk) MarkOffered(ctx context.Context, number int64, at int64) (bool, error) {
	return d.mark(ctx, at, func(t *tx) (bool, error) {
		n, err := t.exec(markOffered, at, number)
		return n > 0, err
	})
}

func (d *disk) mark(ctx context.Context, at int64, do func(*tx) (bool, error)) (first bool, err error) {
	if at <= 0 {
		return false, errNoTime
	}
	err = d.write(ctx, func(t *tx) (bool, error) {
		first, err = do(t)
		return first, err
	})
	return first && err == nil, err
}

// Unreceipted returns read messages whose senders were not told.
func (d *disk) Unreceipted(ctx context.Context, mesh wire.ID, reader wire.Key, limit int) (msgs []Incoming, err error) {
	err = d.read(ctx, func(t *tx) error {
		msgs, _, err = incoming(t, selectOwed, mesh[:], reader[:], limitOf(limit))
		return err
	})
	return msgs, err
}

// Receipted marks messages whose senders were told.
func (d *disk) Receipted(ctx context.Context, numbers []int64) error {
	return d.write(ctx, func(t *tx) (changed bool, err error) {
		for _, n := range numbers {
			rows, err := t.exec(markReceipted, n)
			if err != nil {
				return false, err
			}
			changed = changed || rows > 0
		}
		return changed, nil
	})
}

// Missing returns the gaps in the lanes to recipients.
func (d *disk) Missing(ctx context.Context, recipients []wire.Key, noticed int64) ([]Gap, error) {
	var found []gapRow
	err := d.read(ctx, func(t *tx) error {
		return t.each(selectGaps, []any{noticed, hexList(recipients)}, func(rows *sql.Rows) error {
			var g gapRow
			if err := rows.Scan(fixed(g.mesh[:]), fixed(g.session[:]), &g.name, &g.touched, &g.first, &g.last, &g.noticed); err != nil {
				return err
			}
			found = append(found, g)
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return sumGaps(found), nil
}
