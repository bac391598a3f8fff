package storetest

import (
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
)

var inviteTests = []test{
	{"PutInvite", testPutInvite},
	{"Invites", testInvites},
	{"CloseInvite", testCloseInvite},
}

func testPutInvite(w *world) {
	in := w.newInvite(3)
	got, err := w.s.Invite(w.ctx, in.ID)
	w.ok(err)
	w.equal(got, in)
	_, err = w.s.Invite(w.ctx, w.id())
	w.fails(err, broker.ErrNotFound)

	again := in
	again.Blob = w.bytes(48)
	w.ok(w.s.PutInvite(w.ctx, again)) // the same capability
	got, err = w.s.Invite(w.ctx, in.ID)
	w.ok(err)
	w.equal(got, in)

	other := in
	other.Capability = w.signed()
	w.fails(w.s.PutInvite(w.ctx, other), broker.ErrConflict)
	other = in
	mesh, _ := w.newMesh()
	other.Mesh = mesh.ID
	w.fails(w.s.PutInvite(w.ctx, other), broker.ErrConflict)
	other.ID, other.Mesh = w.id(), w.id()
	w.fails(w.s.PutInvite(w.ctx, other), broker.ErrNotFound)
	for _, generation := range []uint64{0, 2} {
		other = in
		other.ID, other.Generation = w.id(), generation
		w.fails(w.s.PutInvite(w.ctx, other), broker.ErrStaleMembers)
	}
	w.equal(w.getMesh().MembersVersion, int64(1))
}

func testInvites(w *world) {
	mesh, _ := w.newMesh()
	var want []broker.Invite
	for i := range 3 {
		in := broker.Invite{Mesh: w.mesh.ID, ID: w.id(), Capability: w.signed(), Blob: w.bytes(48), Generation: 1,
			MaxUses: 1, Expires: t0.Add(time.Hour), Created: t0.Add(time.Duration(i) * time.Second)}
		w.ok(w.s.PutInvite(w.ctx, in))
		want = append([]broker.Invite{in}, want...)
		in.Mesh, in.ID, in.Capability = mesh.ID, w.id(), w.signed()
		w.ok(w.s.PutInvite(w.ctx, in))
	}
	got, err := w.reopen().Invites(w.ctx, w.mesh.ID)
	w.ok(err)
	w.equal(got, want)
}

func testCloseInvite(w *world) {
	in := w.newInvite(3)
	a := broker.InviteClose{Invite: in.ID, Statement: w.signed()}
	b := broker.InviteClose{Invite: in.ID, Statement: w.signed()}
	other, _ := w.newMesh()
	_, err := w.s.CloseInvite(w.ctx, other.ID, a)
	w.fails(err, broker.ErrNotFound)
	_, err = w.s.CloseInvite(w.ctx, w.mesh.ID, broker.InviteClose{Invite: w.id(), Statement: w.signed()})
	w.fails(err, broker.ErrNotFound)
	_, err = w.s.CloseInvite(w.ctx, w.id(), a)
	w.fails(err, broker.ErrNotFound)
	for i, c := range []broker.InviteClose{a, b} {
		version, err := w.s.CloseInvite(w.ctx, w.mesh.ID, c)
		w.ok(err)
		w.equal(version, int64(i+2))
	}
	got, err := w.s.Invite(w.ctx, in.ID)
	w.ok(err)
	in.Closed = true
	w.equal(got, in)
	w.equal(w.changes(1, w.founder.Key), broker.MemberChanges{Closes: []wire.Signed{a.Statement, b.Statement}, Version: 3, Gen: 1})
}
