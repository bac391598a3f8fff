package client_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/meshtest"
)

// TestFullQueueHoldsUpNobodyElse: a recipient whose queue is full puts off what is for
// it, in order, and nothing else.
func TestFullQueueHoldsUpNobodyElse(t *testing.T) {
	w := meshtest.New(t, func(c *broker.Config) { c.Limits.QueueMessages = 12 }) // a quarter for each sender
	alice := w.Dial(w.Found("full", "alice"), "web", nil)
	bm, cm := w.Join(alice, "member", "bob"), w.Join(alice, "member", "carol")
	var seed client.Secret
	box := client.MemoryMailbox()
	bob := w.Dial(bm, "api", func(o *client.Options) { seed, o.Mailbox = o.SessionSeed, box })
	carol := w.Dial(cm, "api", nil)
	key := bob.Key().String()
	_ = bob.Close()
	put := func(to, text string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond) // it is kept; the broker's word may take long
		defer cancel()
		if _, err := alice.Send(ctx, client.Message{To: []string{to}, Text: text}); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 6 { // three find room
		put(key, fmt.Sprint(n))
	}
	put(carol.Key().String(), "passes")
	if r, err := meshtest.Next(carol, 10*time.Second); err != nil || r.Text != "passes" {
		t.Fatal(r, err)
	}
	bob = w.Dial(bm, "api", func(o *client.Options) { o.SessionSeed, o.Mailbox = seed, box })
	for n := range 6 {
		if r, err := meshtest.Next(bob, 30*time.Second); err != nil || r.Text != fmt.Sprint(n) {
			t.Fatalf("message %d: %v, %v", n, r, err)
		}
	}
}
