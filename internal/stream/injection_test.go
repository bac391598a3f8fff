package stream

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/internal/injection"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// put stores a message of this text, from this sender.
func (r *room) put(p wire.Priority, text, sender string) map[string]string {
	r.Helper()
	r.sent++
	m := mailbox.Incoming{
		Mesh: id(1), Recipient: key(1), SenderMember: key(3), SenderSession: key(4), SenderName: sender, ID: id(100 + r.sent),
		Mode: wire.ModeDM, Target: "alice/web", Priority: p, ContentType: "text/plain", Text: text, Sent: 5, Expires: 1 << 50,
		Received: r.clock.UnixMilli(), Seq: uint64(r.sent),
	}
	_, _, err := r.box.Receive(ctx, []mailbox.Incoming{m})
	check(r, err)
	return map[string]string{
		"from": sender, "mesh": "acme", "pubkey": key(4).String()[:16], "id": m.ID.String(), "priority": string(p), "sent": "1970-01-01T00:00:00Z",
	}
}

// A hostile text enters in each way as one block, and beside it the mod is told nothing of it.
func TestHostileTexts(t *testing.T) {
	t.Parallel()
	r := emptyRoom(t, mailbox.NewMemory())
	check(t, r.box.PutAgent(ctx, agentOf(mailbox.Push)))
	r.trust(mailbox.Trusted)
	r.hello()
	for _, p := range injection.Payloads() {
		holds := func(how, text string, want map[string]string) {
			t.Helper()
			if err := injection.CheckText(text, 1, want); err != nil {
				t.Errorf("%s: %s: %s: %v", p.Class, p.Name, how, err)
			}
		}
		want := r.put(wire.PriorityNow, p.Text, "bob/api")
		check(t, r.s.Look(ctx))
		i := r.did("submit")
		if len(i) != 1 {
			t.Fatalf("%s: %d turns are begun", p.Name, len(i))
		}
		holds("submit", i[0].Text, want)
		r.begin()
		r.over(i[0], viaSubmit, "")
		r.step()
		want = r.put(wire.PriorityNow, p.Text, "bob/api")
		a := r.event(Event{Name: "tool"})
		holds("append", a.Append, want)
		if len(a.Context) > 0 {
			t.Errorf("%s: beside it: %q", p.Name, a.Context)
		}
		r.over(Instruction{Batch: a.Batch, Holds: a.Holds}, viaAppend, "")
		r.step()
		r.complete(false)

		want = r.put(wire.PriorityLow, p.Text, "bob/api")
		a = r.event(Event{Name: "prompt"})
		holds("context", strings.Join(a.Context, "\n"), want)
		r.over(Instruction{Batch: a.Batch, Holds: a.Holds}, viaPrompt, "")
		r.begin()
		r.step()
		r.complete(false)
		for _, i := range r.did("log", "status", "submit") {
			if !slices.Contains([]string{
				"1 peer message put before Claude: 1 from bob/api (urgent)", "1 peer message read with your prompt: 1 from bob/api",
				"acme · 2 online", "acme · 2 online · 1 unread", "acme · 2 online · 2 unread",
			}, i.Text) {
				t.Errorf("%s: %s: %q", p.Name, i.Do, i.Text)
			}
		}
		r.pass(time.Second)
	}
	r.unread(0, 0)
}

// What only rings is one line of ours whatever the sender is called, and each
// instruction is one line of JSON.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	for _, p := range injection.Payloads() {
		r := emptyRoom(t, mailbox.NewMemory())
		check(t, r.box.PutAgent(ctx, agentOf(mailbox.Notice)))
		r.hello()
		r.put(wire.PriorityNext, p.Text, p.Text)
		check(t, r.s.Look(ctx))
		a := r.event(Event{Name: "prompt"})
		bell := strings.Join(a.Context, "\n")
		if err := injection.CheckLine(bell); err != nil || a.Append != "" || strings.ContainsAny(bell, `<>"`) ||
			!strings.HasPrefix(bell, "[claudemesh: 1 unread peer message: 1 from ") || !strings.HasSuffix(bell, ". The tool check_messages shows them.]") {
			t.Errorf("%s: %s: %q, %v", p.Class, p.Name, bell, err)
		}
		r.s.agent.Mode = mailbox.Push
		for _, i := range r.did("log", "status") {
			line, err := json.Marshal(i)
			if err == nil {
				err = injection.CheckLine(string(line))
			}
			if err == nil {
				err = injection.CheckLine(i.Text)
			}
			if err != nil {
				t.Errorf("%s: %s: %v", p.Class, p.Name, err)
			}
		}
	}
}
