package client_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/meshtest"
	"github.com/claudemesh/claudemesh/internal/pgtest"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// pair is a mesh of alice and bob, each with one session on a mailbox on disk.
func pair(t *testing.T) (w *meshtest.World, alice, bob *client.Client, am, bm client.Membership) {
	t.Helper()
	w = meshtest.New(t, nil)
	am = w.Found("acme", "alice")
	alice = w.Dial(am, "web", withBox(w.Mailbox()))
	bm = w.Join(alice, "member", "bob")
	bob = w.Dial(bm, "api", withBox(w.Mailbox()))
	return w, alice, bob, am, bm
}

func withBox(b client.Mailbox) func(*client.Options) {
	return func(o *client.Options) { o.Mailbox = b }
}

func send(t *testing.T, c *client.Client, to, text string) *client.Sent {
	t.Helper()
	s, err := c.Send(t.Context(), client.Message{To: []string{to}, Text: text})
	if err != nil {
		t.Fatalf("send to %s: %v", to, err)
	}
	return s
}

func state(t *testing.T, c *client.Client, id client.ID, want client.MessageState) {
	t.Helper()
	meshtest.Eventually(t, "message "+string(want), func() bool {
		s, _, err := c.Status(t.Context(), id)
		return err == nil && s.Targets[0].State == want
	})
}

func TestOnline(t *testing.T) {
	w, alice, bob, _, _ := pair(t)
	s := send(t, alice, "bob/api", "have you seen this?")
	if got := s.Targets[0]; got.State != client.Accepted && got.State != client.Delivered || !got.Online {
		t.Errorf("sent: %+v", got)
	}
	r := w.Next(bob)
	if r.Text != "have you seen this?" || r.SenderName != "alice/web" || r.ID != s.ID {
		t.Errorf("received %+v", r.Incoming)
	}
	state(t, alice, s.ID, client.Read)
}

func TestOffline(t *testing.T) {
	w, alice, bob, _, bm := pair(t)
	seed, box := client.Secret{1, 2, 3}, w.Mailbox()
	_ = bob.Close()
	bob = w.Dial(bm, "docs", func(o *client.Options) { o.SessionSeed, o.Mailbox = seed, box })
	_ = bob.Close()
	s := send(t, alice, "bob/docs", "for later")
	if got := s.Targets[0]; got.State != client.Accepted || got.Online || got.LastSeen.IsZero() {
		t.Errorf("sent: %+v", got)
	}
	w.Stop()
	w.Start()
	bob = w.Dial(bm, "docs", func(o *client.Options) { o.SessionSeed, o.Mailbox = seed, box })
	if r := w.Next(bob); r.Text != "for later" {
		t.Errorf("received %q", r.Text)
	}
	state(t, alice, s.ID, client.Read)
}

func TestBrokerAway(t *testing.T) {
	w, alice, bob, _, _ := pair(t)
	send(t, alice, "bob/api", "first")
	w.Next(bob)
	w.Stop()
	meshtest.Eventually(t, "alice offline", func() bool { return !alice.State().Online })
	s := send(t, alice, "bob/api", "second")
	if s.Targets[0].State != client.Stored {
		t.Errorf("sent: %+v", s.Targets[0])
	}
	w.Start()
	if r := w.Next(bob); r.Text != "second" {
		t.Errorf("received %q", r.Text)
	}
	state(t, alice, s.ID, client.Read)
}

func TestOrderAndOnce(t *testing.T) {
	_, alice, bob, _, _ := pair(t)
	const n = 300
	for i := range n {
		send(t, alice, "bob", fmt.Sprint(i))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	i := 0
	for r, err := range bob.Receive(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if r.Text != fmt.Sprint(i) {
			t.Fatalf("message %d is %q", i, r.Text)
		}
		if err := r.Ack(ctx); err != nil {
			t.Fatal(err)
		}
		if i++; i == n {
			break
		}
	}
	if r, err := meshtest.Next(bob, 200*time.Millisecond); err == nil {
		t.Errorf("one more: %q", r.Text)
	}
}

func TestGroup(t *testing.T) {
	w, alice, bob, _, bm := pair(t)
	carol := w.Dial(w.Join(alice, "member", "carol"), "ops", nil)
	off := w.Dial(bm, "old", nil)
	for _, c := range []*client.Client{bob, carol, off, alice} {
		if err := c.JoinGroup(t.Context(), "@backend", "lead"); err != nil {
			t.Fatal(err)
		}
	}
	_ = off.Close()
	s := send(t, alice, "@backend", "to all of you")
	if len(s.Targets) != 3 {
		t.Fatalf("targets: %+v", s.Targets)
	}
	for _, c := range []*client.Client{bob, carol} {
		if r := w.Next(c); r.Text != "to all of you" || r.Target != "@backend" {
			t.Errorf("%s received %+v", c.Name(), r.Incoming)
		}
	}
}

func TestMemberKeyAndReply(t *testing.T) {
	w, alice, bob, _, bm := pair(t)
	_ = bob.Close()
	s := send(t, alice, "bob", "ping")
	if s.Targets[0].Key != bm.MemberKey() {
		t.Fatalf("a member without a live session is addressed by its own key: %+v", s.Targets[0])
	}
	person := w.Dial(bm, "", func(o *client.Options) { o.Role, o.SessionSeed = client.Person, client.Secret{} })
	r := w.Next(person)
	if r.Text != "ping" {
		t.Fatalf("received %q", r.Text)
	}
	reply, err := person.Send(t.Context(), client.Message{To: []string{"alice/web"}, Text: "pong", ReplyTo: r.ID})
	if err != nil || reply.Targets[0].State == client.Stored {
		t.Fatalf("reply: %+v, %v", reply, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	m, ok, err := alice.AwaitReply(ctx, s.ID)
	if err != nil || !ok || m.Text != "pong" {
		t.Errorf("reply: %v %v %+v", ok, err, m)
	}
}

func TestLeaveAndRekey(t *testing.T) {
	w, alice, bob, am, _ := pair(t)
	carolM := w.Join(alice, "member", "carol")
	carol := w.Dial(carolM, "ops", nil)
	if err := bob.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	meshtest.Eventually(t, "two members", func() bool { return len(alice.Members()) == 2 && len(carol.Members()) == 2 })
	if _, err := alice.Send(t.Context(), client.Message{To: []string{"bob"}, Text: "x"}); err == nil {
		t.Error("a member that left is still addressed")
	}
	// The owner's next connection issues a new mesh key, and cards go on opening.
	_ = alice.Close()
	again := w.Dial(am, "web2", nil)
	meshtest.Eventually(t, "carol's card under the new key", func() bool {
		peers, fresh, err := again.Peers(t.Context(), false)
		for _, p := range peers {
			if err == nil && fresh && p.FullName() == "carol/ops" {
				return true
			}
		}
		return false
	})
}

// TestRestoredBroker: what a broker has forgotten, because it was restored from
// a backup, its senders hand over again.
func TestRestoredBroker(t *testing.T) {
	w, alice, bob, _, bm := pair(t)
	if w.DB != "" {
		t.Skip("restores a file")
	}
	seed, box := client.Secret{4, 5, 6}, w.Mailbox()
	_ = bob.Close()
	_ = w.Dial(bm, "docs", func(o *client.Options) { o.SessionSeed, o.Mailbox = seed, box }).Close()
	w.Stop()
	backup, err := os.ReadFile(w.File)
	if err != nil {
		t.Fatal(err)
	}
	w.Start()
	meshtest.Eventually(t, "alice online again", func() bool { return alice.State().Online })
	s := send(t, alice, "bob/docs", "after the backup")
	state(t, alice, s.ID, client.Accepted)
	w.Stop()
	for _, f := range []string{w.File + "-wal", w.File + "-shm"} {
		_ = os.Remove(f)
	}
	if err := os.WriteFile(w.File, backup, 0o600); err != nil {
		t.Fatal(err)
	}
	w.Start()
	bob = w.Dial(bm, "docs", func(o *client.Options) { o.SessionSeed, o.Mailbox = seed, box })
	if r := w.Next(bob); r.Text != "after the backup" {
		t.Errorf("received %q", r.Text)
	}
	state(t, alice, s.ID, client.Read)
}

// TestNewMemberIsFound: a peer whose member joined a moment ago is found though
// the news of the membership has not come.
func TestNewMemberIsFound(t *testing.T) {
	for _, listed := range []bool{false, true} {
		w := meshtest.New(t, nil)
		am := w.Found("acme", "alice")
		relay := w.Relay()
		relay.Hook(func(toClient bool, f wire.Frame) []wire.Frame {
			if _, ok := f.(*wire.MembersChanged); ok && toClient {
				return nil
			}
			return []wire.Frame{f}
		})
		am.Broker = relay.URL
		alice := w.Dial(am, "web", nil)
		if listed { // then presence tells of bob, not the list
			if _, _, err := alice.Peers(t.Context(), true); err != nil {
				t.Fatal(err)
			}
		}
		am.Broker = w.URL
		inviter := w.Dial(am, "inviter", nil)
		bob := w.Dial(w.Join(inviter, "member", "bob"), "api", nil)
		send(t, alice, "bob/api", "welcome")
		if r := w.Next(bob); r.Text != "welcome" {
			t.Errorf("received %q", r.Text)
		}
	}
}

func TestRemovedMemberReadsNothing(t *testing.T) {
	h := newHostile(t)
	if _, err := h.alice.Remove(t.Context(), h.bm.MemberKey(), trust.ReasonRemoved); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"bob", "bob/api", h.bob.Key().String(), h.bm.MemberKey().String(), "*"} {
		if s, err := h.alice.Send(t.Context(), client.Message{To: []string{to}, Text: "not for bob"}); err == nil {
			t.Errorf("%s still reaches somebody: %+v", to, s.Targets)
		}
	}
	meshtest.Eventually(t, "bob is told for good", func() bool { s := h.bob.State(); return s.Final && !s.Online })
}
