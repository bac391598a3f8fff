package storetest

import (
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
)

var governTests = []test{
	{"SetRole", testSetRole},
	{"SetRoleStale", testSetRoleStale},
	{"SetRoleIsAtomic", testSetRoleAtomic},
	{"SetRoleLimit", testSetRoleLimit},
	{"Pause", testPause},
	{"PausePasses", testPausePasses},
	{"PauseLimit", testPauseLimit},
	{"Block", testBlock},
	{"BlockLimit", testBlockLimit},
	{"BlockOfRemoved", testBlockOfRemoved},
	{"RaceSetRole", testRaceSetRole},
}

// roleChange makes a role on the stored version.
func (w *world) roleChange(closes ...wire.ID) broker.RoleChange {
	w.Helper()
	r := broker.RoleChange{Mesh: w.mesh.ID, Statement: w.signed(), Version: w.getMesh().MembersVersion}
	for _, id := range closes {
		r.Closes = append(r.Closes, broker.InviteClose{Invite: id, Statement: w.signed()})
	}
	return r
}

func (w *world) pause(signer wire.Key, until time.Time) broker.Pause {
	p := broker.Pause{Mesh: w.mesh.ID, Signer: signer, Statement: w.signed(), Until: until, Now: t0}
	copy(p.Hash[:], w.bytes(32))
	return p
}

// resume makes the end of a pause.
func (w *world) resume(signer wire.Key, p broker.Pause) broker.Pause {
	return broker.Pause{Mesh: p.Mesh, Signer: signer, Statement: w.signed(), Hash: p.Hash, Now: p.Now}
}

func (w *world) blocks() []broker.Block {
	w.Helper()
	b, err := w.s.Blocks(w.ctx, w.mesh.ID)
	w.ok(err)
	return b
}

func testSetRole(w *world) {
	in, kept := w.newInvite(3), w.newInvite(3)
	first, second := w.roleChange(), w.roleChange(in.ID)
	v, err := w.s.SetRole(w.ctx, first)
	w.ok(err)
	w.equal(v, int64(2))
	second.Version = v
	v, err = w.s.SetRole(w.ctx, second)
	w.ok(err)
	w.equal(v, int64(3))
	for id, closed := range map[wire.ID]bool{in.ID: true, kept.ID: false} {
		got, err := w.s.Invite(w.ctx, id)
		w.ok(err)
		w.equal(got.Closed, closed)
	}
	v, err = w.s.SetRole(w.ctx, first) // again, on a version that is long past
	w.ok(err)
	w.equal(v, int64(2))
	w.s = w.reopen()
	closes := []wire.Signed{second.Closes[0].Statement}
	w.equal(w.changes(1, w.founder.Key), broker.MemberChanges{Roles: []wire.Signed{first.Statement, second.Statement}, Closes: closes, Version: 3, Gen: 1})
	w.equal(w.changes(2, w.founder.Key), broker.MemberChanges{Roles: []wire.Signed{second.Statement}, Closes: closes, Version: 3, Gen: 1})
	w.equal(w.getMesh().MembersVersion, int64(3))
}

func testSetRoleStale(w *world) {
	w.join("bob")
	for _, off := range []int64{-1, 1} {
		r := w.roleChange()
		r.Version += off
		_, err := w.s.SetRole(w.ctx, r)
		w.fails(err, broker.ErrStaleMembers)
	}
	r := w.roleChange()
	r.Mesh = w.id()
	_, err := w.s.SetRole(w.ctx, r)
	w.fails(err, broker.ErrNotFound)
	w.equal(w.changes(2, w.founder.Key), broker.MemberChanges{Version: 2, Gen: 1})
}

func testSetRoleAtomic(w *world) {
	in := w.newInvite(1)
	_, err := w.s.SetRole(w.ctx, w.roleChange(in.ID, w.id())) // the second is unknown
	w.fails(err, broker.ErrNotFound)
	got, err := w.s.Invite(w.ctx, in.ID)
	w.ok(err)
	w.equal(got.Closed, false)
	w.equal(w.changes(1, w.founder.Key), broker.MemberChanges{Version: 1, Gen: 1})
}

func testSetRoleLimit(w *world) {
	for i := range broker.MaxRoles {
		_, err := w.s.SetRole(w.ctx, broker.RoleChange{Mesh: w.mesh.ID, Statement: w.signed(), Version: int64(i + 1)})
		w.ok(err)
	}
	_, err := w.s.SetRole(w.ctx, w.roleChange())
	w.fails(err, broker.ErrTooMany)
}

func testPause(w *world) {
	admin := w.key()
	p := w.pause(admin, t0.Add(time.Hour))
	r := w.resume(w.founder.Key, p)
	_, err := w.s.AddPause(w.ctx, r)
	w.fails(err, broker.ErrNotFound) // nothing to end
	for range 2 {
		v, err := w.s.AddPause(w.ctx, p)
		w.ok(err)
		w.equal(v, int64(2))
	}
	for range 2 {
		v, err := w.s.AddPause(w.ctx, r)
		w.ok(err)
		w.equal(v, int64(3))
	}
	other := p
	other.Mesh = w.id()
	_, err = w.s.AddPause(w.ctx, other)
	w.fails(err, broker.ErrNotFound)
	w.s = w.reopen()
	w.equal(w.changes(1, w.founder.Key), broker.MemberChanges{Pauses: []wire.Signed{p.Statement, r.Statement}, Version: 3, Gen: 1})
	w.equal(w.changes(2, w.founder.Key), broker.MemberChanges{Pauses: []wire.Signed{r.Statement}, Version: 3, Gen: 1})
}

// What has passed goes, with its resume; what lasts stays.
func testPausePasses(w *world) {
	short, long := w.pause(w.founder.Key, t0.Add(time.Minute)), w.pause(w.founder.Key, t0.Add(time.Hour))
	for _, p := range []broker.Pause{short, w.resume(w.founder.Key, short), long} {
		_, err := w.s.AddPause(w.ctx, p)
		w.ok(err)
	}
	last := w.pause(w.founder.Key, t0.Add(time.Hour))
	last.Now = short.Until
	_, err := w.s.AddPause(w.ctx, last)
	w.ok(err)
	w.equal(w.changes(0, w.founder.Key).Pauses, []wire.Signed{long.Statement, last.Statement})
	late := w.resume(w.founder.Key, short)
	_, err = w.s.AddPause(w.ctx, late)
	w.fails(err, broker.ErrNotFound)
}

func testPauseLimit(w *world) {
	admin := w.key()
	var last broker.Pause
	for range broker.MaxPauses {
		last = w.pause(admin, t0.Add(time.Hour))
		_, err := w.s.AddPause(w.ctx, last)
		w.ok(err)
	}
	_, err := w.s.AddPause(w.ctx, w.pause(admin, t0.Add(time.Hour)))
	w.fails(err, broker.ErrTooMany)
	_, err = w.s.AddPause(w.ctx, w.resume(admin, last))
	w.ok(err)
	_, err = w.s.AddPause(w.ctx, w.pause(w.founder.Key, t0.Add(time.Hour))) // another's
	w.ok(err)
	later := w.pause(admin, t0.Add(3*time.Hour))
	later.Now = t0.Add(2 * time.Hour)
	_, err = w.s.AddPause(w.ctx, later)
	w.ok(err)
}

func testBlock(w *world) {
	bob, eve := w.join("bob"), w.join("eve") // 2, 3
	b, back := broker.Block{Member: bob.Key, Blocked: eve.Key}, broker.Block{Member: eve.Key, Blocked: bob.Key}
	set := func(b broker.Block, on bool, version int64) {
		w.Helper()
		v, err := w.s.SetBlock(w.ctx, w.mesh.ID, b, on)
		w.ok(err)
		w.equal(v, version)
	}
	set(b, false, 3) // it was not there
	set(b, true, 4)
	set(b, true, 4)
	set(back, true, 5)
	w.equal(w.blocks(), []broker.Block{b, back})
	w.s = w.reopen()
	w.equal(w.blocks(), []broker.Block{b, back})
	set(b, false, 6)
	set(b, false, 6)
	w.equal(w.blocks(), []broker.Block{back})
	w.equal(w.changes(3, bob.Key), broker.MemberChanges{Version: 6, Gen: 1})
	_, err := w.s.SetBlock(w.ctx, w.id(), b, true)
	w.fails(err, broker.ErrNotFound)
	other, _ := w.newMesh()
	none, err := w.s.Blocks(w.ctx, other.ID)
	w.ok(err)
	w.equal(len(none), 0)
}

func testBlockLimit(w *world) {
	bob := w.join("bob")
	one := broker.Block{Member: bob.Key, Blocked: w.key()}
	for i := range broker.MaxBlocks {
		if i > 0 {
			one.Blocked = w.key()
		}
		_, err := w.s.SetBlock(w.ctx, w.mesh.ID, one, true)
		w.ok(err)
	}
	more := broker.Block{Member: bob.Key, Blocked: w.key()}
	_, err := w.s.SetBlock(w.ctx, w.mesh.ID, more, true)
	w.fails(err, broker.ErrTooMany)
	w.equal(len(w.blocks()), broker.MaxBlocks)
	_, err = w.s.SetBlock(w.ctx, w.mesh.ID, one, true) // that is there
	w.ok(err)
	_, err = w.s.SetBlock(w.ctx, w.mesh.ID, one, false)
	w.ok(err)
	_, err = w.s.SetBlock(w.ctx, w.mesh.ID, more, true)
	w.ok(err)
}

func testBlockOfRemoved(w *world) {
	bob, eve, ada := w.join("bob"), w.join("eve"), w.join("ada")
	stays := broker.Block{Member: bob.Key, Blocked: ada.Key}
	for _, b := range []broker.Block{{Member: bob.Key, Blocked: eve.Key}, {Member: eve.Key, Blocked: ada.Key}, stays} {
		_, err := w.s.SetBlock(w.ctx, w.mesh.ID, b, true)
		w.ok(err)
	}
	_, err := w.s.Remove(w.ctx, w.removal(eve.Key))
	w.ok(err)
	w.equal(w.blocks(), []broker.Block{stays})
}

func testRaceSetRole(w *world) {
	roles := make([]broker.RoleChange, racers)
	for i := range roles {
		roles[i] = w.roleChange()
	}
	errs := together(racers, func(i int) error {
		_, err := w.s.SetRole(w.ctx, roles[i])
		return err
	})
	w.tally(errs, map[error]int{nil: 1, broker.ErrStaleMembers: racers - 1})
	w.equal(len(w.changes(1, w.founder.Key).Roles), 1)
}

// doGovern changes a role, pauses or resumes, or blocks.
func (m *model) doGovern(rt *rapid.T) {
	mesh := m.mesh.ID
	changed := func(v int64, err error) {
		m.Helper()
		m.ok(err)
		m.version[mesh]++
		m.equal(v, m.version[mesh])
	}
	switch rapid.SampledFrom([]string{"role", "pause", "resume", "block", "block"}).Draw(rt, "govern") {
	case "role":
		changed(m.s.SetRole(m.ctx, m.roleChange()))
	case "pause":
		p := m.pause(m.founder.Key, m.now.Add(rapid.SampledFrom([]time.Duration{time.Second, time.Hour, 24 * time.Hour}).Draw(rt, "for")))
		m.addPause(p, changed)
	case "resume":
		p := pick(rt, m.pauses, "pause")
		if p.Until.After(m.now) {
			r := m.resume(m.founder.Key, p)
			r.Until = p.Until // the store's is its pause's
			m.addPause(r, changed)
		}
	case "block":
		b := broker.Block{Member: pick(rt, m.members, "member").Key, Blocked: pick(rt, m.members, "blocked").Key}
		on, i := rapid.Bool().Draw(rt, "on"), slices.Index(m.blocks, b)
		v, err := m.s.SetBlock(m.ctx, mesh, b, on)
		switch {
		case on == (i >= 0):
			m.ok(err)
			m.equal(v, m.version[mesh])
			return
		case on:
			m.blocks = append(m.blocks, b)
		default:
			m.blocks = slices.Delete(m.blocks, i, i+1)
		}
		changed(v, err)
	}
}

// addPause adds a pause, or with the statement of a resume that, and forgets what has passed.
func (m *model) addPause(p broker.Pause, changed func(int64, error)) {
	m.Helper()
	p.Now = m.now
	given := p
	if slices.ContainsFunc(m.pauses, func(q broker.Pause) bool { return q.Hash == p.Hash }) {
		given.Until = time.Time{}
	}
	changed(m.s.AddPause(m.ctx, given))
	m.pauses = append(slices.DeleteFunc(m.pauses, func(q broker.Pause) bool { return !q.Until.After(m.now) }), p)
}

func (m *model) compareGovern(mesh wire.ID) {
	m.Helper()
	if mesh != m.mesh.ID {
		return
	}
	got := m.world.blocks()
	m.equal(len(got), len(m.blocks))
	for _, b := range m.blocks {
		if !slices.Contains(got, b) {
			m.Errorf("a block is missing")
		}
	}
	var pauses []wire.Signed
	for _, p := range m.pauses {
		pauses = append(pauses, p.Statement)
	}
	m.equal(m.changes(0, m.founder.Key).Pauses, pauses)
}
