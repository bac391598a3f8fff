package courier_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/claudemesh/claudemesh/internal/courier"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/process"
	"github.com/claudemesh/claudemesh/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const offset = 60_000 // the broker's clock before this machine's, in ms

var (
	ctx   = context.Background()
	mesh  = wire.ID{1}
	web   = wire.Key{1} // the session
	alice = wire.Key{2} // its member
)

// world is an agent, which is this process, on a real mailbox.
type world struct {
	*testing.T
	box  mailbox.Mailbox
	next byte
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "p")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	box, err := mailbox.Open(ctx, filepath.Join(dir, "mailbox.db"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, box: box}
	t.Cleanup(func() { w.check(box.Close()) })
	w.check(box.PutAgent(ctx, mailbox.Agent{
		Process: process.Self(), Mode: mailbox.Push,
		Seats: []mailbox.AgentSeat{{Mesh: mesh, Name: "acme", Key: web, Member: alice, Self: "alice/web", Offset: offset}},
	}))
	w.trust(mailbox.Trusted)
	return w
}

// trust sets the level of the member who writes.
func (w *world) trust(l mailbox.Level) {
	w.Helper()
	_, err := w.box.ChangeTrust(ctx, mesh, wire.Key{7}, 1, func(t *mailbox.Trust) error { t.Level, t.Grants = l, nil; return nil })
	w.check(err)
}

func (w *world) check(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// receive stores a message and returns its text.
func (w *world) receive(p wire.Priority) string {
	w.Helper()
	w.next++
	return w.receiveText(p, fmt.Sprintf("text-%d-%s", w.next, p))
}

func (w *world) receiveText(p wire.Priority, text string) string {
	w.Helper()
	w.next++
	_, errs, err := w.box.Receive(ctx, []mailbox.Incoming{{
		Mesh: mesh, Recipient: web, SenderMember: wire.Key{7}, SenderSession: wire.Key{8}, SenderName: "bob/api", ID: wire.ID{9, w.next},
		Mode: wire.ModeDM, Priority: p, ContentType: "text/plain", Text: text, Sent: 5, Expires: 1 << 50, Received: 5,
	}})
	w.check(errors.Join(append(errs, err)...))
	return text
}

func (w *world) agent() mailbox.Agent {
	w.Helper()
	a, err := w.box.Agent(ctx, os.Getpid())
	w.check(err)
	return a
}

func (w *world) change(f func(*mailbox.Agent)) {
	w.Helper()
	_, err := w.box.ChangeAgent(ctx, os.Getpid(), func(a *mailbox.Agent) error { f(a); return nil })
	w.check(err)
}

// hook runs a hook as a process of its own would, and returns the context it prints.
func (w *world) hook(e courier.Event) string {
	w.Helper()
	if e.Session == "" {
		e.Session = "s1"
	}
	var out strings.Builder
	w.check(w.hookTo(e, &out))
	if out.Len() == 0 {
		return ""
	}
	var answer struct {
		Specific struct {
			Event   string `json:"hookEventName"`
			Context string `json:"additionalContext"`
		} `json:"hookSpecificOutput"`
	}
	w.check(json.Unmarshal([]byte(out.String()), &answer))
	if answer.Specific.Event != e.Name {
		w.Fatalf("answers to %q", answer.Specific.Event)
	}
	return answer.Specific.Context
}

func (w *world) hookTo(e courier.Event, out interface{ Write([]byte) (int, error) }) error {
	c := courier.New(w.box, os.Getpid(), mailbox.ByHooks)
	c.Size = courier.HookSize
	return c.Hook(ctx, e, out)
}

// unread are the texts that nobody has read and nobody holds.
func (w *world) free() (texts string) {
	w.Helper()
	msgs, _, err := w.box.List(ctx, mailbox.Query{Recipients: []wire.Key{web}, Now: time.Now().UnixMilli()})
	w.check(err)
	for _, m := range msgs {
		texts += m.Text + ";"
	}
	return texts
}

// owed are the read messages whose senders are to be told.
func (w *world) owed() (texts string) {
	w.Helper()
	msgs, err := w.box.Unreceipted(ctx, mesh, web, 0)
	w.check(err)
	for _, m := range msgs {
		texts += m.Text + ";"
	}
	return texts
}

// has checks that a text holds all of the parts.
func (w *world) has(text string, parts ...string) {
	w.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			w.Fatalf("%q is not in:\n%s", p, text)
		}
	}
}

func (w *world) equal(got, want any) {
	w.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		w.Fatalf("got %v, want %v", got, want)
	}
}
