package courier

import (
	"fmt"
	"strings"
	"time"

	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/render"
)

// Resume returns the courier that had this name in a process that has ended:
// what that leased is its own. Nil if the agent's path has no such name.
func Resume(box mailbox.Mailbox, pid int, path mailbox.Path, holder string) *Courier {
	if !strings.HasPrefix(holder, mailbox.HolderOf(pid)+string(path)+"/") {
		return nil
	}
	c := New(box, pid, path)
	c.holder = holder
	return c
}

// Clock makes the courier go by another clock.
func (c *Courier) Clock(now func() time.Time) *Courier {
	c.now = now
	return c
}

// NewBatch is messages for an agent as if they had been taken.
func NewBatch(a mailbox.Agent, msgs []mailbox.Incoming) *Batch { return &Batch{Messages: msgs, a: a} }

// Count says how many messages there are: "2 peer messages".
func (b *Batch) Count() string {
	if n := len(b.Messages) + b.Rest; n != 1 {
		return fmt.Sprintf("%d peer messages", n)
	}
	return "1 peer message"
}

// Senders says who has written: "2 from bob/web, 1 from carol/api (urgent)".
func (b *Batch) Senders() string { return strings.Join(b.senders(), ", ") }

// StatusLine is an agent's meshes, how many peers are online there and how much
// is unread: "acme · 3 online · 2 unread"; "" for one in no mesh.
func StatusLine(a *mailbox.Agent, unread int) string {
	served := a.Server.Alive()
	var parts []string
	for _, s := range a.Seats {
		state := "offline"
		if s.Online && served {
			state = fmt.Sprintf("%d online", s.Peers)
		}
		parts = append(parts, render.Inline(s.Name, 40)+" · "+state)
	}
	line := strings.Join(parts, ", ")
	if line != "" && unread > 0 {
		line += fmt.Sprintf(" · %d unread", unread)
	}
	return line
}
