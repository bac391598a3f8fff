package broker_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// Of two admins that remove at once one wins. The other is told, nothing of its
// request is done, and it may try again.
func TestRemoveAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	ada, ben := w.join(trust.RoleAdmin, "ada"), w.join(trust.RoleAdmin, "ben")
	bob, eve := w.join(trust.RoleMember, "bob"), w.join(trust.RoleMember, "eve")
	a, b := ada.observer(), ben.observer()
	sessions := map[*user]*peer{bob: bob.session(), eve: eve.session()}
	removals := map[*peer]*wire.Remove{
		a: w.removal(a, ada.key, bob, w.founder, ada, ben, eve), b: w.removal(b, ben.key, eve, w.founder, ada, ben, bob),
	}
	victims := map[*peer]*user{a: bob, b: eve}
	release := broker.HoldCommits(w.Broker) // both are on their way before either is stored
	defer release()
	ids := map[*peer]string{}
	for p, f := range removals {
		ids[p] = p.request(f)
	}
	w.eventually("both removals are under way", func() bool { return broker.Leaving(w.Broker, w.m.MeshID) == 2 })
	release()
	var won, lost *peer
	for p, id := range ids {
		f := p.take(8*time.Second, func(f wire.Frame) bool { r, ok := f.(wire.Request); return ok && r.RequestID() == id })
		switch f := f.(type) {
		case *wire.OK:
			won = p
		case *wire.Error:
			if f.Code != wire.CodeStaleMembers || !f.Retryable {
				t.Fatalf("%+v", f)
			}
			lost = p
		}
	}
	if won == nil || lost == nil {
		t.Fatal("not one that wins and one that loses")
	}
	if got := sessions[victims[won]].closed(); got != websocket.StatusCode(wire.CloseRemoved) {
		t.Errorf("close code %d", got)
	}
	left := sessions[victims[lost]]
	left.sendUntil(left.dm(ada.key.Public()))
	l := ask[*wire.MembersList](lost, &wire.Members{})
	if len(l.Removals) != 1 || l.Generation != 2 || len(l.Keys) != 1 {
		t.Errorf("%d removals, generation %d, %d keys", len(l.Removals), l.Generation, len(l.Keys))
	}
	again := w.removal(lost, lost.member, victims[lost], w.founder, ada, ben)
	ask[*wire.OK](lost, again)
	if got := left.closed(); got != websocket.StatusCode(wire.CloseRemoved) {
		t.Errorf("close code %d", got)
	}
}

// One that was an admin removes nobody any more, but itself.
func TestRemoveByWhoWasAdmin(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	ada, bob := w.join(trust.RoleAdmin, "ada"), w.join(trust.RoleMember, "bob")
	w.setRole(ada, trust.RoleMember, 100)
	o := ada.observer()
	o.refused(w.removal(o, ada.key, bob, w.founder, ada), wire.CodeForbidden)
	o.refused(&wire.Kick{Member: bob.key.Public()}, wire.CodeForbidden)
	rm := trust.Removal{Mesh: w.m.MeshID, Member: ada.key.Public(), Revoked: 1, Reason: trust.ReasonLeft,
		MembersVersion: ask[*wire.MembersList](o, &wire.Members{}).Version}
	ask[*wire.OK](o, &wire.Remove{Removal: trust.SignRemoval(ada.key, rm)})
}

// While a removal is being written nothing is taken from its member: it would be
// stored after it.
func TestSendInTheInstantOfRemoval(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	bob := w.join(trust.RoleMember, "bob")
	a, o, b := w.founder.session(), w.founder.observer(), bob.session()
	f := w.removal(o, w.owner, bob, w.founder)
	release := broker.HoldCommits(w.Broker)
	defer release()
	o.request(f)
	w.eventually("the removal is under way", func() bool { return broker.Leaving(w.Broker, w.m.MeshID) == 1 })
	m := b.dm(a.pub())
	b.write(m)
	if e := want[*wire.Error](b); e.ID != m.ID || e.Code != wire.CodeStaleMembers {
		t.Errorf("%+v", e)
	}
	release()
	want[*wire.OK](o)
	if got := b.closed(); got != websocket.StatusCode(wire.CloseRemoved) {
		t.Errorf("close code %d", got)
	}
	none[*wire.Push](a, "it was removed")
	if n := broker.Leaving(w.Broker, w.m.MeshID); n != 0 {
		t.Errorf("%d still leave", n)
	}
}

// Roles come before the certificates that they let in, pauses after all.
func TestMemberPagesOfRoles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	bob, often := w.join(trust.RoleMember, "bob"), w.join(trust.RoleMember, "often")
	for i := range 120 {
		w.setRole(often, []string{trust.RoleAdmin, trust.RoleMember}[i%2], int64(i+1))
	}
	w.setRole(bob, trust.RoleAdmin, 1000)
	bob.admit(bob.key, "eve")
	o := bob.observer()
	ask[*wire.OK](o, w.paused(bob.key, time.Hour))
	r, err := trust.NewRoster(w.m.Owner, w.m.Genesis)
	if err != nil {
		t.Fatal(err)
	}
	pages := 0
	for l := ask[*wire.MembersList](o, &wire.Members{}); ; l = want[*wire.MembersList](o) {
		pages++
		for _, s := range l.Roles {
			_, e := r.AddRole(s)
			err = errors.Join(err, e)
		}
		for _, c := range l.Certificates {
			_, e := r.Add(c)
			err = errors.Join(err, e)
		}
		for _, s := range l.Pauses {
			_, e := r.AddPause(s)
			err = errors.Join(err, e)
		}
		if !l.More {
			break
		}
	}
	_, until := r.Pauses(w.Now().UnixMilli())
	if err != nil || pages < 2 || len(r.Members()) != 4 || until == 0 {
		t.Errorf("%v; %d pages, %d members, paused until %d", err, pages, len(r.Members()), until)
	}
}

// A join and a block that come at once are both in force when they are answered.
func TestChangesAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	bob := w.join(trust.RoleMember, "bob")
	a, b := w.founder.session(), bob.session()
	in := w.capability(w.owner, trust.RoleMember, 100, w.Now().Add(time.Hour))
	ask[*wire.OK](a, in.put(1))
	for round := range 24 {
		late := w.newUser(in, "late-"+string(rune('a'+round)))
		release := broker.HoldCommits(w.Broker) // one transaction has both
		var wg sync.WaitGroup
		wg.Go(func() {
			if status, body := w.postJoin(late.cert); status != 200 {
				t.Error(status, body)
			}
		})
		a.write(&wire.Block{Req: wire.Req{ReqID: "block"}, Member: bob.key.Public(), Blocked: round%2 == 0})
		release()
		want(a, func(f *wire.OK) bool { return f.ReqID == "block" })
		if _, blocked := b.answer(b.dm(a.pub())).(*wire.Error); blocked != (round%2 == 0) {
			t.Errorf("round %d: blocked %v", round, blocked)
		}
		wg.Wait()
		late.observer().end()
	}
}
