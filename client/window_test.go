package client_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/meshtest"
)

// TestWideWindow: a broker may be told to push more at once than fits into one
// transaction of a client. The first push makes it ask who its sender is, and the
// answer comes after all the others.
func TestWideWindow(t *testing.T) {
	t.Parallel()
	const n = 600
	w := meshtest.New(t, func(c *broker.Config) { c.Limits.Window, c.Limits.OutFrames, c.Limits.QueueMessages = n, n, 10*n })
	am := w.Found("acme", "alice")
	alice := w.Dial(am, "web", nil)
	bm := w.Join(alice, "member", "bob")
	for i := range n {
		if _, err := alice.Send(t.Context(), client.Message{To: []string{bm.MemberKey().String()}, Text: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	bob := w.Dial(bm, "api", nil)
	for i := range n {
		r, err := meshtest.Next(bob, 10*time.Second)
		if err != nil || r.Text != fmt.Sprint(i) {
			t.Fatalf("message %d: %v %v", i, r, err)
		}
	}
}
