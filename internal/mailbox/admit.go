package mailbox

import "github.com/claudemesh/claudemesh/internal/wire"

const wasStored = `SELECT EXISTS (SELECT 1 FROM incoming WHERE id = ? AND recipient = ? AND sender_session = ? AND mesh = ?)`

type trustKey struct {
	mesh   wire.ID
	member wire.Key
}

// judge sets how a message is treated. Refused says why it is not taken.
func (r receiver) judge(m *Incoming) (braked bool, refused, err error) {
	known, err := r.trust(m)
	if err != nil {
		return false, nil, err
	}
	if isAutomatic(m.Hop) {
		var passed int
		if err := r.get(countAutomatic, []any{m.SenderSession[:], m.Recipient[:], m.Received - brakeSpan.Milliseconds()}, &passed); err != nil {
			return false, nil, err
		}
		braked = passed >= brakeMost
	}
	m.Urgency, m.Gate, refused = judge(known, m, braked)
	return braked, refused, nil
}

// again is what becomes of a message that was seen before: one that was refused
// is refused again, for the broker may not have heard of it.
func (r receiver) again(m *Incoming) error {
	known, err := r.trust(m)
	if err != nil {
		return err
	}
	if _, _, refused := judge(known, m, false); refused != nil {
		var stored bool
		if err := r.get(wasStored, []any{m.ID[:], m.Recipient[:], m.SenderSession[:], m.Mesh[:]}, &stored); err != nil || stored {
			return err
		}
		return refused
	}
	return nil
}

func (r receiver) trust(m *Incoming) (*Trust, error) {
	k := trustKey{m.Mesh, m.SenderMember}
	if t := r.trusts[k]; t != nil {
		return t, nil
	}
	t, err := trustOf(r.tx, m.Mesh, m.SenderMember)
	if err != nil {
		return nil, err
	}
	r.trusts[k] = &t
	return &t, nil
}
