package broker_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/audit"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// recorded gathers what a broker records.
type recorded struct {
	mu   sync.Mutex
	list []audit.Entry
}

func (r *recorded) add(e audit.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, e)
}

// take returns what was recorded since the last call, without times.
func (r *recorded) take() []audit.Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.list
	for i := range out {
		out[i].At = 0
	}
	r.list = nil
	return out
}

// The broker records what happened to members and what was refused, each once.
func TestAudit(t *testing.T) {
	t.Parallel()
	var log recorded
	w := newWorld(t, func(c *broker.Config) { c.Audit = log.add })
	w.Advance(time.Minute - time.Duration(w.Now().UnixNano())%time.Minute) // the test ends within the minute
	id, alice := w.m.MeshID, w.founder.key.Public()
	by := "by " + alice.Short()
	expect := func(what string, want ...audit.Entry) {
		t.Helper()
		for i := range want {
			want[i].Mesh = id
		}
		if got := log.take(); !slices.Equal(got, want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", what, got, want)
		}
	}
	expect("founded", audit.Entry{Event: audit.Created, Member: alice})
	bob := w.join(trust.RoleMember, "bob")
	eve := w.join(trust.RoleMember, "eve")
	b, e := bob.key.Public(), eve.key.Public()
	expect("joined", audit.Entry{Event: audit.Joined, Member: b, Code: "member"}, audit.Entry{Event: audit.Joined, Member: e, Code: "member"})
	if status, body := w.postJoin(bob.cert); status != 200 {
		t.Fatal(status, body)
	}
	expect("joined again")
	o := w.founder.observer()
	promotion := w.role(o, w.owner, bob, trust.RoleAdmin, 10)
	for range 2 {
		ask[*wire.OK](o, promotion)
	}
	expect("role", audit.Entry{Event: audit.Role, Member: b, Code: "admin", Note: by})

	p := w.paused(bob.key, time.Hour)
	es := eve.session()
	for range 2 {
		ask[*wire.OK](o, p)
	}
	first := es.dm(alice)
	for range 3 {
		es.refused(first, wire.CodePaused)
	}
	for range 2 {
		ask[*wire.OK](o, w.resumed(w.owner, p))
	}
	expect("pause", audit.Entry{Event: audit.Paused, Member: b, Note: by},
		audit.Entry{Event: audit.Refused, Member: e, Session: es.pub(), Message: first.ID, Code: "paused"},
		audit.Entry{Event: audit.Resumed, Member: w.owner.Public(), Note: by})
	ask[*wire.Ack](es, first)

	for _, on := range []bool{true, true, false, false} {
		ask[*wire.OK](o, &wire.Block{Member: e, Blocked: on})
	}
	expect("block", audit.Entry{Event: audit.Blocked, Member: e, Note: by}, audit.Entry{Event: audit.Unblocked, Member: e, Note: by})
	ask[*wire.OK](o, &wire.Kick{Member: e})
	es.closed()
	expect("kick", audit.Entry{Event: audit.Kicked, Member: e, Note: by})

	ask[*wire.OK](o, w.removal(o, w.owner, eve, w.founder, bob))
	rm := trust.Removal{Mesh: id, Member: b, Revoked: 1, Reason: trust.ReasonLeft,
		MembersVersion: ask[*wire.MembersList](o, &wire.Members{}).Version}
	bo := bob.observer()
	ask[*wire.OK](bo, &wire.Remove{Removal: trust.SignRemoval(bob.key, rm)})
	expect("removed", audit.Entry{Event: audit.Removed, Member: e, Code: "removed", Note: by}, audit.Entry{Event: audit.Left, Member: b, Code: "left"})

	for range 3 {
		eve.turnedAway(wire.CloseRemoved)
	}
	stranger := &user{w: w, name: "stranger", key: trust.NewSecretKey()}
	other := &user{w: w, name: "other", key: trust.NewSecretKey()}
	stranger.turnedAway(wire.CloseUnknown)
	other.turnedAway(wire.CloseUnknown)
	got := log.take()
	if len(got) != 2 || got[0].Member != e || got[0].Session != e || got[0].Code != "removed" || got[0].Note != "hello" ||
		got[1].Member != (wire.Key{}) || got[1].Code != "unknown_member" {
		t.Errorf("hellos: %+v", got)
	}
	w.Advance(time.Minute)
	eve.turnedAway(wire.CloseRemoved)
	if got := log.take(); len(got) != 1 {
		t.Errorf("a minute later: %+v", got)
	}
}
