package mailbox_test

import (
	"errors"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/internal/audit"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// logged is the audit log as events with code and note, checked.
func logged(t testing.TB, b mailbox.Mailbox) (events []string) {
	t.Helper()
	records, err := b.Audit(ctx, 0, 10_000)
	check(t, err)
	n, err := audit.Verify(func(yield func(audit.Record, error) bool) {
		for _, r := range records {
			if !yield(r, nil) {
				return
			}
		}
	})
	check(t, err)
	equal(t, n, len(records))
	for _, r := range records {
		text := string(r.Event)
		if r.Code != "" {
			text += " " + r.Code
		}
		if r.Note != "" {
			text += " (" + r.Note + ")"
		}
		events = append(events, text)
	}
	return events
}

func TestAuditLog(t *testing.T) {
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		old := in(4)
		old.Expires = 10
		receive(t, b, in(1), in(2), in(3), in(1), old)
		_, _, err := b.Take(ctx, mailbox.Query{Recipients: toBob.Recipients, Limit: 1}, bob, 11)
		check(t, err)
		_, _ = b.MarkRead(ctx, 2, bob, 12)
		_, _ = b.MarkRead(ctx, 2, bob, 12)
		q := held("7/mod/a", 1)
		q.Limit = 1
		_, _, err = b.Lease(ctx, q, 100)
		check(t, err)
		_, err = b.MarkShown(ctx, "7/mod/a", []mailbox.Showing{{3, carol, 13}, {99, carol, 13}})
		check(t, err)
		check(t, b.Prune(ctx, 0, 1<<40, 1<<40))
		_, errs, err := b.Receive(ctx, []mailbox.Incoming{{Mesh: mesh, Recipient: bob, SenderMember: owner, SenderSession: alice, ID: id(7),
			Mode: wire.ModeDM, Priority: wire.PriorityNext, Expires: 5, Received: 14}})
		equal(t, say(errors.Is(errs[0], mailbox.ErrReplayed), err), "true <nil>")
		check(t, b.Record(ctx, audit.Entry{At: 15, Event: audit.Joined, Mesh: mesh2}, audit.Entry{At: 16, Event: audit.Kicked}))
		check(t, b.Record(ctx))
		equal(t, say(logged(t, b)), say([]string{"received", "received", "received", "received", "shown (to 00000000)", "shown (to 00000000)",
			"shown (to 00000000)", "refused replayed", "joined", "kicked"}))
		records, err := b.Audit(ctx, 4, 3)
		check(t, err)
		equal(t, len(records), 3)
		r := records[1]
		want := audit.Entry{At: 12, Event: audit.Shown, Mesh: mesh, Member: owner, Session: alice, Message: id(2), Note: "to 00000000"}
		equal(t, say(r.Number, r.Entry == want), "6 true")
		records, err = b.Audit(ctx, 10, 0)
		equal(t, say(len(records), err), "0 <nil>")
	})
}

func TestPruneAudit(t *testing.T) {
	day := (24 * time.Hour).Milliseconds()
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		add := func(n int, at int64) {
			entries := make([]audit.Entry, n)
			for i := range entries {
				entries[i] = audit.Entry{At: at, Event: audit.Joined}
			}
			check(t, b.Record(ctx, entries...))
		}
		kept := func(now int64) string {
			check(t, b.Prune(ctx, 0, now, now))
			records, err := b.Audit(ctx, 0, 10_000)
			check(t, err)
			return say(records[0].Number, len(logged(t, b)))
		}
		add(1500, day)
		equal(t, kept(100*day), "501 1000")
		add(1200, 50*day)
		equal(t, kept(51*day), "501 2200") // young enough
		equal(t, kept(100*day), "1501 1200")
		equal(t, kept(141*day), "1701 1000")
	})
}
