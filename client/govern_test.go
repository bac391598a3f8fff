package client_test

import (
	"errors"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/meshtest"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

func TestRolesInRunningClients(t *testing.T) {
	w, alice, bob, _, bm := pair(t)
	carol := w.Dial(w.Join(alice, "member", "carol"), "shop", nil)
	if err := bob.SetRole(t.Context(), carol.MemberKey(), trust.RoleAdmin); !errors.Is(err, client.ErrNotOwner) {
		t.Errorf("a member promotes: %v", err)
	}
	if err := alice.SetRole(t.Context(), bm.MemberKey(), trust.RoleAdmin); err != nil {
		t.Fatal(err)
	}
	meshtest.Eventually(t, "bob knows that he is an admin", func() bool { return bob.MemberRole() == trust.RoleAdmin })
	dm := w.Join(bob, "member", "dave")
	dave := w.Dial(dm, "till", nil)
	if err := bob.Kick(t.Context(), dm.MemberKey()); err != nil {
		t.Fatal(err)
	}
	meshtest.Eventually(t, "dave is cut off", func() bool { return !dave.State().Online })
	if err := alice.SetRole(t.Context(), bm.MemberKey(), trust.RoleMember); err != nil {
		t.Fatal(err)
	}
	meshtest.Eventually(t, "bob knows that he is none", func() bool { return bob.MemberRole() == trust.RoleMember })
	if _, err := bob.NewInvite(t.Context(), trust.RoleMember, 1, time.Hour); !errors.Is(err, client.ErrForbidden) {
		t.Errorf("a demoted admin invites: %v", err)
	}
	var names []string
	for _, m := range carol.Members() {
		names = append(names, m.Name)
	}
	if len(names) != 4 { // whom the admin had admitted stays
		t.Errorf("members %v", names)
	}
}

func TestPauseAndResume(t *testing.T) {
	w, alice, bob, _, _ := pair(t)
	if _, err := bob.Pause(t.Context(), time.Hour); !errors.Is(err, client.ErrForbidden) {
		t.Errorf("a member pauses: %v", err)
	}
	if _, err := alice.Pause(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	meshtest.Eventually(t, "bob knows of the pause", func() bool { return !bob.PausedUntil().IsZero() })
	_, err := bob.Send(t.Context(), client.Message{To: []string{"alice/web"}, Text: "psst"})
	if !errors.Is(err, wire.Faultf(wire.CodePaused, "")) {
		t.Errorf("sent while paused: %v", err)
	}
	if was, err := alice.Resume(t.Context()); err != nil || !was {
		t.Fatal(was, err)
	}
	meshtest.Eventually(t, "bob knows that it is over", func() bool { return bob.PausedUntil().IsZero() })
	send(t, bob, "alice/web", "again")
	if r := w.Next(alice); r.Text != "again" {
		t.Errorf("got %q", r.Text)
	}
}

// Of two who remove at once both get what they wanted, one after the other; of
// two who remove the same member one is told that it is out.
func TestRemoveAtOnce(t *testing.T) {
	w, alice, _, _, bm := pair(t)
	cm, dm := w.Join(alice, "member", "carol"), w.Join(alice, "member", "dave")
	em := w.Join(alice, "admin", "erin")
	erin := w.Dial(em, "desk", nil)
	both := func(a, b client.Key) (errs [2]error) {
		done := make(chan error, 1)
		go func() { _, err := erin.Remove(t.Context(), b, trust.ReasonRemoved); done <- err }()
		_, errs[0] = alice.Remove(t.Context(), a, trust.ReasonRemoved)
		errs[1] = <-done
		return errs
	}
	if errs := both(cm.MemberKey(), dm.MemberKey()); errs[0] != nil || errs[1] != nil {
		t.Fatalf("two members: %v", errs)
	}
	errs := both(bm.MemberKey(), bm.MemberKey())
	if errs[0] != nil {
		errs[0], errs[1] = errs[1], errs[0]
	}
	if errs[0] != nil || (errs[1] != nil && !errors.Is(errs[1], client.ErrGone)) {
		t.Errorf("one member: %v", errs)
	}
	meshtest.Eventually(t, "both know who is left", func() bool { return len(alice.Members()) == 2 && len(erin.Members()) == 2 })
	send(t, alice, "erin/desk", "the mesh key is one")
	if r := w.Next(erin); r.SenderName != "alice/web" {
		t.Errorf("from %q: its card does not open", r.SenderName)
	}
}

func TestRemovedSendsNothing(t *testing.T) {
	_, alice, bob, _, bm := pair(t)
	if _, err := alice.Remove(t.Context(), bm.MemberKey(), "spite"); err == nil {
		t.Error("any reason goes")
	}
	if _, err := alice.Remove(t.Context(), bm.MemberKey(), trust.ReasonAbuse); err != nil {
		t.Fatal(err)
	}
	meshtest.Eventually(t, "bob hears of it", func() bool { return bob.State().Final })
	var removed *client.RemovedError
	if _, err := bob.Send(t.Context(), client.Message{To: []string{"alice/web"}, Text: "still here"}); !errors.As(err, &removed) || removed.Error() != "removed from acme" {
		t.Errorf("sent: %v", err)
	}
	if _, err := alice.Remove(t.Context(), bm.MemberKey(), trust.ReasonRemoved); !errors.Is(err, client.ErrGone) {
		t.Errorf("removed twice: %v", err)
	}
}

// A block that was made, or ended, while the broker was away is told to it later.
func TestBlockIsToldLater(t *testing.T) {
	w, alice, bob, am, bm := pair(t)
	box, cm := w.Mailbox(), w.Join(alice, "member", "carol")
	for _, blocked := range []bool{true, false} {
		_, err := box.ChangeTrust(t.Context(), am.MeshID, bm.MemberKey(), 1, func(v *mailbox.Trust) error { v.Blocked = blocked; return nil })
		if err != nil {
			t.Fatal(err)
		}
		carol := w.Dial(cm, "shop", withBox(box))
		meshtest.Eventually(t, "the broker knows", func() bool { // with carol away only it can refuse
			s, err := bob.Send(t.Context(), client.Message{To: []string{"carol"}, Text: "hello"})
			return err == nil && (s.Targets[0].State == client.Bounced) == blocked
		})
		if err := carol.Close(); err != nil {
			t.Fatal(err)
		}
		s, err := bob.Send(t.Context(), client.Message{To: []string{"carol"}, Text: "hello"})
		if err != nil || (s.Targets[0].Code == wire.CodeBlocked) != blocked {
			t.Errorf("blocked %v: %+v, %v", blocked, s, err)
		}
	}
}
