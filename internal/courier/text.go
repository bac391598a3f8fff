package courier

import (
	"fmt"
	"strings"
	"time"

	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/render"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// Text is the messages, each in its frame, with a line on how many more wait.
func (b *Batch) Text() string {
	var t strings.Builder
	for i := range b.Messages {
		if i > 0 {
			t.WriteByte('\n')
		}
		t.WriteString(b.block(&b.Messages[i]))
	}
	if b.Rest > 0 {
		fmt.Fprintf(&t, "\n[claudemesh: %d more unread; check_messages shows them]", b.Rest)
	}
	return t.String()
}

func (b *Batch) block(in *mailbox.Incoming) string {
	mesh := ""
	if s := b.a.Seat(in.Mesh); s != nil {
		mesh = s.Name
	}
	return Message(in, mesh).BlockWithin(render.MaxBody)
}

// Doorbell is one line that says who has written, without a word of what: it
// may stand where the model trusts a text more than a peer's. Empty when nobody has.
func (b *Batch) Doorbell() string {
	if len(b.Messages)+b.Rest == 0 {
		return ""
	}
	return "[claudemesh: " + b.count("unread peer message") + ": " + b.Senders() + ". The tool check_messages shows them.]"
}

// senders says of each who has written how many messages there are, in order.
func (b *Batch) senders() (parts []string) {
	const most = 4
	var names []string
	count, urgent := map[string]int{}, map[string]bool{}
	for i := range b.Messages {
		m := &b.Messages[i]
		if count[m.SenderName]++; count[m.SenderName] == 1 {
			names = append(names, m.SenderName)
		}
		urgent[m.SenderName] = urgent[m.SenderName] || m.Urgency == wire.PriorityNow
	}
	for _, name := range names[:min(most, len(names))] {
		text := fmt.Sprintf("%d from %s", count[name], render.Inline(name, 80))
		if urgent[name] {
			text += " (urgent)"
		}
		parts = append(parts, text)
	}
	if len(names) > most {
		parts = append(parts, fmt.Sprintf("%d others", len(names)-most))
	}
	return parts
}

// Message is a received message as render shows it, as urgent as it is treated here.
func Message(in *mailbox.Incoming, mesh string) *render.Message {
	msg := &render.Message{
		From: in.SenderName, Mesh: mesh, Pubkey: in.SenderSession.String()[:16], ID: in.ID.String(),
		Priority: string(in.Urgency), Sent: time.UnixMilli(in.Sent), Text: in.Text,
	}
	if !in.ReplyTo.IsZero() {
		msg.ReplyTo = in.ReplyTo.String()
	}
	if in.Mode == wire.ModeGroup || in.Mode == wire.ModeBroadcast {
		msg.Target = in.Target
	}
	return msg
}

// Count says how many messages there are: "2 peer messages".
func (b *Batch) Count() string { return b.count("peer message") }

func (b *Batch) count(what string) string {
	if n := len(b.Messages) + b.Rest; n != 1 {
		return fmt.Sprintf("%d %ss", n, what)
	}
	return "1 " + what
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
