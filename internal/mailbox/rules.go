package mailbox

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// What both implementations decide alike.

// defaultLimit stands in for a limit of 0.
const defaultLimit = 100

// seenGrace is how long after its expiry an id is remembered at least.
const seenGrace = 24 * time.Hour

// gapLife is how long a gap is remembered: no message lives longer than 30
// days, so that an older gap cannot be filled any more.
const gapLife = 31 * 24 * time.Hour

// maxSeq bounds the numbers that lanes are kept for. No honest session gets
// there; a liar's numbers would overflow the count of what is missing.
const maxSeq = math.MaxUint32

var (
	errNoRecipients = errors.New("a query needs recipients")
	errNoTime       = errors.New("a time must be above 0")
)

// states lists the states by the number they are stored as.
var states = [...]State{Stored, Accepted, Delivered, Read, Bounced}

const (
	rankStored = iota
	rankAccepted
	rankDelivered
	rankRead
	rankBounced
)

// rank returns the number of s, -1 for what is none.
func (s State) rank() int { return slices.Index(states[:], s) }

// later reports whether a recipient in state from may move to state to.
func later(from, to int) bool {
	if to == rankBounced {
		return from < rankDelivered
	}
	return from != rankBounced && from < to
}

func limitOf(n int) int {
	if n <= 0 {
		return defaultLimit
	}
	return n
}

// checkOutgoing refuses what no reader of the outbox could handle, and says
// stored where no state was given.
func checkOutgoing(o *Outgoing) error {
	if o.ID.IsZero() || !o.Mode.Valid() || o.Priority.Rank() < 0 {
		return errors.New("an outgoing message needs id, mode and priority")
	}
	o.Recipients = slices.Clone(o.Recipients)
	for i := range o.Recipients {
		r := &o.Recipients[i]
		if r.State == "" {
			r.State = Stored
		}
		if r.State.rank() < 0 {
			return fmt.Errorf("unknown state %q", r.State)
		}
		for _, other := range o.Recipients[:i] {
			if other.Key == r.Key {
				return errors.New("a message has one recipient twice")
			}
		}
	}
	return nil
}

func errTaken(id wire.ID) error { return fmt.Errorf("message %s is in the outbox already", id) }

func checkIncoming(m *Incoming) error {
	if m.ID.IsZero() || m.Recipient.IsZero() || m.SenderSession.IsZero() {
		return errors.New("a message needs id, recipient and sender")
	}
	if !m.Mode.Valid() || m.Priority.Rank() < 0 {
		return errors.New("a message needs mode and priority")
	}
	return nil
}

// isRefusal reports whether an error of Receive is one message's.
func isRefusal(err error) bool {
	return errors.Is(err, ErrReplayed) || errors.Is(err, ErrBlocked) || errors.Is(err, ErrNotGranted)
}

// inLane reports whether the number of a message takes part in its lane.
func inLane(m *Incoming) bool { return m.Seq >= 1 && m.Seq <= maxSeq }

func checkStatement(s Statement) error {
	n := 0
	if len(s.Certificate) > 0 {
		n++
	}
	for _, one := range []*wire.Signed{s.Removal, s.Close, s.Role, s.Pause} {
		if one != nil {
			n++
		}
	}
	if n != 1 {
		return errors.New("a statement is exactly one of certificate, removal, close, role and pause")
	}
	return nil
}

func errOtherKey(generation uint64) error {
	return fmt.Errorf("another mesh key of generation %d is known already", generation)
}

// missed is a range of numbers of a lane that did not come.
type missed struct {
	first, last uint64
	noticed     int64
}

// without returns what is left of m when seq has come.
func (m missed) without(seq uint64) []missed {
	var rest []missed
	if m.first < seq {
		rest = append(rest, missed{m.first, seq - 1, m.noticed})
	}
	if seq < m.last {
		rest = append(rest, missed{seq + 1, m.last, m.noticed})
	}
	return rest
}

// gapRow is one missed range with what its lane knows of the sender.
type gapRow struct {
	mesh    wire.ID
	session wire.Key
	name    string
	touched int64 // when the lane last moved: the newest name is shown
	missed
}

// sumGaps adds up the ranges of each sender, the longest missed first.
func sumGaps(rows []gapRow) []Gap {
	slices.SortFunc(rows, func(a, b gapRow) int {
		switch {
		case a.noticed != b.noticed:
			return compare(a.noticed, b.noticed)
		case a.mesh != b.mesh:
			return slices.Compare(a.mesh[:], b.mesh[:])
		case a.session != b.session:
			return slices.Compare(a.session[:], b.session[:])
		}
		return compare(a.first, b.first)
	})
	var gaps []Gap
	var touched []int64
	for _, r := range rows {
		i := slices.IndexFunc(gaps, func(g Gap) bool { return g.Mesh == r.mesh && g.SenderSession == r.session })
		if i < 0 {
			i = len(gaps)
			gaps = append(gaps, Gap{Mesh: r.mesh, SenderSession: r.session, SenderName: r.name})
			touched = append(touched, r.touched)
		}
		gaps[i].Count += int(r.last - r.first + 1)
		if r.touched > touched[i] {
			gaps[i].SenderName, touched[i] = r.name, r.touched
		}
	}
	return gaps
}

func compare[T int64 | uint64](a, b T) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}

// mergePeer returns what is known of a peer after p was seen.
func mergePeer(old KnownPeer, p KnownPeer) KnownPeer {
	if p.CardSeq < old.CardSeq || (p.CardSeq == old.CardSeq && p.Card == nil) {
		p.CardSeq, p.Card = old.CardSeq, old.Card
	}
	if p.Attestation == nil {
		p.Attestation = old.Attestation
	}
	if p.Role == "" {
		p.Role = old.Role
	}
	p.LastSeen = max(p.LastSeen, old.LastSeen)
	return p
}
