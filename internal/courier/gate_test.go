package courier_test

import (
	"strings"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/internal/courier"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// allEvents are those at which something may enter.
var allEvents = []courier.Event{
	{Name: courier.SessionStart, Source: "resume"}, event(courier.UserPromptSubmit), event(courier.PostToolBatch), event(courier.Stop),
}

// Nothing tells an agent of what its person has shelved, shut out or paused.
func TestNothingByItself(t *testing.T) {
	t.Parallel()
	for name, hold := range map[string]func(w *world){
		"quarantined": func(w *world) { w.trust(mailbox.Quarantine) },
		"blocked": func(w *world) {
			_, err := w.box.ChangeTrust(ctx, mesh, wire.Key{7}, 1, func(t *mailbox.Trust) error { t.Blocked = true; return nil })
			w.check(err)
		},
		"paused": func(w *world) { w.check(w.box.SetPause(ctx, mesh, time.Now().Add(time.Hour).UnixMilli())) },
	} {
		for _, mode := range []mailbox.Mode{mailbox.Push, mailbox.Notice} {
			w := newWorld(t)
			w.change(func(a *mailbox.Agent) { a.Mode = mode })
			w.receive(wire.PriorityNow)
			hold(w)
			for _, e := range allEvents {
				if got := w.hook(e); strings.Contains(got, "bob") || strings.Contains(got, "unread") {
					t.Errorf("%s, %s, %s: %s", name, mode, e.Name, got)
				}
			}
		}
	}
}

// Of what an agent has answered too often by itself it is told, and no more.
func TestBrakedRings(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var msgs []mailbox.Incoming
	for n := range byte(21) {
		msgs = append(msgs, mailbox.Incoming{
			Mesh: mesh, Recipient: web, SenderMember: wire.Key{7}, SenderSession: wire.Key{8}, SenderName: "bob/api", ID: wire.ID{9, 100 + n},
			Mode: wire.ModeDM, Priority: wire.PriorityNow, ContentType: "text/plain", Text: "auto", Sent: 5, Expires: 1 << 50, Received: 5, Hop: 1,
		})
	}
	_, _, err := w.box.Receive(ctx, msgs)
	w.check(err)
	_, _, err = w.box.Take(ctx, mailbox.Query{Recipients: []wire.Key{web}}, web, 6) // the 20
	w.check(err)
	w.equal(w.hook(event(courier.Stop)), "") // it starts no turn
	bell := w.hook(event(courier.PostToolBatch))
	w.has(bell, "1 unread peer message: 1 from bob/api (urgent)")
	w.equal(strings.Contains(bell, "auto"), false)
	w.equal(w.hook(event(courier.PostToolBatch)), "") // once
	urgent := w.receive(wire.PriorityNow)
	text := w.hook(event(courier.PostToolBatch))
	w.has(text, urgent)
	w.equal(strings.Contains(text, "auto"), false)
	w.change(func(a *mailbox.Agent) { a.Mode = mailbox.Notice })
	w.has(w.hook(event(courier.UserPromptSubmit)), "1 unread peer message")
}
