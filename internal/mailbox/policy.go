package mailbox

import (
	"crypto/sha256"
	"errors"
	"strings"
	"time"

	"github.com/claudemesh/claudemesh/internal/audit"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// What both implementations let in, and how far.

const (
	// brakeMost is how many automatic messages may pass between a recipient and a
	// sender's session, in both directions, within brakeSpan; what comes above
	// that only rings.
	brakeMost = 20
	brakeSpan = 10 * time.Minute
	// heldMost bounds what waits for a person in one mesh.
	heldMost = 100
	// auditLife and auditLeast are what Prune keeps of the audit log, auditMost is
	// the end of it: whoever is refused often does not fill a disk.
	auditLife  = 90 * 24 * time.Hour
	auditLeast = 1000
	auditMost  = 200_000
)

// judge returns how urgent an incoming message is treated and how far it comes,
// or why it is refused. Own ones are trusted; braked ones are too many.
func judge(t *Trust, m *Incoming, braked bool) (urgency wire.Priority, gate Gate, refused error) {
	urgency = m.Priority
	if braked {
		gate = Bell
	}
	if m.Own {
		return urgency, gate, nil
	}
	if t.Blocked {
		return urgency, Shut, ErrBlocked
	}
	if !t.May(wanted(m.Mode)) {
		return urgency, Shut, ErrNotGranted
	}
	if !t.May(GrantNow) {
		urgency = atMost(urgency, wire.PriorityNext)
	}
	if !t.May(GrantWake) {
		urgency = atMost(urgency, wire.PriorityLow)
	}
	if t.level() == Quarantine {
		gate = Shelf
	}
	return urgency, gate, nil
}

// wanted is the grant that a kind of message needs.
func wanted(mode wire.Mode) Grant {
	if mode.Direct() {
		return GrantDM
	}
	return GrantBroadcast
}

// atMost is the less urgent of two priorities.
func atMost(p, most wire.Priority) wire.Priority {
	if p.Rank() < most.Rank() {
		return most
	}
	return p
}

// isAutomatic reports whether a message counts for the brake.
func isAutomatic(hop uint64) bool { return hop > 0 }

// Digest tells texts apart but for case and white space. It is kept of every
// text that was sent or received.
func Digest(text string) (d [16]byte) {
	sum := sha256.Sum256([]byte(strings.Join(strings.Fields(strings.ToLower(text)), " ")))
	copy(d[:], sum[:])
	return d
}

// codeOf is the reason of a refusal as the audit log has it.
func codeOf(err error) string {
	switch {
	case errors.Is(err, ErrBlocked):
		return "blocked"
	case errors.Is(err, ErrNotGranted):
		return "not_granted"
	case errors.Is(err, ErrReplayed):
		return string(wire.CodeReplayed)
	}
	return string(wire.CodeBadEnvelope)
}

// entryOf is what the log says of a received message.
func entryOf(m *Incoming, event audit.Event, at int64, code string) audit.Entry {
	return audit.Entry{At: at, Event: event, Mesh: m.Mesh, Member: m.SenderMember, Session: m.SenderSession, Message: m.ID, Code: code}
}

// shownTo is what the log says of a message that was put before reader.
func shownTo(m *Incoming, reader wire.Key, at int64) audit.Entry {
	e := entryOf(m, audit.Shown, at, "")
	e.Note = "to " + reader.Short()
	return e
}
