package broker_test

import (
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// refusedUntil sends until it is refused with a code: a node may have to hear of
// a change first. Nothing that another node has ruled out may be accepted meanwhile.
func (p *peer) refusedUntil(f *wire.Send, code wire.Code) {
	p.w.t.Helper()
	p.w.eventually("refused with "+string(code), func() bool {
		e, ok := p.answer(f).(*wire.Error)
		if !ok || (e.Code != code && e.Code != wire.CodeStaleMembers) {
			p.w.t.Fatalf("want %s, got %+v", code, e)
		}
		return e.Code == code
	})
}

// What is said at one node holds at the other: at once for what is stored there,
// by a hint or a poll for its connections.
func TestGovernNodes(t *testing.T) {
	t.Parallel()
	overBuses(t, func(t *testing.T, c cluster) {
		bob, eve := c.one.join(trust.RoleMember, "bob"), c.one.join(trust.RoleMember, "eve")
		a, o := c.one.founder.session(), c.one.founder.observer()
		b, e := bob.session(), eve.at(c.two).session()
		e.sendUntil(e.dm(b.pub()))
		e.sendUntil(e.dm(a.pub()))

		ask[*wire.OK](b, &wire.Block{Member: eve.key.Public(), Blocked: true})
		e.refusedUntil(e.dm(b.pub()), wire.CodeBlocked)
		ask[*wire.OK](b, &wire.Block{Member: eve.key.Public()})
		e.w.eventually("the block ends", func() bool { _, ok := e.answer(e.dm(b.pub())).(*wire.Ack); return ok })

		p := c.one.paused(c.one.owner, time.Hour)
		ask[*wire.OK](o, p)
		late := e.dm(a.pub())
		e.refusedUntil(late, wire.CodePaused)
		ask[*wire.OK](c.two.founder.observer(), c.two.resumed(c.two.owner, p))
		e.sendUntil(late)

		c.one.setRole(bob, trust.RoleAdmin, 100)
		carol, _ := bob.admit(bob.key, "carol")
		there := carol.at(c.two).session()
		there.sync()
		c.one.setRole(bob, trust.RoleMember, 101)
		if got := there.closed(); got != websocket.StatusCode(wire.CloseRemoved) {
			t.Errorf("close code %d", got)
		}
	})
}

// A kick reaches the connections at another node.
func TestKickNodes(t *testing.T) {
	t.Parallel()
	c := newCluster(t, true, time.Hour)
	bob := c.one.join(trust.RoleMember, "bob")
	o := c.one.founder.observer()
	there, here := bob.at(c.two).session(), bob.observer()
	ask[*wire.OK](o, &wire.Kick{Member: bob.key.Public()})
	for _, p := range []*peer{there, here} {
		if got := p.closed(); got != websocket.StatusCode(wire.CloseKicked) {
			t.Errorf("close code %d", got)
		}
	}
	again := bob.at(c.two).again(there)
	again.sync()
}
