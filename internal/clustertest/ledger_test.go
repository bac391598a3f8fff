package clustertest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/claudemesh/claudemesh/client"
)

// TestLedgerCanFail plants each breach into a run that is otherwise clean.
func TestLedgerCanFail(t *testing.T) {
	bob, carol := client.Key{1}, client.Key{2}
	id := func(n int) client.ID { return client.ID{byte(n)} }
	text := func(n int) string { return fmt.Sprintf("a/%d", n) }
	clean := func(skip ...int) *Ledger {
		l := NewLedger()
		for n := 1; n <= 5; n++ {
			l.Try("a", text(n), client.Next, bob, carol)
			l.Kept(text(n), id(n))
			for _, to := range []client.Key{bob, carol} {
				l.Acked(id(n), to)
				if len(skip) > 0 && skip[0] == n && to == bob {
					continue
				}
				l.Shown(to, id(n), text(n))
				l.Final(id(n), to, client.Delivered, "")
			}
		}
		return l
	}
	for _, c := range []struct {
		name, want string
		promise    Promise
		run        func() *Ledger
	}{
		{"clean", "", OfSend, func() *Ledger { return clean() }},
		{"lost", "lost", OfAck, func() *Ledger { return clean(3) }},
		{"duplicated", "shown 2 times", OfAck, func() *Ledger { l := clean(); l.Shown(bob, id(5), text(5)); return l }},
		{"duplicated under another id", "another id", OfAck, func() *Ledger { l := clean(); l.Shown(bob, id(9), text(5)); return l }},
		{"reordered", "out of order", OfAck, func() *Ledger { l := clean(3); l.Shown(bob, id(3), text(3)); return l }},
		{"invented", "nobody sent it", OfAck, func() *Ledger { l := clean(); l.Shown(bob, id(7), "z/1"); return l }},
		{"astray", "not addressed", OfAck, func() *Ledger { l := clean(); l.Shown(client.Key{3}, id(1), text(1)); return l }},
		{"overtaken by another priority", "", OfAck, func() *Ledger {
			l := clean()
			l.Try("a", "a/6", client.Low, bob)
			l.Try("a", "a/7", client.Now, bob)
			l.Shown(bob, id(7), "a/7")
			l.Shown(bob, id(6), "a/6")
			return l
		}},
		{"bounced and not shown", "", OfAck, func() *Ledger { l := clean(3); l.Final(id(3), bob, client.Bounced, "expired"); return l }},
		{"bounced and shown", "bounced", OfAck, func() *Ledger { l := clean(); l.Final(id(3), bob, client.Bounced, "expired"); return l }},
		{"expired while its acknowledgement was lost", "", OfAck, func() *Ledger {
			l := clean()
			l.Perishable(text(3))
			l.Final(id(3), bob, client.Bounced, "expired")
			return l
		}},
		{"perishable, and bounced for another reason", "bounced", OfAck, func() *Ledger {
			l := clean()
			l.Perishable(text(3))
			l.Final(id(3), bob, client.Bounced, "undeliverable")
			return l
		}},
		{"delivered and not shown", "never shown", OfAck, func() *Ledger {
			l := clean()
			l.Try("a", "a/6", client.Next, bob)
			l.Kept("a/6", id(6))
			l.Final(id(6), bob, client.Delivered, "")
			return l
		}},
		{"shown and untold", "no more than", OfAck, func() *Ledger { l := clean(); l.Final(id(3), bob, client.Accepted, ""); return l }},
		{"stored, unacked, not shown, asked of the broker", "", OfAck, func() *Ledger {
			l := clean()
			l.Try("a", "a/6", client.Next, bob)
			l.Kept("a/6", id(6))
			return l
		}},
		{"stored, unacked, not shown, asked of the sender", "lost", OfSend, func() *Ledger {
			l := clean()
			l.Try("a", "a/6", client.Next, bob)
			l.Kept("a/6", id(6))
			return l
		}},
		{"tried in vain", "", OfSend, func() *Ledger { l := clean(); l.Try("a", "a/6", client.Next, bob); return l }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var all []string
			for _, err := range c.run().Check(c.promise) {
				all = append(all, err.Error())
			}
			got := strings.Join(all, "\n")
			if c.want == "" && got != "" {
				t.Errorf("a clean run is red:\n%s", got)
			}
			if !strings.Contains(got, c.want) {
				t.Errorf("the breach is not seen: want %q in %q", c.want, got)
			}
		})
	}
	l := clean(3)
	l.Shown(bob, id(5), text(5))
	if f := l.Figures(); f != (Figures{Tried: 5, Kept: 5, Acked: 10, Shown: 9, Waiting: 1, Lost: 1, Twice: 1}) {
		t.Errorf("figures: %+v", f)
	}
}
