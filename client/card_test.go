package client_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/meshtest"
)

// seen waits until alice's view of bob/api is as it should be.
func seen(t *testing.T, alice *client.Client, what string, ok func(client.Peer) bool) {
	t.Helper()
	meshtest.Eventually(t, what, func() bool {
		peers, _, err := alice.Peers(t.Context(), false)
		return err == nil && slices.ContainsFunc(peers, func(p client.Peer) bool { return p.FullName() == "bob/api" && ok(p) })
	})
}

func TestCardSaysHowToWake(t *testing.T) {
	_, alice, bob, _, _ := pair(t)
	show := func(summary string, wake client.Path, at int64) {
		t.Helper()
		err := bob.SetCard(t.Context(), func(c *client.Card) { c.Summary, c.Wake, c.WokenAt = summary, wake, at })
		if err != nil {
			t.Fatal(err)
		}
	}
	at := time.Now().Add(-time.Minute).Add(bob.ClockOffset())
	show("one", client.ByMod, at.UnixMilli())
	seen(t, alice, "by the mod", func(p client.Peer) bool {
		local := at.Add(-alice.ClockOffset())
		return p.Card.Wake == client.ByMod && p.Woken.Sub(local).Abs() < time.Millisecond && p.Wakeability().Wake == client.ByMod
	})
	show("two", client.ByRewake, math.MaxInt64)
	seen(t, alice, "not proven in the time to come", func(p client.Peer) bool {
		return p.Card.Wake == client.ByRewake && !p.Woken.IsZero() && !p.Woken.After(time.Now().Add(time.Second))
	})
	show("three", "telepathy", 7)
	seen(t, alice, "what is not known here is unknown", func(p client.Peer) bool {
		return p.Card.Summary == "three" && p.Wakeability() == client.Wakeability{} && p.Card.WokenAt == 0
	})
	show("four", client.ByHooks, 0)
	seen(t, alice, "by hooks", func(p client.Peer) bool { return p.Card.Wake == client.ByHooks && p.Woken.IsZero() })
	if s := send(t, alice, "bob/api", "x"); s.Targets[0].Wake != client.ByHooks {
		t.Errorf("sent: %+v", s.Targets[0])
	}
	_ = bob.Close()
	meshtest.Eventually(t, "who is not there cannot be woken", func() bool {
		peers, _, err := alice.Peers(t.Context(), true)
		i := slices.IndexFunc(peers, func(p client.Peer) bool { return p.FullName() == "bob/api" })
		return err == nil && i >= 0 && !peers[i].Online && peers[i].Wakeability() == client.Wakeability{}
	})
}

// What is changed while a connection is made is shown by it.
func TestCardChangedWhileConnecting(t *testing.T) {
	w, alice, _, _, bm := pair(t)
	for i := range 20 {
		label := string(rune('a' + i))
		c := w.Start1(bm, label, nil)
		time.Sleep(time.Duration(i) * time.Millisecond / 2)
		if err := c.SetSummary(t.Context(), "changed"); err != nil {
			t.Fatal(err)
		}
		meshtest.Eventually(t, "the change is shown", func() bool {
			peers, _, err := alice.Peers(t.Context(), false)
			return err == nil && slices.ContainsFunc(peers, func(p client.Peer) bool { return p.Card.Label == label && p.Card.Summary == "changed" })
		})
		_ = c.Close()
	}
}

func TestOutlook(t *testing.T) {
	now := time.Date(2026, 11, 22, 17, 2, 0, 0, time.Local)
	there := client.SentTarget{Name: "bob/api", Online: true}
	wake := func(path client.Path, woken time.Duration, dnd bool) client.SentTarget {
		s := there
		s.Wake, s.DND = path, dnd
		if woken > 0 {
			s.Woken = now.Add(-woken)
		}
		return s
	}
	for _, c := range []struct {
		t    client.SentTarget
		p    client.Priority
		want string
	}{
		{there, client.Next, "bob/api is online"},
		{wake(client.ByMod, 12*time.Second, false), client.Next, "bob/api can be woken, proven 12 s ago"},
		{wake(client.ByRewake, 3*time.Hour, false), client.Now, "bob/api can be woken, proven 3 h ago"},
		{wake(client.ByRewake, 0, false), client.Next, "bob/api can be woken (not yet proven)"},
		{wake(client.ByMod, time.Second, false), client.Low, "bob/api will see it at its next turn"},
		{wake(client.ByHooks, time.Second, false), client.Now, "bob/api will see it at its next turn"},
		{wake(client.ByMod, time.Second, true), client.Next, "bob/api is not to be disturbed and will see it later"},
		{wake(client.ByMod, time.Second, true), client.Now, "bob/api can be woken, proven 1 s ago"},
		{wake(client.ByNone, 0, false), client.Next, "bob/api is online and will see it when it checks its messages"},
		{client.SentTarget{Name: "bob"}, client.Next, "nobody at bob: the message waits for it"},
		{
			client.SentTarget{Name: "bob/api", LastSeen: now.Add(-3 * time.Hour)}, client.Next,
			"nobody at bob/api since 14:02 (3 h ago): the message waits for it",
		},
	} {
		if got := c.t.Outlook(c.p, now); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}

// An answer that a courier is bringing in is not for a call; one that it puts back is.
func TestAwaitReplyAndLease(t *testing.T) {
	w := meshtest.New(t, nil)
	am := w.Found("acme", "alice")
	box := w.Mailbox()
	alice := w.Dial(am, "web", withBox(box))
	bob := w.Dial(w.Join(alice, "member", "bob"), "api", nil)
	ask := send(t, alice, "bob/api", "a question")
	_, err := bob.Send(t.Context(), client.Message{To: []string{"alice/web"}, Text: "the answer", ReplyTo: ask.ID})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	q := mailbox.Query{Recipients: alice.Addresses(), Holder: "7/mod/x", Now: now.UnixMilli()}
	meshtest.Eventually(t, "the courier has it", func() bool {
		msgs, _, err := box.Lease(t.Context(), q, now.Add(time.Hour).UnixMilli())
		return err == nil && len(msgs) == 1
	})
	got := make(chan string)
	go func() {
		msg, _, _ := alice.AwaitReply(t.Context(), ask.ID)
		got <- msg.Text
	}()
	select {
	case text := <-got:
		t.Errorf("taken from its courier: %q", text)
	case <-time.After(300 * time.Millisecond):
		if err := box.Release(t.Context(), q.Holder, nil); err != nil {
			t.Fatal(err)
		}
		if text := <-got; text != "the answer" {
			t.Errorf("got %q", text)
		}
	}
}
