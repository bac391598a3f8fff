package broker_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/jackc/pgx/v5"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/bus"
	"github.com/claudemesh/claudemesh/internal/pgtest"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// silence is a bus that loses every hint.
type silence struct{}

func (silence) Listen(context.Context, string, func([]byte), func()) {}
func (silence) Send(context.Context, string, []byte) error           { return errors.New("lost") }
func (silence) MaxPayload() int                                      { return 1000 }
func (silence) Close() error                                         { return nil }

// cluster is two brokers on one database.
type cluster struct {
	one, two *world
}

// overBuses runs a test with a bus that works and with one that loses everything.
func overBuses(t *testing.T, test func(t *testing.T, c cluster)) {
	t.Run("postgres", func(t *testing.T) { t.Parallel(); test(t, newCluster(t, true, time.Hour)) })
	t.Run("silence", func(t *testing.T) { t.Parallel(); test(t, newCluster(t, false, 900*time.Millisecond)) })
}

func newCluster(t *testing.T, hints bool, poll time.Duration) cluster {
	t.Helper()
	db := pgtest.Database(t)
	node := func(c *broker.Config, name string) {
		c.Cluster = broker.ClusterConfig{Node: name, Bus: silence{}, Poll: poll, OnReplaced: func(error) {}}
		if hints {
			b, err := bus.Postgres(db, c.Logger)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = b.Close() })
			c.Cluster.Bus = b
		}
	}
	one := newWorldOn(t, db, func(c *broker.Config) { node(c, "one") })
	two := &world{t: t, clock: one.clock, m: one.m, owner: one.owner}
	two.World = one.Another(func(c *broker.Config) { node(c, "two") })
	two.founder = one.founder.at(two)
	t.Cleanup(two.finish)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return cluster{one, two}
}

// at is a user who connects to another broker.
func (u *user) at(w *world) *user {
	other := *u
	other.w = w
	return &other
}

// send sends a message until it is accepted: a node may have to learn of members first.
func (p *peer) sendUntil(f *wire.Send) *wire.Ack {
	p.w.t.Helper()
	var ack *wire.Ack
	p.w.eventually("a message is accepted", func() bool {
		switch a := p.answer(f).(type) {
		case *wire.Ack:
			ack = a
		case *wire.Error:
			if !a.Retryable {
				p.w.t.Fatalf("refused: %+v", a)
			}
		}
		return ack != nil
	})
	return ack
}

// TestNodes: members at two nodes list each other, send each other direct and
// group messages, and hear what became of them.
func TestNodes(t *testing.T) {
	t.Parallel()
	overBuses(t, func(t *testing.T, c cluster) {
		bob := c.one.join("member", "bob")
		a := c.one.founder.session()
		ask[*wire.PeersList](a, &wire.ListPeers{Watch: true})
		b := bob.at(c.two).session()
		joined := want(a, func(f *wire.Presence) bool { return f.Peer.SessionPubkey == b.pub() })
		if joined.Event != wire.PresenceJoined || !joined.Peer.Online || joined.Peer.Card == nil {
			t.Errorf("%+v, want bob's session to join", joined)
		}
		d := a.dm(b.pub())
		if ack := a.sendUntil(d); !ack.Recipients[0].Online {
			t.Errorf("%+v, want an online recipient", ack)
		}
		push := want(b, byID(d.ID))
		b.ackPush(push)
		r := want(a, func(f *wire.Receipt) bool { return f.ID == d.ID })
		if r.State != wire.StateDelivered || r.Recipient != b.pub() {
			t.Errorf("%+v, want delivered", r)
		}
		local := bob.session()
		g := b.group(a.pub(), local.pub())
		b.sendUntil(g)
		for _, p := range []*peer{a, local} {
			p.ackPush(want(p, byID(g.ID)))
		}
		for range 2 {
			want(b, func(f *wire.Receipt) bool { return f.ID == g.ID && f.State == wire.StateDelivered })
		}
		b.end()
		want(a, func(f *wire.Presence) bool { return f.Peer.SessionPubkey == b.pub() && f.Event == wire.PresenceLeft })
		local.end()
	})
}

// TestNodesOrder: what a session sends arrives in order when it moves between nodes.
func TestNodesOrder(t *testing.T) {
	t.Parallel()
	overBuses(t, func(t *testing.T, c cluster) {
		bob := c.one.join("member", "bob")
		b := bob.at(c.two).session()
		a := c.one.founder.session()
		var ids []wire.ID
		for i := range 60 {
			if i%10 == 9 {
				a.end()
				w := []*world{c.one, c.two}[i/10%2]
				a = c.one.founder.at(w).again(a)
			}
			f := a.dm(b.pub())
			ids = append(ids, f.ID)
			a.sendUntil(f)
		}
		seen := map[wire.ID]bool{}
		var got []wire.ID
		for len(got) < len(ids) {
			p := want[*wire.Push](b)
			b.ackPush(p)
			if !seen[p.ID] {
				seen[p.ID], got = true, append(got, p.ID)
			}
		}
		for i := range ids {
			if got[i] != ids[i] {
				t.Fatalf("message %d came in place of another", i)
			}
		}
	})
}

// TestNodesMoved: a session that connects elsewhere leaves its old connection
// behind, which is closed for good; one that has come and gone at once does not.
func TestNodesMoved(t *testing.T) {
	t.Parallel()
	overBuses(t, func(t *testing.T, c cluster) {
		bob := c.one.join("member", "bob")
		a := c.one.founder.session()
		b := bob.session()
		passing := bob.at(c.two).again(b)
		passing.end() // a client that gave up before its hello was answered
		d := a.dm(b.pub())
		a.sendUntil(d)
		b.ackPush(want(b, byID(d.ID)))

		b2 := bob.at(c.two).again(b)
		d = a.dm(b.pub())
		a.sendUntil(d)
		b2.ackPush(want(b2, byID(d.ID)))
		c.one.eventually("the old connection ends", func() bool {
			c.one.clock.Advance(10 * time.Second)
			select {
			case <-b.done:
				return true
			default:
				return false
			}
		})
		if code := b.closed(); code != websocket.StatusCode(wire.CloseReplaced) {
			t.Errorf("closed with %d, want %d", code, wire.CloseReplaced)
		}
	})
}

// TestNodesOwnMailbox: what is sent to a member comes to one of its connections,
// wherever; to a person's before a session's.
func TestNodesOwnMailbox(t *testing.T) {
	t.Parallel()
	overBuses(t, func(t *testing.T, c cluster) {
		hints := c.one.Config.Cluster.Bus != broker.Bus(silence{})
		bob := c.one.join("member", "bob")
		a := c.one.founder.session()
		b1 := bob.session()
		b2 := bob.at(c.two).session()
		first := a.dm(bob.key.Public())
		a.sendUntil(first)
		b1.ackPush(want(b1, byID(first.ID)))
		b1.end()
		second := a.dm(bob.key.Public())
		a.sendUntil(second)
		b2.ackPush(want(b2, byID(second.ID)))

		b1 = bob.session() // the other node has it still
		none[*wire.Push](b1, "the first was delivered")
		if !hints {
			return // only a hint has a node yield
		}
		person := bob.person()
		c.one.eventually("a person is asked first", func() bool {
			f := a.dm(bob.key.Public())
			a.sendUntil(f)
			for {
				for _, p := range []*peer{person, b2, b1} {
					if f := p.take(20*time.Millisecond, func(g wire.Frame) bool {
						push, ok := g.(*wire.Push)
						return ok && push.ID == f.ID
					}); f != nil {
						p.ackPush(f.(*wire.Push))
						return p == person
					}
				}
			}
		})
	})
}

// TestNodesMembers: who joins or is removed at one node has joined or is removed at both.
func TestNodesMembers(t *testing.T) {
	t.Parallel()
	overBuses(t, func(t *testing.T, c cluster) {
		a := c.two.founder.session()
		bob := c.one.join("member", "bob")
		b := bob.at(c.two).session() // the very next moment

		c.one.removeMember(c.one.founder, bob)
		if code := b.closed(); code != websocket.StatusCode(wire.CloseRemoved) {
			t.Errorf("closed with %d, want %d", code, wire.CloseRemoved)
		}
		again := bob.at(c.two).w.dial()
		again.member, again.key = bob.key, b.key
		again.write(newHello(c.two, again, wire.RoleSession, bob.key, b.key))
		go again.read()
		if code := again.closed(); code != websocket.StatusCode(wire.CloseRemoved) {
			t.Errorf("came back, closed with %d, want %d", code, wire.CloseRemoved)
		}
		a.refused(a.dm(bob.key.Public()), wire.CodeRemoved)
	})
}

// TestNodesStale: a node that has heard nothing of a removal stores no message that
// was checked without it. A join is no reason to refuse one.
func TestNodesStale(t *testing.T) {
	t.Parallel()
	c := newCluster(t, false, time.Hour)
	bob, carol := c.one.join("member", "bob"), c.one.join("member", "carol")
	a := c.two.founder.session()
	dave := c.one.join("member", "dave")
	ask[*wire.Ack](a, a.dm(carol.key.Public()))

	c.one.removeMember(c.one.founder, bob)
	f := a.dm(carol.key.Public())
	a.refused(f, wire.CodeStaleMembers)
	a.sendUntil(f) // it has looked now
	a.refused(a.dm(bob.key.Public()), wire.CodeRemoved)

	c.one.removeMember(c.one.founder, dave)
	a.refused(a.dm(dave.key.Public()), wire.CodeRemoved) // it is asked for, and so looked for
}

// TestNodeLost: a node whose lease is gone closes its sockets and comes back; one
// whose name was taken does not.
func TestNodeLost(t *testing.T) {
	t.Parallel()
	c := newCluster(t, true, time.Hour)
	replaced := make(chan error, 1)
	third := &world{t: t, clock: c.one.clock, m: c.one.m, owner: c.one.owner}
	third.World = c.one.Another(func(cfg *broker.Config) {
		cfg.Cluster = broker.ClusterConfig{Node: "three", Lease: 700 * time.Millisecond, OnReplaced: func(err error) { replaced <- err }}
	})
	t.Cleanup(third.finish)
	p := c.one.founder.at(third).session()
	// Held fast, as by a partition: renewals do not get through, and the lease passes.
	conn, err := pgx.Connect(t.Context(), c.one.DB)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "SELECT 1 FROM node WHERE name = 'three' FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	p.closed()
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	third.eventually("the node is back", func() bool { return third.ready() })
	p = c.one.founder.at(third).session()
	c.one.Another(func(cfg *broker.Config) { cfg.Cluster = broker.ClusterConfig{Node: "three"} })
	p.closed()
	select {
	case err := <-replaced:
		if !errors.Is(err, broker.ErrReplaced) {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("nobody was told")
	}
}

func (w *world) ready() bool {
	status, _, _ := w.http("GET", "/health/ready", "", nil)
	return status == http.StatusOK
}
