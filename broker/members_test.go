package broker_test

import (
	"slices"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// removal is a removal of a member by the owner key with the next mesh key,
// boxed to those that keep.
func (w *world) removal(o *peer, signer trust.SecretKey, gone *user, keep ...*user) *wire.Remove {
	l := ask[*wire.MembersList](o, &wire.Members{})
	gen := l.Generation + 1
	f := &wire.Remove{Issuer: o.member.Public(), Previous: random(72)}
	f.Removal = trust.SignRemoval(signer, trust.Removal{
		Mesh: w.m.MeshID, Member: gone.key.Public(), Revoked: w.Now().UnixMilli(), Reason: trust.ReasonRemoved,
		MembersVersion: l.Version, Generation: gen, KeyHash: trust.KeyHash(w.m.MeshID, gen, [32]byte{byte(gen)}),
	})
	for _, u := range keep {
		f.Boxes = append(f.Boxes, wire.KeyBoxTo{To: u.key.Public(), Box: random(80)})
	}
	return f
}

// removeMember boxes the next key to every other member.
func (w *world) removeMember(by, gone *user) *wire.OK {
	w.t.Helper()
	o := by.observer()
	f := w.removal(o, w.owner, gone)
	r, err := trust.NewRoster(w.m.Owner, w.m.Genesis)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, c := range ask[*wire.MembersList](o, &wire.Members{}).Certificates {
		if m, err := r.Add(c); err == nil && m.Key != gone.key.Public() {
			f.Boxes = append(f.Boxes, wire.KeyBoxTo{To: m.Key, Box: random(80)})
		}
	}
	ok := ask[*wire.OK](o, f)
	o.end()
	return ok
}

func (w *world) closeOf(signer trust.SecretKey, in invite, admitted ...wire.Key) *wire.InviteClose {
	return &wire.InviteClose{Close: trust.SignClose(signer, w.m.MeshID, in.id, admitted)}
}

func TestMembers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.founder.session()
	v := a.ack.MembersVersion
	l := ask[*wire.MembersList](a, &wire.Members{})
	if l.Version != v || len(l.Certificates) != 1 || l.More || l.Generation != 1 || len(l.Keys) != 0 {
		t.Fatalf("%+v", l)
	}
	bob := w.join(trust.RoleMember, "bob")
	if c := want[*wire.MembersChanged](a); c.Version != v+1 {
		t.Fatalf("%+v", c)
	}
	if l := ask[*wire.MembersList](a, &wire.Members{Since: v}); len(l.Certificates) != 1 || l.Certificates[0][2].Sig != bob.cert[2].Sig || l.Version != v+1 {
		t.Fatalf("since: %+v", l)
	}
	if l := ask[*wire.MembersList](a, &wire.Members{Since: v + 1}); len(l.Certificates) != 0 {
		t.Fatalf("nothing new: %+v", l)
	}
	carol := w.join(trust.RoleMember, "carol")
	w.removeMember(w.founder, carol)
	b := bob.observer()
	l = ask[*wire.MembersList](b, &wire.Members{Since: v + 2})
	if len(l.Removals) != 1 || len(l.Keys) != 1 || l.Keys[0].Generation != 2 || l.Generation != 2 {
		t.Fatalf("after a removal: %+v", l)
	}
	// Restarted, the broker says the same.
	w.Stop()
	w.Start()
	b = bob.observer()
	if again := ask[*wire.MembersList](b, &wire.Members{Since: v + 2}); len(again.Removals) != 1 || len(again.Keys) != 1 || again.Version != l.Version {
		t.Fatalf("after a restart: %+v", again)
	}
}

// More members than a page holds come in several frames of one request.
func TestMemberPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.founder.session()
	in := w.capability(w.owner, trust.RoleMember, 100, w.Now().Add(time.Hour))
	ask[*wire.OK](a, in.put(1))
	for i := range 40 {
		if status, body := w.postJoin(w.newUser(in, "m"+string(rune('a'+i/26))+string(rune('a'+i%26))).cert); status != 200 {
			t.Fatal(body)
		}
	}
	one := ask[*wire.MembersList](a, &wire.Members{})
	pages, members := 1, len(one.Certificates)
	for l := one; l.More; pages++ {
		if l = want[*wire.MembersList](a); l.ReqID != one.ReqID || len(l.Certificates) == 0 {
			t.Fatalf("page %d: %+v", pages, l)
		}
		members += len(l.Certificates)
	}
	if pages < 2 || members != 41 {
		t.Fatalf("%d members in %d pages", members, pages)
	}
}

// Who may put, close and remove what: role by action.
func TestRights(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	ada, bob, carol := w.join(trust.RoleAdmin, "ada"), w.join(trust.RoleMember, "bob"), w.join(trust.RoleMember, "carol")
	second := w.join(trust.RoleAdmin, "second")
	peers := map[string]*peer{"owner": w.founder.observer(), "admin": ada.observer(), "second": second.observer(), "member": bob.observer()}
	later := w.Now().Add(time.Hour)
	mk := func(k trust.SecretKey, role string) wire.Request {
		in := w.capability(k, role, 1, later)
		return in.put(1)
	}
	ofOwner, ofAdmin := w.capability(w.owner, trust.RoleMember, 1, later), w.capability(ada.key, trust.RoleMember, 1, later)
	ask[*wire.OK](peers["owner"], ofOwner.put(1))
	ask[*wire.OK](peers["admin"], ofAdmin.put(1))
	ask[*wire.OK](peers["admin"], ofAdmin.put(1)) // the same again
	elsewhere := w.capability(w.owner, trust.RoleMember, 1, later)
	{
		k := elsewhere.secret.InviteKey().Public()
		elsewhere.capability = trust.SignCapability(w.owner, trust.Capability{Mesh: w.m.MeshID, Invite: elsewhere.id, Key: k, Role: trust.RoleMember, Expires: later.UnixMilli(), MaxUses: 1, Broker: ada.key.Public()})
	}
	noBlob, stale := ofOwner.put(1), w.capability(w.owner, trust.RoleMember, 1, later)
	noBlob.Blob = nil
	outsider := trust.NewSecretKey()
	gone := func(by trust.SecretKey, u *user) wire.Request {
		return w.removal(peers["member"], by, u)
	}
	for _, c := range []struct {
		name, who string
		frame     wire.Request
		code      wire.Code
	}{
		{"owner invites an admin", "owner", mk(w.owner, trust.RoleAdmin), ""},
		{"admin invites a member", "admin", mk(ada.key, trust.RoleMember), ""},
		{"admin invites an admin", "admin", mk(ada.key, trust.RoleAdmin), wire.CodeBadCertificate},
		{"member invites", "member", mk(bob.key, trust.RoleMember), wire.CodeBadCertificate},
		{"admin stores the owner's invite", "admin", mk(w.owner, trust.RoleMember), wire.CodeForbidden},
		{"member stores the owner's invite", "member", mk(w.owner, trust.RoleMember), wire.CodeForbidden},
		{"owner stores an admin's invite", "owner", mk(ada.key, trust.RoleMember), wire.CodeForbidden},
		{"an outsider's invite", "admin", mk(outsider, trust.RoleMember), wire.CodeBadCertificate},
		{"for another broker", "owner", elsewhere.put(1), wire.CodeWrongBroker},
		{"without a blob", "owner", noBlob, wire.CodeBadFrame},
		{"stale generation", "owner", stale.put(7), wire.CodeStaleMembers},

		{"member closes", "member", w.closeOf(bob.key, ofAdmin), wire.CodeForbidden},
		{"another admin closes", "second", w.closeOf(second.key, ofAdmin), wire.CodeForbidden},
		{"admin closes the owner's", "admin", w.closeOf(ada.key, ofOwner), wire.CodeForbidden},
		{"closing nothing", "owner", w.closeOf(w.owner, elsewhere), wire.CodeInviteUnknown},
		{"admin closes its own", "admin", w.closeOf(ada.key, ofAdmin), ""},
		{"owner closes an admin's", "owner", w.closeOf(w.owner, ofAdmin), ""},

		{"member removes a member", "member", gone(bob.key, carol), wire.CodeForbidden},
		{"admin removes an admin", "admin", gone(ada.key, second), wire.CodeForbidden},
		{"an outsider removes", "admin", gone(outsider, carol), wire.CodeForbidden},
		{"boxes missing", "owner", w.removal(peers["owner"], w.owner, carol, ada, bob), wire.CodeStaleMembers},
		{"a member that is none", "owner", w.removal(peers["owner"], w.owner, &user{key: outsider}, w.founder, ada, second, bob, carol), wire.CodeNotFound},
		{"built on another version", "owner", w.removal(peers["owner"], w.owner, carol, w.founder, ada, second, bob), wire.CodeStaleMembers}, // the closes above came after
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.code == "" {
				ask[*wire.OK](peers[c.who], c.frame)
			} else {
				peers[c.who].refused(c.frame, c.code)
			}
		})
	}
	bad := w.closeOf(w.owner, ofOwner)
	bad.Close.Sig[0] ^= 1
	peers["owner"].refused(bad, wire.CodeBadSignature)
	boxes := w.removal(peers["owner"], w.owner, carol, w.founder)
	rm, _ := trust.ParseRemoval(boxes.Removal)
	rm.Generation, rm.KeyHash = 0, [32]byte{}
	boxes.Removal = trust.SignRemoval(w.owner, rm)
	peers["owner"].refused(boxes, wire.CodeBadFrame) // boxes without a key
	list := ask[*wire.Invites](peers["member"], &wire.InviteList{})
	closed := 0
	for _, in := range list.Invites {
		if in.Closed {
			closed++
		}
	}
	if len(list.Invites) != 8 || closed != 1 {
		t.Errorf("%d invites, %d closed", len(list.Invites), closed)
	}
	ask[*wire.OK](peers["admin"], w.removal(peers["admin"], ada.key, carol, w.founder, ada, second, bob))
}

func TestRemove(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a, watcher := w.founder.session(), w.founder.observer()
	in := w.capability(w.owner, trust.RoleMember, 5, w.Now().Add(time.Hour))
	open := w.capability(w.owner, trust.RoleMember, 5, w.Now().Add(time.Hour))
	ask[*wire.OK](a, in.put(1))
	ask[*wire.OK](a, open.put(1))
	bob, carol := w.newUser(in, "bob"), w.newUser(in, "carol")
	for _, u := range []*user{bob, carol} {
		if status, body := w.postJoin(u.cert); status != 200 {
			t.Fatal(body)
		}
	}
	b1, b2, c1 := bob.session(), bob.person(), carol.session()
	away := bob.session()
	away.end()
	ask[*wire.PeersList](watcher, &wire.ListPeers{Watch: true})
	inFlight, waiting := a.dm(b1.pub()), a.dm(away.pub())
	ask[*wire.Ack](a, inFlight)
	ask[*wire.Ack](a, waiting)
	want[*wire.Push](b1)

	f := w.removal(a, w.owner, bob, w.founder, carol)
	f.Closes = []wire.Signed{w.closeOf(w.owner, in, carol.key.Public()).Close}
	ok := ask[*wire.OK](a, f)
	if !slices.Equal(ok.Voided, []wire.ID{open.id}) {
		t.Errorf("voided %v", ok.Voided)
	}
	for _, p := range []*peer{b1, b2} {
		if got := p.closed(); got != websocket.StatusCode(wire.CloseRemoved) {
			t.Errorf("close code %d", got)
		}
	}
	for _, m := range []*wire.Send{inFlight, waiting} {
		if r := want(a, func(r *wire.Receipt) bool { return r.ID == m.ID }); r.State != wire.StateBounced || r.Code != wire.CodeRemoved {
			t.Errorf("%+v", r)
		}
	}
	left := map[wire.Key]int{}
	for range 2 {
		p := want(watcher, func(p *wire.Presence) bool { return p.Event == wire.PresenceLeft })
		left[p.Peer.SessionPubkey]++
	}
	if left[b1.pub()] != 1 || left[b2.pub()] != 1 {
		t.Errorf("left: %v", left)
	}
	none[*wire.Presence](watcher, "everyone left once")
	a.refused(a.dm(b1.pub()), wire.CodeRemoved)
	a.refused(a.dm(bob.key.Public()), wire.CodeRemoved)
	if status, body := w.postJoin(bob.cert); status != 409 {
		t.Errorf("the same certificate: %d %s", status, body)
	}
	for _, old := range []invite{in, open} { // closed, voided
		if status, body := w.postJoin(w.newUser(old, "bobby").cert); status != 410 {
			t.Errorf("rejoin: %d %s", status, body)
		}
	}
	c1.sync()
	carol.observer() // whom the close lists
	if l := ask[*wire.PeersList](a, &wire.ListPeers{Offline: true}); len(l.Peers) != 2 {
		t.Errorf("%d peers are listed", len(l.Peers))
	}
}

// A close that does not list a member puts it out.
func TestClosePutsOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.founder.session()
	in := w.capability(w.owner, trust.RoleMember, 5, w.Now().Add(time.Hour))
	ask[*wire.OK](a, in.put(1))
	bob := w.newUser(in, "bob")
	if status, body := w.postJoin(bob.cert); status != 200 {
		t.Fatal(body)
	}
	b := bob.session()
	ask[*wire.OK](a, w.closeOf(w.owner, in))
	if got := b.closed(); got != websocket.StatusCode(wire.CloseRemoved) {
		t.Errorf("close code %d", got)
	}
	a.refused(a.dm(b.pub()), wire.CodeInviteClosed)
}

// Who leaves hears the answer, and nothing after it.
func TestLeave(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	bob := w.join(trust.RoleMember, "bob")
	a, b, other := w.founder.session(), bob.session(), bob.session()
	l := ask[*wire.MembersList](b, &wire.Members{})
	rm := trust.Removal{Mesh: w.m.MeshID, Member: bob.key.Public(), Revoked: 1, Reason: trust.ReasonLeft, MembersVersion: l.Version}
	b.request(&wire.Remove{Removal: trust.SignRemoval(bob.key, rm)})
	b.request(b.dm(a.pub()))
	want[*wire.OK](b)
	for _, p := range []*peer{b, other} {
		if got := p.closed(); got != websocket.StatusCode(wire.CloseRemoved) {
			t.Errorf("close code %d", got)
		}
	}
	none[*wire.Push](a, "a member that left sends nothing")
	ask[*wire.OK](a, w.removal(a, w.owner, bob, w.founder)) // issues the next key
}
