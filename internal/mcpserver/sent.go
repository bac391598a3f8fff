package mcpserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/render"
)

// sentData is what is known of a message just sent.
type sentData struct {
	OK    bool         `json:"ok"` // every target was taken
	ID    string       `json:"id,omitempty"`
	Mesh  string       `json:"mesh"`
	To    []targetData `json:"to"`
	Reply *messageData `json:"reply,omitempty"`
}

type targetData struct {
	Target   string `json:"target"`
	Name     string `json:"name,omitempty"`
	Pubkey   string `json:"pubkey,omitempty"` // 16 hex digits
	State    string `json:"state"`            // stored, accepted, delivered, read or refused; bounced when told later
	Online   bool   `json:"online"`
	LastSeen string `json:"lastSeen,omitempty"`
	reach
	Reason     string      `json:"reason,omitempty"`
	Candidates []candidate `json:"candidates,omitempty"`
	At         string      `json:"at,omitempty"`
}

const refused = "refused"

// reportSent says of each target what is known; a group's recipients are counted.
func (c *call) reportSent(sent *client.Sent) *result {
	data := &sentData{OK: sent.OK(), Mesh: sent.Mesh}
	var order []string
	byTarget := map[string][]client.SentTarget{}
	out := 0
	for _, t := range sent.Targets {
		if _, ok := byTarget[t.Target]; !ok {
			order = append(order, t.Target)
		}
		byTarget[t.Target] = append(byTarget[t.Target], t)
		data.To = append(data.To, c.targetData(&t))
		if t.Err == nil && t.State != client.Bounced {
			out++
		}
	}
	var b strings.Builder
	if out > 0 {
		data.ID = sent.ID.String()
		fmt.Fprintf(&b, "Message %s on mesh %s:", data.ID, sent.Mesh)
	} else {
		fmt.Fprintf(&b, "Nothing was sent on mesh %s:", sent.Mesh)
	}
	for _, target := range order {
		b.WriteString("\n- " + c.targetLine(sent, target, byTarget[target]))
	}
	return &result{text: b.String(), data: data, failed: out == 0}
}

func (c *call) targetData(t *client.SentTarget) targetData {
	d := targetData{Target: render.Inline(t.Target, 128), State: string(t.State), Online: t.Online}
	if t.Err != nil {
		f := c.explain(t.Err)
		d.State, d.Reason, d.Candidates = refused, f.Message+" "+f.Hint, f.Candidates
		return d
	}
	d.Name, d.Pubkey, d.reach = t.Name, key16(t.Key), reachOf(t.Wakeability)
	if t.State == client.Bounced {
		d.State, d.Reason = refused, t.Code.Info().Text
	}
	if !t.LastSeen.IsZero() && !t.Online {
		d.LastSeen = t.LastSeen.UTC().Format(time.RFC3339)
	}
	return d
}

func isGroup(target string) bool { return target == "*" || strings.HasPrefix(target, "@") }

func (c *call) targetLine(sent *client.Sent, target string, ts []client.SentTarget) string {
	if isGroup(target) && ts[0].Err == nil {
		return c.groupLine(sent.Mesh, target, ts)
	}
	t := &ts[0]
	if t.Err != nil {
		return "refused: " + strings.ReplaceAll(c.explain(t.Err).text(), "\n", "\n  ")
	}
	who := fmt.Sprintf("%s (pubkey: %s): ", t.Name, key16(t.Key))
	switch t.State {
	case client.Stored:
		return who + "stored here, for " + c.stuck(sent.Mesh)
	case client.Bounced:
		return who + "refused: " + t.Code.Info().Text
	case client.Read:
		return who + "read"
	}
	return who + string(t.State) + "; " + t.Outlook(sent.Priority, c.now())
}

// stuck says why a message is still on this machine, and what becomes of it.
func (c *call) stuck(mesh string) string {
	const later = "it goes out by itself when the broker is back"
	set, err := c.set.Named(mesh)
	if err != nil {
		return "the broker is away; " + later
	}
	switch md := c.meshState(set[0]); {
	case md.Final:
		return "the mesh is offline for good (" + md.Error + "); tell your user"
	case md.Online:
		return "the broker has not taken it yet; it is tried again by itself"
	default:
		return "the broker is away (" + md.Error + "); " + later
	}
}

// groupLine counts: "@backend: accepted for 14, 3 of them offline: a, b, c".
func (c *call) groupLine(mesh, target string, ts []client.SentTarget) string {
	var accepted, stored int
	var offline, bounced []string
	for _, t := range ts {
		switch t.State {
		case client.Stored:
			stored++
			continue
		case client.Bounced:
			bounced = append(bounced, t.Name+" ("+t.Code.Info().Text+")")
			continue
		}
		accepted++
		if !t.Online {
			offline = append(offline, t.Name)
		}
	}
	var parts []string
	if accepted > 0 {
		p := fmt.Sprintf("accepted for %d", accepted)
		if len(offline) > 0 {
			p += fmt.Sprintf(", %d of them offline: %s", len(offline), some(offline))
		}
		parts = append(parts, p)
	}
	if stored > 0 {
		parts = append(parts, fmt.Sprintf("stored here for %d, for %s", stored, c.stuck(mesh)))
	}
	if len(bounced) > 0 {
		parts = append(parts, fmt.Sprintf("refused for %d: %s", len(bounced), some(bounced)))
	}
	return render.Inline(target, 64) + ": " + strings.Join(parts, "; ")
}

// some lists at most ten names.
func some(names []string) string {
	if len(names) > 10 {
		return strings.Join(names[:10], ", ") + fmt.Sprintf(" and %d more", len(names)-10)
	}
	return strings.Join(names, ", ")
}

// statusData is what is known of a message that was sent.
type statusData struct {
	ID     string       `json:"id"`
	Mesh   string       `json:"mesh"`
	SentAt string       `json:"sentAt"`
	To     []targetData `json:"to"`
}

func messageStatus(ctx context.Context, c *call) (*result, error) {
	var a struct {
		ID string `json:"id"`
	}
	if err := arguments(c, &a); err != nil {
		return nil, err
	}
	id, err := messageID("id", a.ID)
	if err != nil {
		return nil, err
	}
	c.settle(ctx, c.set)
	sent, at, err := c.set.Status(ctx, id)
	if errors.Is(err, client.ErrNoMessage) && c.received(ctx, id) {
		return nil, &failure{
			Code: "not_found", Message: "that message was received here, not sent",
			Hint: "check_messages with id shows it; message_status is for what you have sent.",
		}
	}
	if err != nil {
		return nil, err
	}
	data := statusData{ID: id.String(), Mesh: sent.Mesh, SentAt: at.UTC().Format(time.RFC3339), To: []targetData{}}
	var b strings.Builder
	fmt.Fprintf(&b, "Message %s on mesh %s, sent %s:", data.ID, sent.Mesh, data.SentAt)
	for i := range sent.Targets {
		t := &sent.Targets[i]
		d := c.targetData(t)
		d.State, d.LastSeen, d.At = string(t.State), "", t.LastSeen.UTC().Format(time.RFC3339)
		data.To = append(data.To, d)
		fmt.Fprintf(&b, "\n- %s (pubkey: %s): %s, %s", cmp.Or(t.Name, "?"), d.Pubkey, stateText(t), d.At)
	}
	set, err := c.set.Named(sent.Mesh)
	if err == nil {
		b.WriteString(c.offlineNote(set))
	}
	return &result{text: b.String(), data: data}, nil
}

func (c *call) received(ctx context.Context, id client.ID) bool {
	for _, cl := range c.set {
		if _, err := c.box.Message(ctx, id, cl.Addresses()); err == nil {
			return true
		}
	}
	return false
}

func stateText(t *client.SentTarget) string {
	switch t.State {
	case mailbox.Stored:
		return "stored (waits on this machine for the broker)"
	case mailbox.Accepted:
		return "accepted (on the broker's disk; not with the recipient yet)"
	case mailbox.Delivered:
		return "delivered (on the recipient's disk, by the broker's word; not read yet)"
	case mailbox.Read:
		return "read (shown to the recipient, by its own sealed receipt)"
	}
	return fmt.Sprintf("bounced: %s (%s)", t.Code.Info().Text, t.Code)
}
