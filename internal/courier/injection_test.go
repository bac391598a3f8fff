package courier_test

import (
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/claudemesh/claudemesh/internal/courier"
	"github.com/claudemesh/claudemesh/internal/injection"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/process"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// hostile is a world whose messages are hostile texts, numbered.
type hostile struct {
	*world
	sent uint64
}

// newHostile has its mailbox in memory: what is tested is what comes out.
func newHostile(t *testing.T) *hostile {
	t.Helper()
	w := &world{T: t, box: mailbox.NewMemory()}
	w.check(w.box.PutAgent(ctx, mailbox.Agent{
		Process: process.Self(), Mode: mailbox.Push,
		Seats: []mailbox.AgentSeat{{Mesh: mesh, Name: "acme", Key: web, Member: alice, Self: "alice/web", Offset: offset, Online: true}},
	}))
	w.trust(mailbox.Trusted)
	return &hostile{world: w}
}

// put stores a message of this text, from this sender to this target.
func (h *hostile) put(p wire.Priority, text, sender, target string) {
	h.Helper()
	h.sent++
	m := mailbox.Incoming{
		Mesh: mesh, Recipient: web, SenderMember: wire.Key{7}, SenderSession: wire.Key{8}, SenderName: sender, ID: wire.ID{9},
		Mode: wire.ModeGroup, Target: target, Priority: p, ContentType: "text/plain", Text: text, Sent: 5, Expires: 1 << 50, Received: 5,
	}
	binary.BigEndian.PutUint64(m.ID[8:], h.sent)
	_, errs, err := h.box.Receive(ctx, []mailbox.Incoming{m})
	h.check(errors.Join(append(errs, err)...))
}

// want are the attributes of the message that was put last.
func (h *hostile) want(p wire.Priority) map[string]string {
	id := wire.ID{9}
	binary.BigEndian.PutUint64(id[8:], h.sent)
	return map[string]string{
		"from": "bob/api", "mesh": "acme", "pubkey": "0800000000000000", "id": id.String(), "priority": string(p),
		"sent": "1970-01-01T00:00:00Z", "to": "@all",
	}
}

// hook runs a hook and returns the context that it gives, which must be one.
func (h *hostile) hook(e courier.Event) string {
	h.Helper()
	var out strings.Builder
	e.Session = "s1"
	h.check(h.hookTo(e, &out))
	context, err := injection.CheckHook(out.String(), e.Name)
	h.check(err)
	if n := utf8.RuneCountInString(context); n > 10_000 {
		h.Errorf("%d characters: Claude Code shows less", n)
	}
	return context
}

// A hostile text enters by each event as one block with our attributes.
func TestHostileTextsInHooks(t *testing.T) {
	t.Parallel()
	h := newHostile(t)
	for _, p := range injection.Payloads() {
		for event, priority := range map[string]wire.Priority{
			courier.UserPromptSubmit: wire.PriorityLow, courier.PostToolBatch: wire.PriorityNow, courier.Stop: wire.PriorityNext,
		} {
			h.put(priority, p.Text, "bob/api", "@all")
			context := h.hook(courier.Event{Name: event})
			if err := injection.CheckText(context, 1, h.want(priority)); err != nil {
				t.Errorf("%s: %s: %s: %v", event, p.Class, p.Name, err)
			}
			h.check(h.hookTo(courier.Event{Name: courier.SessionEnd, Session: "s1"}, &strings.Builder{})) // it is put back
			_, _, err := h.box.Take(ctx, mailbox.Query{Recipients: []wire.Key{web}}, web, 1)              // and out of the way
			h.check(err)
		}
	}
}

// Several enter together, and our own lines stand beside them alone.
func TestHostileTextsTogether(t *testing.T) {
	t.Parallel()
	h := newHostile(t)
	for _, p := range injection.Payloads() {
		h.put(wire.PriorityNext, p.Text, "bob/api", p.Text)
	}
	c := courier.New(h.box, os.Getpid(), mailbox.ByHooks)
	for seen := 0; uint64(seen) < h.sent; {
		b, err := c.Take(ctx, h.agent(), wire.PriorityLow, time.Now().Add(time.Minute))
		h.check(err)
		var ours []string
		if b.Rest > 0 {
			ours = append(ours, b.Text()[strings.LastIndexByte(b.Text(), '\n')+1:])
			if !strings.HasPrefix(ours[0], "[claudemesh: ") || !strings.HasSuffix(ours[0], " more unread; check_messages shows them]") {
				t.Fatalf("the last line: %q", ours)
			}
		}
		if err := injection.CheckText(b.Text(), len(b.Messages), nil, ours...); err != nil {
			t.Fatal(err)
		}
		h.check(c.Shown(ctx, b))
		seen += len(b.Messages)
	}
}

// What rings, greets or stands in the status line is one line of ours, whatever
// a sender, a session and a mesh were called.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	h := newHostile(t)
	for _, p := range injection.Payloads() {
		line := func(what, got, begin, end string) {
			t.Helper()
			if err := injection.CheckLine(got); err != nil || !strings.HasPrefix(got, begin) || !strings.HasSuffix(got, end) || strings.ContainsAny(got, `<>"`) {
				t.Errorf("%s: %s: %s: %.300q %v", p.Class, p.Name, what, got, err)
			}
		}
		h.change(func(a *mailbox.Agent) { a.Mode, a.Seats[0].Name, a.Seats[0].Self = mailbox.Notice, "acme", "alice/web" })
		h.put(wire.PriorityNow, "the text", p.Text, "@all")
		const begin, end = "[claudemesh: 1 unread peer message: 1 from ", " (urgent). The tool check_messages shows them.]"
		for _, event := range []string{courier.UserPromptSubmit, courier.PostToolBatch} {
			line(event, h.hook(courier.Event{Name: event}), begin, end)
		}
		h.change(func(a *mailbox.Agent) { a.Seats[0].Name, a.Seats[0].Self = p.Text, p.Text })
		greeting, bell, _ := strings.Cut(h.hook(courier.Event{Name: courier.SessionStart, Source: "startup"}), "\n")
		line("greeting", greeting, "[claudemesh: this session is ", "]")
		line("bell", bell, begin, end)
		a := h.agent()
		line("status", courier.StatusLine(&a, 1), "", " · offline · 1 unread")
		_, _, err := h.box.Take(ctx, mailbox.Query{Recipients: []wire.Key{web}}, web, 1)
		h.check(err)
	}
}

// A waiter wakes with blocks alone.
func TestHostileTextsWake(t *testing.T) {
	inBubble(t, func(w *world) {
		for _, p := range injection.Some(10) {
			n := w.wait(atStop, os.Getpid())
			n.running()
			w.receiveText(wire.PriorityNow, p.Text)
			if err := injection.CheckText(n.ended(), 1, nil); err != nil {
				t.Errorf("%s: %s: %v", p.Class, p.Name, err)
			}
			w.change(func(a *mailbox.Agent) { a.Status, a.Shown = courier.Idle, nil })
		}
	})
}
