package courier

import (
	"context"
	"fmt"
	"strings"

	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/render"
)

// nudge starts the turn in which the model reads what was put into one that had
// ended.
const nudge = "[claudemesh: an urgent peer message came as the last turn ended. It stands above, in a note from the claudemesh plugin.]"

// count says how many messages there are.
func (b *Batch) count() string { return plural(len(b.Messages)+b.Rest, "peer message") }

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// showStatus keeps the person's status line as it should be.
func (s *Stream) showStatus(ctx context.Context) error {
	text, err := StatusLine(ctx, s.box, &s.agent)
	if err != nil || text == s.status {
		return err
	}
	s.status = text
	s.say(Instruction{Do: "status", Text: text})
	return nil
}

// StatusLine is an agent's meshes, who is online there, and how much is unread;
// "" for one that is off or in no mesh.
func StatusLine(ctx context.Context, box mailbox.Inbox, a *mailbox.Agent) (string, error) {
	if a.Mode == mailbox.Off || len(a.Seats) == 0 {
		return "", nil
	}
	var parts []string
	for _, seat := range a.Seats {
		state := "offline"
		if seat.Online {
			state = plural(seat.Peers, "peer") + " online"
		}
		parts = append(parts, render.Inline(seat.Name, 40)+": "+state)
	}
	msgs, more, err := box.List(ctx, mailbox.Query{Recipients: a.Recipients(), Limit: 1})
	if n := len(msgs) + more; n > 0 {
		parts = append(parts, fmt.Sprintf("%d unread", n))
	}
	return strings.Join(parts, ", "), err
}
