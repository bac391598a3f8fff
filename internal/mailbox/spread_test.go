package mailbox_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/wire"
)

func TestHeld(t *testing.T) {
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		h := mailbox.Held{Mesh: mesh, Sender: alice, To: []string{"bob", "@x"}, Text: "nul \x00 <ü>", Priority: wire.PriorityLow, ReplyTo: id(4),
			Hop: 3, Expires: 60_000, Reason: "spread", At: 5}
		far := mailbox.Held{Mesh: mesh2, Text: "far"}
		first, err := b.Hold(ctx, h)
		check(t, err)
		_, err = b.Hold(ctx, far)
		check(t, err)
		texts := func(mesh wire.ID) (all []string) {
			msgs, err := b.HeldMessages(ctx, mesh)
			check(t, err)
			for _, m := range msgs {
				all = append(all, m.Text)
			}
			return all
		}
		equal(t, say(texts(wire.ID{}), texts(mesh2)), say([]string{h.Text, "far"}, []string{"far"}))
		got, err := b.TakeHeld(ctx, first)
		check(t, err)
		h.Number = first
		equal(t, say(got), say(h))
		_, err = b.TakeHeld(ctx, first)
		equal(t, err, mailbox.ErrNotFound)
		for range 100 {
			n, err := b.Hold(ctx, h)
			check(t, err)
			equal(t, n > first+1, true) // a number does not come back
		}
		_, err = b.Hold(ctx, h)
		equal(t, errors.Is(err, mailbox.ErrHeldFull), true)
		_, err = b.Hold(ctx, far)
		check(t, err)
		check(t, b.Forget(ctx, mesh))
		equal(t, say(len(texts(wire.ID{})), len(texts(mesh))), "2 0")
	})
}

func TestSpread(t *testing.T) {
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		send := func(n int, text string, to ...wire.Key) { o := out(n, to...); o.Text = text; put(t, b, o) }
		spread := func(text string, since int64) string {
			to, known, err := b.Spread(ctx, mesh, alice, mailbox.Digest(text), since)
			check(t, err)
			slices.SortFunc(to, func(a, b wire.Key) int { return slices.Compare(a[:], b[:]) })
			return say(slices.Equal(to, []wire.Key{bob}), slices.Equal(to, []wire.Key{bob, carol}), len(to), known)
		}
		equal(t, spread("Hello  all", 0), "false false 0 false")
		send(1, "Hello  all", bob)
		equal(t, spread("\thello ALL\n", 0), "true false 1 true")
		send(2, "hello all", carol, bob)
		equal(t, spread("hello all", 0), "false true 2 true")
		equal(t, spread("hello all", 1003), "false false 0 true") // sent before
		equal(t, spread("helloall", 0), "false false 0 false")
		other := out(3, carol)
		other.Sender, other.Text = bob, "by bob"
		put(t, b, other)
		equal(t, spread("by bob", 0), "false false 0 true")
		m := in(1)
		m.Text, m.Mesh = "Pass this on", mesh2
		receive(t, b, m)
		equal(t, spread("pass this on", 0), "false false 0 true")
		receipt := out(4, bob)
		receipt.Mode, receipt.Text = wire.ModeReceipt, ""
		put(t, b, receipt)
		equal(t, spread("", 0), "false false 0 false")
		// What is pruned was never there.
		_, _ = b.MarkRead(ctx, 1, bob, 5)
		advance(t, b, 1, bob, mailbox.Read, true)
		advance(t, b, 2, bob, mailbox.Read, true)
		advance(t, b, 2, carol, mailbox.Read, true)
		check(t, b.Prune(ctx, 0, 1<<39, 0))
		equal(t, say(spread("pass this on", 0), spread("hello all", 0)), "false false 0 false false false 0 false")
	})
}

func TestHopOf(t *testing.T) {
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		hop := func(n int, h uint64, from, to wire.Key) {
			m := in(n)
			m.Hop, m.SenderSession, m.Recipient = h, from, to
			receive(t, b, m)
		}
		hop(1, 2, alice, bob)
		hop(2, 5, alice, bob)
		hop(3, 1, key(50), bob)
		hop(4, 7, alice, carol)
		of := func(replyTo wire.ID, since int64, from ...wire.Key) string {
			h, ok, err := b.HopOf(ctx, []wire.Key{bob, key(60)}, replyTo, from, since)
			return say(h, ok, err)
		}
		equal(t, of(id(1), 0), "2 true <nil>")
		equal(t, of(id(4), 0), "0 false <nil>") // another's
		equal(t, of(wire.ID{}, 0, alice), "0 false <nil>")
		_, _ = b.MarkRead(ctx, 2, bob, 100)
		_, _ = b.MarkRead(ctx, 3, bob, 200)
		_, _ = b.MarkRead(ctx, 4, carol, 200)
		equal(t, of(wire.ID{}, 100, alice), "5 true <nil>")
		equal(t, of(wire.ID{}, 101, alice), "0 false <nil>")
		equal(t, of(wire.ID{}, 101, alice, key(50)), "1 true <nil>")
		equal(t, of(wire.ID{}, 0, owner), "5 true <nil>") // by member
		equal(t, of(id(1), 101, key(50)), "2 true <nil>")
		o := out(1, bob)
		o.Hop = 3
		put(t, b, o)
		got, err := b.Outgoing(ctx, id(1))
		equal(t, say(got.Hop, err), "3 <nil>")
	})
}
