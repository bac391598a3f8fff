package client

import (
	"time"

	"github.com/claudemesh/claudemesh/internal/render"
)

// Outlook says in a sentence when a recipient sees a message that its broker has
// taken: as far as it is known, and no more.
func (t *SentTarget) Outlook(p Priority, now time.Time) string {
	const later = "will see it at its next turn"
	wakes := t.Wake == ByMod || t.Wake == ByRewake
	switch {
	case !t.Online:
		return "nobody at " + t.Name + render.Since(t.LastSeen, now) + ": the message waits for it"
	case t.Wake == "":
		return t.Name + " is online"
	case t.Wake == ByNone:
		return t.Name + " is online and will see it when it checks its messages"
	case t.DND && p != Now:
		return t.Name + " is not to be disturbed and will see it later"
	case !wakes || p == Low:
		return t.Name + " " + later
	case t.Woken.IsZero():
		return t.Name + " can be woken (not yet proven)"
	}
	return t.Name + " can be woken, proven " + render.Span(now.Sub(t.Woken)) + " ago"
}
