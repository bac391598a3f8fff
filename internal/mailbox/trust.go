package mailbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/claudemesh/claudemesh/internal/audit"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// Errors of Receive for one message: nothing of it is stored but that it was seen.
var (
	ErrBlocked    = errors.New("the sender is blocked here")
	ErrNotGranted = errors.New("the sender may not send such messages here")
)

// Gate is how far a message may come by itself. Who asks with a Gate gets what
// has that one or a lower.
type Gate int

// The gates.
const (
	OpenGate Gate = iota // it enters as its urgency wants
	Bell                 // only a notice says that it is there
	Shelf                // only who looks finds it, check_messages for one
	Shut                 // the sender is blocked: only a person's inbox command finds it
)

// Level is how far a member is trusted here.
type Level string

// The levels.
const (
	Quarantine Level = "quarantine" // its messages are shelved
	Normal     Level = "normal"
	Trusted    Level = "trusted"
)

// Levels lists the levels, from the least.
var Levels = []Level{Quarantine, Normal, Trusted}

// Grant is one thing that a member may do here.
type Grant string

// The grants.
const (
	GrantDM        Grant = "dm"        // write to this member and its sessions
	GrantBroadcast Grant = "broadcast" // write to groups and to all
	GrantNow       Grant = "now"       // break into a running turn; without it now is treated as next
	GrantWake      Grant = "wake"      // start a turn; without it all is treated as low
)

// AllGrants lists the grants.
var AllGrants = []Grant{GrantDM, GrantBroadcast, GrantNow, GrantWake}

// Grants are what comes with a level; nil for what is none.
func (l Level) Grants() []Grant {
	switch l {
	case Quarantine:
		return []Grant{GrantDM}
	case Normal:
		return []Grant{GrantDM, GrantBroadcast, GrantWake}
	case Trusted:
		return slices.Clone(AllGrants)
	}
	return nil
}

// Trust is what a member of a mesh may do here. Times are Unix ms.
type Trust struct {
	Mesh     wire.ID
	Member   wire.Key
	Level    Level
	Grants   []Grant // nil: those of Level
	Blocked  bool
	Verified int64 // when its safety number was compared; 0: never
	Changed  int64 // 0: never
}

// May reports whether the member has a grant. It does not look at Blocked.
func (t *Trust) May(g Grant) bool { return slices.Contains(t.granted(), g) }

func (t *Trust) granted() []Grant {
	if t.Grants == nil {
		return t.level().Grants()
	}
	return t.Grants
}

func (t *Trust) level() Level {
	if t.Level == "" {
		return Normal
	}
	return t.Level
}

// complete fills in what is left to the level, and puts the grants in order.
func (t *Trust) complete() error {
	t.Level = t.level()
	if !slices.Contains(Levels, t.Level) {
		return fmt.Errorf("unknown level %q", t.Level)
	}
	have := t.granted()
	t.Grants = []Grant{}
	for _, g := range AllGrants {
		if slices.Contains(have, g) {
			t.Grants = append(t.Grants, g)
		}
	}
	for _, g := range have {
		if !slices.Contains(AllGrants, g) {
			return fmt.Errorf("unknown grant %q", g)
		}
	}
	return nil
}

// joined is the grants as they are stored.
func joined(grants []Grant) string {
	texts := make([]string, len(grants))
	for i, g := range grants {
		texts[i] = string(g)
	}
	return strings.Join(texts, ",")
}

// split is the inverse of joined.
func split(text string) []Grant {
	grants := []Grant{}
	for s := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' }) {
		grants = append(grants, Grant(s))
	}
	return grants
}

// changes are the entries that a change of trust is worth.
func (t *Trust) changes(was *Trust) (entries []audit.Entry) {
	add := func(event audit.Event, note string) {
		entries = append(entries, audit.Entry{At: t.Changed, Event: event, Mesh: t.Mesh, Member: t.Member, Note: note})
	}
	if t.Blocked != was.Blocked {
		add(map[bool]audit.Event{true: audit.Blocked, false: audit.Unblocked}[t.Blocked], "")
	}
	if t.Level != was.Level || !slices.Equal(t.Grants, was.Grants) {
		add(audit.Granted, string(t.Level)+": "+joined(t.Grants))
	}
	if t.Verified != was.Verified && t.Verified > 0 {
		add(audit.Verified, "")
	}
	return entries
}

// changeTrust lets change alter what is known and completes it.
func changeTrust(was Trust, at int64, change func(*Trust) error) (t Trust, err error) {
	if at <= 0 {
		return t, errNoTime
	}
	t = was
	t.Grants = slices.Clone(was.Grants)
	if err := change(&t); err != nil {
		return t, err
	}
	t.Mesh, t.Member, t.Changed = was.Mesh, was.Member, at
	return t, t.complete()
}

// noTrust is what is known of a member that nothing was said of.
func noTrust(mesh wire.ID, member wire.Key) Trust {
	return Trust{Mesh: mesh, Member: member, Level: Normal, Grants: Normal.Grants()}
}

// Trusts is whom this mailbox's owner lets in, and how far. Every process that
// has the mailbox open goes by it and is woken by its Watch.
type Trusts interface {
	// ChangeTrust lets change alter what is known of a member and stores it, in one
	// transaction; an error of change leaves it as it was. The member's unread
	// messages are gated anew, and the log tells what changed. A change that sets
	// Level leaves Grants nil for those of the level. At is Unix ms.
	ChangeTrust(ctx context.Context, mesh wire.ID, member wire.Key, at int64, change func(*Trust) error) (Trust, error)
	// Trust returns what is known of a member: normal if nothing is.
	Trust(ctx context.Context, mesh wire.ID, member wire.Key) (Trust, error)
	// Trusts returns what was ever changed in a mesh, by member key.
	Trusts(ctx context.Context, mesh wire.ID) ([]Trust, error)
	// SetPause holds everything of a mesh back until a time (Unix ms of this
	// machine; 0 ends it): it matches no query of that time with a Gate below Shut.
	SetPause(ctx context.Context, mesh wire.ID, until int64) error
	// Paused returns until when a mesh is paused at a time, 0 if it is not.
	Paused(ctx context.Context, mesh wire.ID, now int64) (until int64, err error)
}

// Log is the mailbox's audit log. Receive, Take, MarkRead, MarkShown and
// ChangeTrust write into it what they do, in their own transactions. Prune keeps
// what is younger than 90 days, but no more than the last 200,000 records and no less
// than the last 1,000. A mailbox in memory keeps some 10,000 to 20,000.
type Log interface {
	// Record adds entries, in order.
	Record(ctx context.Context, entries ...audit.Entry) error
	// Audit returns the records whose number is above after, in order; limit 0 is 100.
	Audit(ctx context.Context, after int64, limit int) ([]audit.Record, error)
}
