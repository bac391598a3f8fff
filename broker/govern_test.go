package broker_test

import (
	"crypto/sha256"
	"slices"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// role is a role by the owner, built on what o is told, issued so many ms after all before.
func (w *world) role(o *peer, signer trust.SecretKey, of *user, role string, issued int64, kept ...*user) *wire.SetRole {
	w.t.Helper()
	r := trust.Role{Mesh: w.m.MeshID, Member: of.key.Public(), Role: role, Issued: issued}
	for _, u := range kept {
		r.Kept = append(r.Kept, u.key.Public())
	}
	return &wire.SetRole{Role: trust.SignRole(signer, r), MembersVersion: ask[*wire.MembersList](o, &wire.Members{}).Version}
}

func (w *world) setRole(of *user, role string, issued int64, kept ...*user) {
	w.t.Helper()
	o := w.founder.observer()
	ask[*wire.OK](o, w.role(o, w.owner, of, role, issued, kept...))
	o.end()
}

// admit admits a member by an invite of an issuer's, which is returned with uses left.
func (u *user) admit(issuer trust.SecretKey, name string) (*user, invite) {
	u.w.t.Helper()
	o := u.observer()
	in := u.w.capability(issuer, trust.RoleMember, 5, u.w.Now().Add(time.Hour))
	ask[*wire.OK](o, in.put(ask[*wire.MembersList](o, &wire.Members{}).Generation))
	o.end()
	n := u.w.newUser(in, name)
	if status, body := u.w.postJoin(n.cert); status != 200 {
		u.w.t.Fatalf("join: %d %s", status, body)
	}
	return n, in
}

// A promotion lets a member invite; a demotion ends that, its invites, and the
// members it admitted whom the owner does not keep, at once.
func TestSetRole(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	bob, other := w.join(trust.RoleMember, "bob"), w.join(trust.RoleMember, "other")
	carrier, b := other.observer(), bob.observer()
	mine := w.capability(bob.key, trust.RoleMember, 5, w.Now().Add(time.Hour))
	b.refused(mine.put(1), wire.CodeBadCertificate)
	promotion := w.role(carrier, w.owner, bob, trust.RoleAdmin, 100)
	ok := ask[*wire.OK](carrier, promotion) // whoever carries it
	if v := want(b, func(f *wire.MembersChanged) bool { return f.Version == ok.Version }); v.Version != promotion.MembersVersion+1 {
		t.Errorf("version %d", v.Version)
	}
	if again := ask[*wire.OK](carrier, promotion); again.Version != ok.Version {
		t.Errorf("again: version %d, want %d", again.Version, ok.Version)
	}
	stays, in := bob.admit(bob.key, "stays")
	goes, _ := bob.admit(bob.key, "goes")
	if l := ask[*wire.MembersList](b, &wire.Members{}); len(l.Roles) != 1 || !l.Roles[0].Equal(promotion.Role) {
		t.Errorf("roles %v", l.Roles)
	}
	s, g := stays.session(), goes.session()
	_, unclosed := bob.admit(bob.key, "third")
	a := w.founder.session()
	ask[*wire.Ack](g, g.dm(a.pub()))

	demotion := w.role(carrier, w.owner, bob, trust.RoleMember, 101, stays)
	demotion.Closes = []wire.Signed{w.closeOf(w.owner, in, stays.key.Public()).Close}
	ask[*wire.OK](carrier, demotion)
	if got := g.closed(); got != websocket.StatusCode(wire.CloseRemoved) {
		t.Errorf("close code %d", got)
	}
	a.refused(a.dm(g.pub()), wire.CodeInviteClosed)
	ask[*wire.Ack](s, s.dm(a.pub()))
	b.sync() // it stays a member
	b.refused(w.capability(bob.key, trust.RoleMember, 5, w.Now().Add(time.Hour)).put(1), wire.CodeBadCertificate)
	for _, in := range []invite{in, unclosed} { // one was closed, the other's issuer is no admin
		if status, body := w.postJoin(w.newUser(in, "late").cert); status != 410 {
			t.Errorf("join: %d %s", status, body)
		}
		if status, body, _ := w.http("GET", "/v2/invites/"+in.id.String(), "", nil); status != 410 {
			t.Errorf("look-up: %d %s", status, body)
		}
	}
	w.Stop()
	w.Start()
	stays.observer()
	goes.turnedAway(wire.CloseRemoved)
}

// turnedAway wants a hello to be refused with a close code.
func (u *user) turnedAway(code wire.CloseCode) {
	u.w.t.Helper()
	p := u.w.dial()
	p.member, p.key = u.key, u.key
	p.write(newHello(u.w, p, wire.RoleObserver, u.key, u.key))
	go p.read()
	if got := p.closed(); got != websocket.StatusCode(code) {
		u.w.t.Errorf("%s: close code %d, want %d", u.name, got, code)
	}
}

// Who may set which role, and on what.
func TestSetRoleRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	ada, bob := w.join(trust.RoleAdmin, "ada"), w.join(trust.RoleMember, "bob")
	gone := w.join(trust.RoleMember, "gone")
	w.removeMember(w.founder, gone)
	w.setRole(bob, trust.RoleAdmin, 50)
	o := w.founder.observer()
	closes := func(f *wire.SetRole, c wire.Signed) *wire.SetRole {
		f.Closes = []wire.Signed{c}
		return f
	}
	ofAda := w.capability(ada.key, trust.RoleMember, 1, w.Now().Add(time.Hour))
	{
		p := ada.observer()
		ask[*wire.OK](p, ofAda.put(2))
		p.end()
	}
	stale := w.role(o, w.owner, bob, trust.RoleMember, 60)
	stale.MembersVersion--
	elsewhere := w.role(o, w.owner, bob, trust.RoleMember, 60)
	elsewhere.Role = trust.SignRole(w.owner, trust.Role{Mesh: wire.ID{1}, Member: bob.key.Public(), Role: trust.RoleMember, Issued: 60})
	before := ask[*wire.MembersList](o, &wire.Members{}).Version
	for name, c := range map[string]struct {
		frame *wire.SetRole
		code  wire.Code
	}{
		"by an admin":       {w.role(o, ada.key, bob, trust.RoleMember, 60), wire.CodeBadSignature},
		"of the founder":    {w.role(o, w.owner, w.founder, trust.RoleMember, 60), wire.CodeForbidden},
		"of who is none":    {w.role(o, w.owner, &user{key: trust.NewSecretKey()}, trust.RoleAdmin, 60), wire.CodeUnknownMember},
		"of who is gone":    {w.role(o, w.owner, gone, trust.RoleAdmin, 60), wire.CodeRemoved},
		"older":             {w.role(o, w.owner, bob, trust.RoleMember, 49), wire.CodeStaleMembers},
		"of the same time":  {w.role(o, w.owner, bob, trust.RoleMember, 50), wire.CodeStaleMembers},
		"another version":   {stale, wire.CodeStaleMembers},
		"another mesh":      {elsewhere, wire.CodeBadCertificate},
		"the admin's close": {closes(w.role(o, w.owner, ada, trust.RoleMember, 60), w.closeOf(ada.key, ofAda).Close), wire.CodeForbidden},
		"close at a rise":   {closes(w.role(o, w.owner, ada, trust.RoleAdmin, 60), w.closeOf(w.owner, ofAda).Close), wire.CodeForbidden},
		"close of nothing":  {closes(w.role(o, w.owner, ada, trust.RoleMember, 60), w.closeOf(w.owner, invite{id: wire.ID{7}}).Close), wire.CodeInviteUnknown},
	} {
		t.Run(name, func(t *testing.T) { o.refused(c.frame, c.code) })
	}
	if l := ask[*wire.MembersList](o, &wire.Members{}); l.Version != before || len(l.Roles) != 1 {
		t.Errorf("version %d, %d roles; want %d, 1", l.Version, len(l.Roles), before)
	}
}

// What shows an invite of a promoted admin proves that it is one, also when it
// came itself by another's invite.
func TestInviteOfPromoted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	bob := w.join(trust.RoleMember, "bob")
	w.setRole(bob, trust.RoleAdmin, 100)
	eve, _ := bob.admit(bob.key, "eve")
	w.setRole(eve, trust.RoleAdmin, 100)
	o := eve.observer()
	in := w.capability(eve.key, trust.RoleMember, 1, w.Now().Add(time.Hour))
	ask[*wire.OK](o, in.put(1))
	status, body, _ := w.http("GET", "/v2/invites/"+in.id.String(), "", nil)
	var reply wire.InviteReply
	if err := wire.Unmarshal([]byte(body), &reply); status != 200 || err != nil {
		t.Fatal(status, body, err)
	}
	r, err := trust.NewRoster(w.m.Owner, reply.Genesis)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range reply.Roles {
		if _, err := r.AddRole(s); err != nil {
			t.Error(err)
		}
	}
	var last trust.Member
	for _, c := range reply.Issuer {
		if last, err = r.Add(c); err != nil {
			t.Error(err)
		}
	}
	if _, err := r.VerifyCapability(reply.Capability); err != nil || last.Name != "eve" {
		t.Errorf("%v; the last is %q", err, last.Name)
	}
}

func (w *world) paused(signer trust.SecretKey, d time.Duration) *wire.Pause {
	return &wire.Pause{Pause: trust.SignPause(signer, w.m.MeshID, w.Now().Add(d).UnixMilli())}
}

func (w *world) resumed(signer trust.SecretKey, p *wire.Pause) *wire.Pause {
	return &wire.Pause{Pause: trust.SignResume(signer, w.m.MeshID, sha256.Sum256(p.Pause.Body))}
}

// While a mesh is paused nothing is taken, but that what was taken before is
// answered as that; a resume, and the end of the pause, let messages pass, in order.
func TestPause(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	ada := w.join(trust.RoleAdmin, "ada")
	a, b := w.founder.session(), ada.session()
	before := a.dm(b.pub())
	ask[*wire.Ack](a, before)
	p := w.paused(ada.key, time.Hour)
	ok := ask[*wire.OK](a, p) // whoever carries it
	want(b, func(f *wire.MembersChanged) bool { return f.Version == ok.Version })
	if l := ask[*wire.MembersList](b, &wire.Members{}); len(l.Pauses) != 1 || !l.Pauses[0].Equal(p.Pause) {
		t.Errorf("pauses %v", l.Pauses)
	}
	first, second := a.dm(b.pub()), a.group(b.pub())
	for _, f := range []*wire.Send{first, second, first} {
		if e := a.refused(f, wire.CodePaused); e.ID != f.ID || (f == first && (e.RetryAfterMs < 1 || e.RetryAfterMs > 30_000)) {
			t.Errorf("%+v", e)
		}
	}
	if ack := ask[*wire.Ack](a, before); !ack.Duplicate {
		t.Errorf("%+v", ack)
	}
	w.Stop()
	w.Start()
	a, b = w.founder.again(a), ada.again(b)
	e := a.refused(first, wire.CodePaused)
	if e.RetryAfterMs != 30_000 {
		t.Errorf("retry after %d ms", e.RetryAfterMs)
	}
	ask[*wire.OK](b, w.resumed(w.owner, p))
	ask[*wire.OK](b, w.resumed(w.owner, p))
	ask[*wire.OK](b, w.resumed(ada.key, p)) // nothing is left to end
	if l := ask[*wire.MembersList](b, &wire.Members{}); len(l.Pauses) != 2 {
		t.Errorf("%d pauses and resumes", len(l.Pauses))
	}
	a.refused(second, wire.CodePaused) // the first comes first
	ask[*wire.Ack](a, first)
	ask[*wire.Ack](a, second)
	short := w.paused(w.owner, 20*time.Second)
	ask[*wire.OK](b, short)
	passing := a.dm(b.pub(), func(s *wire.Send) { s.Expires = w.Now().Add(25 * time.Second).UnixMilli() })
	if e := a.refused(passing, wire.CodePaused); e.RetryAfterMs > 20_000 {
		t.Errorf("retry after %d ms", e.RetryAfterMs)
	}
	w.Advance(40 * time.Second)
	after := a.dm(b.pub())
	a.refused(after, wire.CodePaused)    // the first comes first
	a.refused(passing, wire.CodeExpired) // and will come no more
	ask[*wire.Ack](a, after)
}

func TestPauseRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	ada, bob, was := w.join(trust.RoleAdmin, "ada"), w.join(trust.RoleMember, "bob"), w.join(trust.RoleAdmin, "was")
	old := w.paused(was.key, time.Hour)
	o := bob.observer()
	ask[*wire.OK](o, old)
	w.setRole(was, trust.RoleMember, 100)
	a, b := w.founder.session(), bob.session()
	ask[*wire.Ack](a, a.dm(b.pub())) // the pause of one that is no admin any more
	now := w.paused(ada.key, time.Hour)
	elsewhere := &wire.Pause{Pause: trust.SignPause(ada.key, wire.ID{1}, w.Now().Add(time.Hour).UnixMilli())}
	forged := w.paused(ada.key, time.Hour)
	forged.Pause.Sig[3] ^= 1
	for name, c := range map[string]struct {
		frame *wire.Pause
		code  wire.Code
	}{
		"by a member":          {w.paused(bob.key, time.Hour), wire.CodeForbidden},
		"by who was admin":     {w.paused(was.key, time.Hour), wire.CodeForbidden},
		"a resume by a member": {w.resumed(bob.key, now), wire.CodeForbidden},
		"a resume by who was":  {w.resumed(was.key, now), wire.CodeForbidden},
		"that has passed":      {w.paused(ada.key, -time.Second), wire.CodeExpired},
		"for ever":             {w.paused(ada.key, 10000*time.Hour), wire.CodeBadLifetime},
		"of another mesh":      {elsewhere, wire.CodeBadCertificate},
		"forged":               {forged, wire.CodeBadSignature},
	} {
		t.Run(name, func(t *testing.T) { o.refused(c.frame, c.code) })
	}
	ask[*wire.Ack](a, a.dm(b.pub()))
}

// A kick closes every connection of a member, who comes back at once.
func TestKick(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	ada, second, bob := w.join(trust.RoleAdmin, "ada"), w.join(trust.RoleAdmin, "second"), w.join(trust.RoleMember, "bob")
	watcher, by := w.founder.observer(), ada.observer()
	ask[*wire.PeersList](watcher, &wire.ListPeers{Watch: true})
	b1, b2, b3 := bob.session(), bob.person(), bob.observer()
	for _, c := range []struct {
		who  *user
		whom *user
		code wire.Code
	}{
		{bob, ada, wire.CodeForbidden}, {bob, bob, wire.CodeForbidden},
		{ada, second, wire.CodeForbidden}, {ada, w.founder, wire.CodeForbidden},
		{ada, &user{key: trust.NewSecretKey()}, wire.CodeUnknownMember},
	} {
		o := c.who.observer()
		o.refused(&wire.Kick{Member: c.whom.key.Public()}, c.code)
		o.end()
	}
	ask[*wire.OK](by, &wire.Kick{Member: bob.key.Public()})
	for _, p := range []*peer{b1, b2, b3} {
		if got := p.closed(); got != websocket.StatusCode(wire.CloseKicked) {
			t.Errorf("close code %d", got)
		}
	}
	want(watcher, func(p *wire.Presence) bool { return p.Event == wire.PresenceLeft && p.Peer.SessionPubkey == b1.pub() })
	again := bob.again(b1)
	ask[*wire.Ack](by, by.dm(again.pub()))
	want[*wire.Push](again)
	for _, u := range []*user{second, w.founder} { // the owner kicks anyone, itself too
		ask[*wire.OK](watcher, &wire.Kick{Member: u.key.Public()})
	}
	if got := watcher.closed(); got != websocket.StatusCode(wire.CloseKicked) {
		t.Errorf("close code %d", got)
	}
}

// A block refuses early what its member would not take.
func TestBlock(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	bob, eve := w.join(trust.RoleMember, "bob"), w.join(trust.RoleMember, "eve")
	a, b, e, other := w.founder.session(), bob.session(), eve.session(), eve.session()
	o := bob.observer()
	o.refused(&wire.Block{Member: bob.key.Public(), Blocked: true}, wire.CodeBadFrame)
	o.refused(&wire.Block{Member: trust.NewSecretKey().Public(), Blocked: true}, wire.CodeUnknownMember)
	before := e.dm(b.pub())
	ask[*wire.Ack](e, before)
	want(b, byID(before.ID))
	block := &wire.Block{Member: eve.key.Public(), Blocked: true}
	v := ask[*wire.OK](o, block).Version
	if again := ask[*wire.OK](o, block).Version; again != v {
		t.Errorf("again: version %d, want %d", again, v)
	}
	refused := func() {
		t.Helper()
		for _, f := range []*wire.Send{e.dm(b.pub()), other.dm(bob.key.Public()), e.group(b.pub()),
			e.dm(b.pub(), func(s *wire.Send) { s.Mode = wire.ModeReceipt })} {
			p := e
			if f.To == bob.key.Public() {
				p = other
			}
			p.refused(f, wire.CodeBlocked)
		}
	}
	refused()
	if ack := ask[*wire.Ack](e, before); !ack.Duplicate {
		t.Errorf("%+v", ack)
	}
	g := e.group(a.pub(), b.pub(), bob.key.Public())
	ack := ask[*wire.Ack](e, g)
	skipped := []wire.Skipped{{Key: b.pub(), Code: wire.CodeBlocked}, {Key: bob.key.Public(), Code: wire.CodeBlocked}}
	if len(ack.Recipients) != 1 || ack.Recipients[0].Key != a.pub() || !slices.Equal(ack.Skipped, skipped) {
		t.Errorf("%+v", ack)
	}
	want(a, byID(g.ID))
	none[*wire.Push](b, "it is blocked")
	ask[*wire.Ack](b, b.dm(e.pub())) // the other way is open
	ask[*wire.Ack](a, a.dm(b.pub()))
	w.Stop()
	w.Start()
	b, e, other = bob.again(b), eve.again(e), eve.again(other)
	refused()
	ask[*wire.OK](b, &wire.Block{Member: eve.key.Public()})
	ask[*wire.Ack](e, e.dm(b.pub()))
}
