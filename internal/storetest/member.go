package storetest

import (
	"slices"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
)

var memberTests = []test{
	{"Join", testJoin},
	{"JoinRepeated", testJoinRepeated},
	{"JoinConflict", testJoinConflict},
	{"JoinRefused", testJoinRefused},
	{"JoinName", testJoinName},
	{"Changes", testChanges},
}

var removeTests = []test{
	{"Remove", testRemove},
	{"RemoveStale", testRemoveStale},
	{"RemoveTwice", testRemoveTwice},
	{"RemoveBounces", testRemoveBounces},
	{"RemoveVoids", testRemoveVoids},
	{"RemoveIsAtomic", testRemoveAtomic},
}

// removal makes a removal without a next key, on the stored version.
func (w *world) removal(member wire.Key) broker.Removal {
	w.Helper()
	return broker.Removal{Mesh: w.mesh.ID, Member: member, Statement: w.signed(), Version: w.getMesh().MembersVersion, Now: t0.Add(time.Minute)}
}

// nextKey makes the next key for members.
func (w *world) nextKey(members ...wire.Key) *broker.NextKey {
	w.Helper()
	k := &broker.NextKey{Generation: w.getMesh().Generation + 1, Issuer: w.founder.Key, Previous: w.bytes(72)}
	for _, m := range members {
		k.Boxes = append(k.Boxes, wire.KeyBoxTo{To: m, Box: w.bytes(72)})
	}
	return k
}

func (w *world) changes(since int64, member wire.Key) broker.MemberChanges {
	w.Helper()
	c, err := w.s.Changes(w.ctx, w.mesh.ID, since, member)
	w.ok(err)
	return c
}

func testJoin(w *world) {
	in := w.newInvite(2)
	j := w.joining(in, "bob")
	a, err := w.s.Join(w.ctx, j)
	w.ok(err)
	w.equal(a, broker.Admission{Blob: in.Blob, Generation: 1, Version: 2})
	got, err := w.s.Invite(w.ctx, in.ID)
	w.ok(err)
	in.Uses = 1
	w.equal(got, in)
	w.equal(w.getMesh().MembersVersion, int64(2))
	w.equal(w.changes(1, j.Member.Key), broker.MemberChanges{Members: []broker.Member{j.Member}, Version: 2, Gen: 1})
	w.s = w.reopen()
	w.equal(w.changes(0, j.Member.Key), broker.MemberChanges{Members: []broker.Member{w.founder, j.Member}, Version: 2, Gen: 1})
}

func testJoinRepeated(w *world) {
	in := w.newInvite(1)
	j := w.joining(in, "bob")
	first, err := w.s.Join(w.ctx, j)
	w.ok(err)
	first.Repeated = true
	again := func() {
		w.Helper()
		a, err := w.s.Join(w.ctx, j)
		w.ok(err)
		w.equal(a, first)
	}
	again() // used up
	j.Now = in.Expires.Add(time.Hour)
	again() // expired
	_, err = w.s.CloseInvite(w.ctx, w.mesh.ID, broker.InviteClose{Invite: in.ID, Statement: w.signed()})
	w.ok(err)
	again() // closed
	got, err := w.s.Invite(w.ctx, in.ID)
	w.ok(err)
	w.equal(got.Uses, 1)
	w.equal(w.getMesh().MembersVersion, int64(3))
}

func testJoinConflict(w *world) {
	in := w.newInvite(9)
	j := w.joining(in, "bob")
	_, err := w.s.Join(w.ctx, j)
	w.ok(err)
	other := j
	other.Member.Certificate = wire.Certificate{in.Capability, w.signed(), w.signed()}
	_, err = w.s.Join(w.ctx, other)
	w.fails(err, broker.ErrConflict)
	other = w.joining(in, "x")
	other.Member.Key = w.founder.Key
	_, err = w.s.Join(w.ctx, other)
	w.fails(err, broker.ErrConflict)
	_, err = w.s.Remove(w.ctx, w.removal(j.Member.Key))
	w.ok(err)
	_, err = w.s.Join(w.ctx, j)
	w.fails(err, broker.ErrConflict)
	got, err := w.s.Invite(w.ctx, in.ID)
	w.ok(err)
	w.equal(got.Uses, 1)
}

func testJoinRefused(w *world) {
	try := func(in broker.Invite, now time.Time, want error) {
		w.Helper()
		j := w.joining(in, "bob")
		j.Now = now
		_, err := w.s.Join(w.ctx, j)
		w.fails(err, want)
	}
	try(broker.Invite{Mesh: w.mesh.ID, ID: w.id(), Capability: w.signed()}, t0, broker.ErrNotFound)
	in := w.newInvite(1)
	elsewhere := in
	other, _ := w.newMesh()
	elsewhere.Mesh = other.ID
	try(elsewhere, t0, broker.ErrNotFound)
	try(in, in.Expires, broker.ErrInviteExpired)
	try(in, in.Expires.Add(time.Second), broker.ErrInviteExpired)
	_, err := w.s.Join(w.ctx, w.joining(in, "alice"))
	w.ok(err)
	try(in, t0, broker.ErrInviteUsedUp)

	closed := w.newInvite(1)
	_, err = w.s.CloseInvite(w.ctx, w.mesh.ID, broker.InviteClose{Invite: closed.ID, Statement: w.signed()})
	w.ok(err)
	try(closed, t0, broker.ErrInviteClosed)

	voided := w.newInvite(1)
	gone := w.join("gone")
	r := w.removal(gone.Key)
	r.NextKey = w.nextKey(w.founder.Key)
	_, err = w.s.Remove(w.ctx, r)
	w.ok(err)
	try(voided, t0, broker.ErrInviteClosed)
}

func testJoinName(w *world) {
	in := w.newInvite(9)
	_, err := w.s.Join(w.ctx, w.joining(in, w.founder.Name))
	w.fails(err, broker.ErrNameTaken)
	bob := w.join("bob")
	_, err = w.s.Join(w.ctx, w.joining(in, "bob"))
	w.fails(err, broker.ErrNameTaken)
	got, err := w.s.Invite(w.ctx, in.ID)
	w.ok(err)
	w.equal(got.Uses, 0)
	_, err = w.s.Remove(w.ctx, w.removal(bob.Key))
	w.ok(err)
	_, err = w.s.Join(w.ctx, w.joining(in, "bob"))
	w.ok(err)
	_, err = w.s.Join(w.ctx, w.joining(in, "bob"))
	w.fails(err, broker.ErrNameTaken)
}

func testChanges(w *world) {
	bob, eve := w.join("bob"), w.join("eve") // versions 2, 3
	in := w.newInvite(1)
	c := broker.InviteClose{Invite: in.ID, Statement: w.signed()}
	_, err := w.s.CloseInvite(w.ctx, w.mesh.ID, c) // 4
	w.ok(err)
	r := w.removal(eve.Key) // 5
	r.NextKey = w.nextKey(w.founder.Key, bob.Key)
	_, err = w.s.Remove(w.ctx, r)
	w.ok(err)
	eve.Removed = true
	r2 := w.removal(eve.Key) // 6
	r2.NextKey = w.nextKey(w.founder.Key, bob.Key)
	r2.NextKey.Previous = nil
	_, err = w.s.Remove(w.ctx, r2)
	w.ok(err)

	box := func(k *broker.NextKey, i int) wire.KeyBox {
		return wire.KeyBox{Generation: k.Generation, Issuer: k.Issuer, Box: k.Boxes[i].Box, Previous: k.Previous}
	}
	w.equal(w.changes(0, bob.Key), broker.MemberChanges{
		Members: []broker.Member{w.founder, bob, eve}, Removals: []wire.Signed{r.Statement, r2.Statement}, Closes: []wire.Signed{c.Statement},
		Keys: []wire.KeyBox{box(r.NextKey, 1), box(r2.NextKey, 1)}, Version: 6, Gen: 3})
	w.equal(w.changes(3, w.founder.Key), broker.MemberChanges{
		Removals: []wire.Signed{r.Statement, r2.Statement}, Closes: []wire.Signed{c.Statement},
		Keys: []wire.KeyBox{box(r.NextKey, 0), box(r2.NextKey, 0)}, Version: 6, Gen: 3})
	w.equal(w.changes(5, w.founder.Key), broker.MemberChanges{
		Removals: []wire.Signed{r2.Statement}, Keys: []wire.KeyBox{box(r2.NextKey, 0)}, Version: 6, Gen: 3})
	w.equal(len(w.changes(4, eve.Key).Keys), 0)
	w.equal(w.changes(6, bob.Key), broker.MemberChanges{Version: 6, Gen: 3})
}

func testRemove(w *world) {
	bob := w.join("bob")
	in, kept := w.newInvite(3), w.newInvite(3)
	r := w.removal(bob.Key)
	r.Closes = []broker.InviteClose{{Invite: in.ID, Statement: w.signed()}}
	out, err := w.s.Remove(w.ctx, r)
	w.ok(err)
	w.equal(out, broker.Removed{Version: 3})
	w.equal(w.getMesh().Generation, uint64(1))
	bob.Removed = true
	w.equal(w.changes(1, w.founder.Key), broker.MemberChanges{Members: []broker.Member{bob}, Removals: []wire.Signed{r.Statement},
		Closes: []wire.Signed{r.Closes[0].Statement}, Version: 3, Gen: 1})
	for id, closed := range map[wire.ID]bool{in.ID: true, kept.ID: false} {
		got, err := w.s.Invite(w.ctx, id)
		w.ok(err)
		w.equal([]bool{got.Closed, got.Voided}, []bool{closed, false})
	}
}

func testRemoveStale(w *world) {
	bob := w.join("bob")
	try := func(want error, change func(r *broker.Removal)) {
		w.Helper()
		r := w.removal(bob.Key)
		r.NextKey = w.nextKey(w.founder.Key)
		change(&r)
		_, err := w.s.Remove(w.ctx, r)
		w.fails(err, want)
	}
	try(broker.ErrStaleMembers, func(r *broker.Removal) { r.Version-- })
	try(broker.ErrStaleMembers, func(r *broker.Removal) { r.Version++ })
	try(broker.ErrStaleMembers, func(r *broker.Removal) { r.NextKey.Generation-- })
	try(broker.ErrStaleMembers, func(r *broker.Removal) { r.NextKey.Generation++ })
	try(broker.ErrNotFound, func(r *broker.Removal) { r.Member = w.key() })
	try(broker.ErrNotFound, func(r *broker.Removal) { r.Mesh = w.id() })
	w.equal(w.getMesh().MembersVersion, int64(2))
	w.equal(w.changes(0, bob.Key).Members[1].Removed, false)
}

func testRemoveTwice(w *world) {
	bob := w.join("bob")
	leave := w.removal(bob.Key)
	_, err := w.s.Remove(w.ctx, leave)
	w.ok(err)
	admin := w.removal(bob.Key)
	admin.NextKey = w.nextKey(w.founder.Key)
	out, err := w.s.Remove(w.ctx, admin)
	w.ok(err)
	w.equal(out.Version, int64(4))
	w.equal(w.changes(2, w.founder.Key).Removals, []wire.Signed{leave.Statement, admin.Statement})
	w.equal(w.getMesh().Generation, uint64(2))
}

func testRemoveBounces(w *world) {
	eve := w.join("eve")
	own := w.put(broker.Peer{Mesh: w.mesh.ID, Key: eve.Key, Member: eve.Key, LastSeen: t0})
	session := w.session(eve.Key)
	direct, group, toOwn := w.message(session), w.message(w.bob, session, own), w.message(own)
	fromEve := w.message(w.bob)
	fromEve.Sender = session
	n1, n2, n3, n4 := w.send(direct), w.send(group), w.send(toOwn), w.send(fromEve)
	w.settle(w.delivered(n3, own))

	r := w.removal(eve.Key)
	out, err := w.s.Remove(w.ctx, r)
	w.ok(err)
	slices.SortFunc(out.Bounced, func(a, b broker.Outcome) int { return int(a.Delivery - b.Delivery) })
	w.equal(out.Bounced, []broker.Outcome{
		w.outcome(direct, n1, 0, wire.StateBounced, wire.CodeRemoved, r.Now),
		w.outcome(group, n2, 1, wire.StateBounced, wire.CodeRemoved, r.Now),
		w.outcome(group, n2, 2, wire.StateBounced, wire.CodeRemoved, r.Now)})
	w.sameNumbers(w.queue(session))
	w.sameNumbers(w.queue(own))
	w.sameNumbers(w.queue(w.bob), n2, n4)
	w.equal(w.lookup(direct), out.Bounced[:1])
	peers, err := w.s.Peers(w.ctx, w.mesh.ID)
	w.ok(err)
	for _, p := range peers {
		if p.Member == eve.Key {
			w.Errorf("peer %d of the removed member is still there", p.ID)
		}
	}
	// Others still learn whose message it is.
	status, err := w.s.Status(w.ctx, w.mesh.ID, eve.Key, []wire.ID{fromEve.ID})
	w.ok(err)
	w.equal(status, []broker.Outcome{w.outcome(fromEve, n4, 0, wire.StateQueued, "", t0)})
}

func testRemoveVoids(w *world) {
	bob := w.join("bob")
	open, closing := w.newInvite(2), w.newInvite(2)
	late := broker.Invite{Mesh: w.mesh.ID, ID: w.id(), Capability: w.signed(), Blob: w.bytes(48), Generation: 1, MaxUses: 1, Expires: t0, Created: t0}
	w.ok(w.s.PutInvite(w.ctx, late))
	r := w.removal(bob.Key)
	r.Closes = []broker.InviteClose{{Invite: closing.ID, Statement: w.signed()}}
	r.NextKey = w.nextKey(w.founder.Key)
	out, err := w.s.Remove(w.ctx, r)
	w.ok(err)
	w.equal(out, broker.Removed{Version: 3, Voided: []wire.ID{open.ID}})
	got, err := w.s.Invite(w.ctx, open.ID)
	w.ok(err)
	w.equal([]bool{got.Closed, got.Voided}, []bool{false, true})
	fresh := w.newInvite(1)
	w.equal(fresh.Generation, uint64(2))
	_, err = w.s.Join(w.ctx, w.joining(fresh, "new"))
	w.ok(err)
}

func testRemoveAtomic(w *world) {
	eve := w.join("eve")
	session := w.session(eve.Key)
	n := w.send(w.message(session))
	before := w.getMesh()
	r := w.removal(eve.Key)
	r.NextKey = w.nextKey(w.founder.Key)
	r.Closes = []broker.InviteClose{{Invite: w.id(), Statement: w.signed()}} // unknown
	_, err := w.s.Remove(w.ctx, r)
	w.fails(err, broker.ErrNotFound)
	r.Closes = nil
	r.NextKey.Boxes = append(r.NextKey.Boxes, r.NextKey.Boxes[0]) // one member twice: no store may keep that
	if _, err = w.s.Remove(w.ctx, r); err == nil {
		w.Error("two boxes for one member were stored")
	}
	w.equal(w.getMesh(), before)
	w.sameNumbers(w.queue(session), n)
	w.equal(w.changes(2, w.founder.Key), broker.MemberChanges{Version: 2, Gen: 1})
}
