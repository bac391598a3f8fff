package mailbox

import (
	"context"

	"github.com/claudemesh/claudemesh/internal/audit"
	"github.com/claudemesh/claudemesh/internal/wire"
)

const (
	selectFloor = `SELECT expires FROM floor WHERE mesh = ?`
	// Seen by this recipient, or replaced by a message of the same member.
	wasSeen = `SELECT EXISTS (SELECT 1 FROM seen WHERE mesh = ?1 AND id = ?2
		AND ((recipient = ?3 AND sender_session = ?4) OR (recipient = zeroblob(32) AND sender_member = ?5)))`
	// Of the same member only: else anyone who knows an id could keep others
	// from sending it anew.
	wasReplaced = `SELECT EXISTS (SELECT 1 FROM seen WHERE mesh = ? AND id = ? AND sender_member = ?)`
	insertSeen  = `INSERT INTO seen (mesh, id, recipient, sender_session, sender_member, expires)
		VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`
	insertIncoming = `INSERT INTO incoming (mesh, recipient, sender_member, sender_session, sender_name, id, mode, target,
		priority, content_type, text, reply_to, replaces, sent, expires, received, seq, offered, read_at, reader,
		own, hop, urgency, gate, braked, digest)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
	selectLane = `SELECT number, last FROM lane_in
		WHERE mesh = ? AND sender_session = ? AND recipient = ? AND priority = ?`
	insertLane = `INSERT INTO lane_in (mesh, sender_session, recipient, priority, last, sender_name, touched)
		VALUES (?, ?, ?, ?, ?, ?, ?)`
	moveLane  = `UPDATE lane_in SET last = max(last, ?), sender_name = ?, touched = ? WHERE number = ?`
	selectGap = `SELECT first, last, noticed FROM gap WHERE lane = ? AND first <= ? ORDER BY first DESC LIMIT 1`
	insertGap = `INSERT INTO gap (lane, first, last, noticed) VALUES (?, ?, ?, ?)`
	deleteGap = `DELETE FROM gap WHERE lane = ? AND first = ?`
)

var zeroKey wire.Key

// Receive stores a batch in one transaction and sets the Number of what is fresh.
func (d *disk) Receive(ctx context.Context, in []Incoming) (fresh []bool, errs []error, err error) {
	if len(in) == 0 {
		return nil, nil, nil
	}
	fresh, errs = make([]bool, len(in)), make([]error, len(in))
	numbers := make([]int64, len(in))
	err = d.write(ctx, func(t *tx) (any bool, err error) {
		r := receiver{ledger: &ledger{tx: t}, floors: make(map[wire.ID]int64), trusts: make(map[trustKey]*Trust)}
		for i := range in {
			if errs[i] = checkIncoming(&in[i]); errs[i] != nil {
				continue
			}
			numbers[i], fresh[i], err = r.receive(&in[i])
			if isRefusal(err) {
				errs[i], err = err, nil
			}
			if err != nil {
				return false, err
			}
			any = any || fresh[i]
		}
		return any, nil
	})
	if err != nil {
		return nil, nil, err
	}
	for i, n := range numbers {
		if n > 0 {
			in[i].Number = n
		}
	}
	return fresh, errs, nil
}

// receiver keeps what a batch needs to read but once.
type receiver struct {
	*ledger
	floors map[wire.ID]int64
	trusts map[trustKey]*Trust
}

// receive stores one message. Number is 0 for a receipt, which is seen but
// never listed.
func (r receiver) receive(m *Incoming) (number int64, fresh bool, err error) {
	var seen, replaced bool
	if err := r.get(wasSeen, []any{m.Mesh[:], m.ID[:], m.Recipient[:], m.SenderSession[:], m.SenderMember[:]}, &seen); err != nil {
		return 0, false, err
	}
	if !seen {
		if floor, known, err := r.floor(m.Mesh); err != nil {
			return 0, false, err
		} else if known && m.Expires <= floor {
			return 0, false, r.refuse(m, ErrReplayed)
		}
	}
	if !m.Replaces.IsZero() {
		if err := r.get(wasReplaced, []any{m.Mesh[:], m.Replaces[:], m.SenderMember[:]}, &replaced); err != nil {
			return 0, false, err
		}
	}
	if err := r.mark(m); err != nil {
		return 0, false, err
	}
	if err := r.lane(m); err != nil {
		return 0, false, err
	}
	switch {
	case m.Mode == wire.ModeReceipt:
		return 0, !seen && !replaced, nil
	case seen:
		return 0, false, r.again(m)
	}
	braked, refused, err := r.judge(m)
	switch {
	case err != nil:
		return 0, false, err
	case refused != nil:
		return 0, false, r.refuse(m, refused)
	case replaced:
		return 0, false, nil
	}
	number, err = r.insert(insertIncoming, m.Mesh[:], m.Recipient[:], m.SenderMember[:], m.SenderSession[:], m.SenderName, m.ID[:],
		string(m.Mode), m.Target, m.Priority.Rank(), m.ContentType, m.Text, m.ReplyTo[:], m.Replaces[:], m.Sent, m.Expires,
		m.Received, int64(m.Seq), m.Offered, m.ReadAt, m.Reader[:],
		m.Own, int64(m.Hop), m.Urgency.Rank(), int(m.Gate), braked, textDigest(m.Text))
	if err != nil {
		return 0, false, err
	}
	return number, true, r.add(entryOf(m, audit.Received, m.Received, ""))
}

// refuse logs that a message is not taken, and why.
func (r receiver) refuse(m *Incoming, why error) error {
	if err := r.add(entryOf(m, audit.Refused, m.Received, codeOf(why))); err != nil {
		return err
	}
	return why
}

func (r receiver) floor(mesh wire.ID) (floor int64, known bool, err error) {
	if f, ok := r.floors[mesh]; ok {
		return f, f != noFloor, nil
	}
	err = r.get(selectFloor, []any{mesh[:]}, &floor)
	if noRows(err) {
		floor, err = noFloor, nil
	}
	if err != nil {
		return 0, false, err
	}
	r.floors[mesh] = floor
	return floor, floor != noFloor, nil
}

// noFloor stands for a mesh of which nothing was forgotten yet.
const noFloor = -1 << 63

// mark remembers the id of m and the one it replaces.
func (r receiver) mark(m *Incoming) error {
	if _, err := r.exec(insertSeen, m.Mesh[:], m.ID[:], m.Recipient[:], m.SenderSession[:], m.SenderMember[:], m.Expires); err != nil {
		return err
	}
	if m.Replaces.IsZero() || !m.Mode.Direct() {
		return nil
	}
	_, err := r.exec(insertSeen, m.Mesh[:], m.Replaces[:], zeroKey[:], zeroKey[:], m.SenderMember[:], m.Expires)
	return err
}

// lane notes that a number of a lane has come, and which ones before it did not.
func (r receiver) lane(m *Incoming) error {
	if !inLane(m) {
		return nil
	}
	var lane int64
	var last uint64
	rank := m.Priority.Rank()
	err := r.get(selectLane, []any{m.Mesh[:], m.SenderSession[:], m.Recipient[:], rank}, &lane, &last)
	if noRows(err) {
		_, err = r.exec(insertLane, m.Mesh[:], m.SenderSession[:], m.Recipient[:], rank, m.Seq, m.SenderName, m.Received)
		return err
	}
	if err != nil {
		return err
	}
	switch {
	case m.Seq > last+1:
		if _, err := r.exec(insertGap, lane, last+1, m.Seq-1, m.Received); err != nil {
			return err
		}
	case m.Seq <= last:
		if err := r.fill(lane, m.Seq); err != nil {
			return err
		}
	}
	_, err = r.exec(moveLane, m.Seq, m.SenderName, m.Received, lane)
	return err
}

// fill takes seq out of the range that misses it, if one does.
func (r receiver) fill(lane int64, seq uint64) error {
	var g missed
	err := r.get(selectGap, []any{lane, seq}, &g.first, &g.last, &g.noticed)
	if noRows(err) || (err == nil && g.last < seq) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := r.exec(deleteGap, lane, g.first); err != nil {
		return err
	}
	for _, rest := range g.without(seq) {
		if _, err := r.exec(insertGap, lane, rest.first, rest.last, rest.noticed); err != nil {
			return err
		}
	}
	return nil
}
