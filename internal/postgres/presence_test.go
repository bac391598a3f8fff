package postgres_test

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/postgres"
	"github.com/claudemesh/claudemesh/internal/wire"
)

func TestHold(t *testing.T) {
	c := newCluster(t)
	a, na := c.node("a", longLease)
	b, nb := c.node("b", longLease)
	p, q := c.session(a), c.session(a)
	byA, byB := broker.Holder{Node: na, Conn: 1}, broker.Holder{Node: nb, Conn: 5, Person: true}

	c.same(c.hold(a, broker.Hold{Peer: q, Conn: 1}, broker.Hold{Peer: 1 << 40, Conn: 1}, broker.Hold{Peer: p, Conn: 1, Take: true}),
		[]broker.Held{{Had: true}, {}, {Had: true}})
	c.same(c.hold(b, broker.Hold{Peer: p, Conn: 5, Person: true}), []broker.Held{{Before: byA}})
	c.same(c.holder(b, p), byA)
	c.same(c.hold(b, broker.Hold{Peer: p, Conn: 5, Person: true, Take: true}), []broker.Held{{Had: true, Before: byA}})
	c.same(c.holder(a, p), byB)

	// The node's own: any connection of it, the last one counts.
	c.same(c.hold(b, broker.Hold{Peer: p, Conn: 6}, broker.Hold{Peer: p, Conn: 7}), []broker.Held{{Had: true}, {Had: true}})
	c.same(c.holder(a, p), broker.Holder{Node: nb, Conn: 7})

	// Only what is held by that connection is let go.
	c.ok(b.LetGo(c.ctx, []broker.Hold{{Peer: p, Conn: 6}, {Peer: q, Conn: 1}}))
	c.same(c.holder(a, p), broker.Holder{Node: nb, Conn: 7})
	c.same(c.holder(a, q), byA)
	c.ok(b.LetGo(c.ctx, []broker.Hold{{Peer: q, Conn: 9}, {Peer: p, Conn: 7}}))
	c.same(c.holder(a, p), broker.Holder{})
	c.ok(b.LetGo(c.ctx, nil))
	c.same(c.hold(a), []broker.Held{})

	// Whoever does not stand holds nothing.
	c.expire(na)
	c.same(c.hold(b, broker.Hold{Peer: q, Conn: 8}), []broker.Held{{Had: true}})

	plain := open(t, c.url)
	_, err := plain.Hold(c.ctx, []broker.Hold{{Peer: p}})
	c.fails(err, broker.ErrFenced)
	c.fails(plain.LetGo(c.ctx, nil), broker.ErrFenced)
}

// A forgotten peer is not had, and one that is held is not forgotten.
func TestHoldAndForget(t *testing.T) {
	c := newCluster(t)
	a, na := c.node("a", longLease)
	b, _ := c.node("b", longLease)
	p, q := c.session(a), c.session(a)
	c.hold(a, broker.Hold{Peer: p, Conn: 1})
	forget := func() (gone []broker.PeerID) {
		out, err := b.ForgetPeers(c.ctx, now().Add(time.Hour), nil, now(), 10)
		c.ok(err)
		for _, f := range out {
			gone = append(gone, f.Peer.ID)
		}
		return gone
	}
	c.same(forget(), []broker.PeerID{q})
	c.same(c.hold(a, broker.Hold{Peer: q, Conn: 1, Take: true}), []broker.Held{{}})
	found, err := b.Locate(c.ctx, c.mesh, nil)
	c.ok(err)
	if len(found) != 1 || found[0].ID != p || found[0].Holder.Node != na {
		t.Errorf("located %+v", found)
	}
	found, err = b.Locate(c.ctx, c.mesh, []broker.PeerID{q, p, 1 << 40})
	c.ok(err)
	c.same([]bool{found[0].Forgotten, found[1].Forgotten}, []bool{false, true})
	_, err = b.LocateKey(c.ctx, c.mesh, found[1].Key)
	c.fails(err, broker.ErrNotFound)
	by, err := b.LocateKey(c.ctx, c.mesh, found[0].Key)
	c.ok(err)
	c.same(by, found[0])

	c.expire(na)
	c.same(forget(), []broker.PeerID{p})
	c.until("gone from presence", "SELECT NOT EXISTS (SELECT 1 FROM presence WHERE peer = $1)", int64(p))
}

// Of three nodes that ask for the same mailboxes at once, one has each.
func TestHoldRace(t *testing.T) {
	c := newCluster(t)
	stores, nodes := make([]*postgres.Store, 3), make([]broker.Node, 3)
	for i := range stores {
		stores[i], nodes[i] = c.node(string(rune('a'+i)), longLease)
	}
	peers := make([]broker.PeerID, 8)
	for i := range peers {
		peers[i] = c.session(stores[0])
	}
	for round := range 20 {
		had := make([]map[broker.PeerID]broker.Held, len(stores))
		var wg sync.WaitGroup
		for i, s := range stores {
			wg.Go(func() {
				mine := slices.Clone(peers)
				rand.Shuffle(len(mine), func(i, j int) { mine[i], mine[j] = mine[j], mine[i] })
				var holds []broker.Hold
				for _, p := range mine {
					holds = append(holds, broker.Hold{Peer: p, Conn: int64(round), Take: round%2 == 1})
				}
				held, err := s.Hold(c.ctx, holds)
				if err != nil {
					t.Error(err)
					return
				}
				had[i] = make(map[broker.PeerID]broker.Held)
				for j, h := range held {
					had[i][mine[j]] = h
				}
			})
		}
		wg.Wait()
		for _, p := range peers {
			holder, winners := c.holder(stores[0], p), 0
			for i := range stores {
				h := had[i][p]
				if h.Had {
					winners++
				} else if h.Before = c.timeless(h.Before); h.Before != holder {
					t.Errorf("node %s heard that %+v holds, it is %+v", nodes[i].Name, h.Before, holder)
				}
			}
			if want := 1 + 2*(round%2); winners != want {
				t.Errorf("round %d: %d nodes had peer %d, want %d", round, winners, p, want)
			}
		}
		if round%2 == 1 {
			for i, s := range stores {
				for _, p := range peers {
					if c.holder(s, p).Node == nodes[i] {
						c.ok(s.LetGo(c.ctx, []broker.Hold{{Peer: p, Conn: int64(round)}}))
					}
				}
			}
		} else {
			for _, s := range stores {
				var holds []broker.Hold
				for _, p := range peers {
					holds = append(holds, broker.Hold{Peer: p, Conn: int64(round)})
				}
				c.ok(s.LetGo(c.ctx, holds))
			}
		}
	}
}

// What would have been hinted stands in the news.
func TestNews(t *testing.T) {
	c := newCluster(t)
	a, na := c.node("a", longLease)
	b, _ := c.node("b", longLease)
	alice, bob := c.session(a), c.session(a)
	n := c.accept(a, c.message(alice, bob))
	watch := broker.Watch{Meshes: []wire.ID{c.mesh, bytesOf[wire.ID](c)}, Mailboxes: []broker.PeerID{alice, bob}, Senders: []broker.PeerID{alice}}
	first, err := b.News(c.ctx, watch)
	c.ok(err)
	if first.At == 0 || first.Peers != nil || first.Outcomes != nil {
		t.Errorf("first %+v", first)
	}
	c.same(first.Meshes, map[wire.ID]broker.MeshNews{c.mesh: {Version: 1, Queued: 1, QueuedBytes: first.Meshes[c.mesh].QueuedBytes}})
	c.same(first.Holders, map[broker.PeerID]broker.Holder{})
	c.same(first.Waiting, map[broker.PeerID]bool{bob: true})

	// Nothing of the past, once it is past.
	_, err = c.db.Exec(c.ctx, "UPDATE peer SET changed = changed - 120000")
	c.ok(err)
	watch.Since = first.At
	quiet, err := b.News(c.ctx, watch)
	c.ok(err)
	if quiet.At < first.At || quiet.Peers != nil || quiet.Outcomes != nil {
		t.Errorf("quiet %+v", quiet)
	}

	c.hold(a, broker.Hold{Peer: bob, Conn: 3, Person: true})
	in := c.invite(a)
	_, err = a.CloseInvite(c.ctx, c.mesh, broker.InviteClose{Invite: in.ID, Statement: c.signed()})
	c.ok(err)
	key := bytesOf[wire.Key](c)
	card := &wire.Card{Generation: 1, Seq: 2, Blob: []byte("card"), Sig: bytesOf[wire.Sig](c)}
	carol, err := a.PutPeer(c.ctx, broker.Peer{Mesh: c.mesh, Key: key, Member: c.founder.Key, Card: card})
	c.ok(err)
	own, err := a.PutPeer(c.ctx, broker.Peer{Mesh: c.mesh, Key: c.founder.Key, Member: c.founder.Key})
	c.ok(err)
	outcome := c.settle(a, n, bob)
	got, err := b.News(c.ctx, watch)
	c.ok(err)
	c.same(got.Meshes[c.mesh].Version, int64(2))
	got.Holders[bob] = c.timeless(got.Holders[bob])
	c.same(got.Holders, map[broker.PeerID]broker.Holder{bob: {Node: na, Conn: 3, Person: true}})
	c.same(got.Waiting, map[broker.PeerID]bool{})
	if len(got.Peers) != 2 || got.Peers[0].ID != carol || got.Peers[1].ID != own {
		t.Errorf("peers %+v", got.Peers)
	} else {
		c.same(*got.Peers[0].Card, *card)
	}
	if len(got.Outcomes) != 1 || got.Outcomes[0].Delivery != n || got.Outcomes[0].State != wire.StateDelivered {
		t.Errorf("outcomes %+v", got.Outcomes)
	}
	known, err := b.Outcomes(c.ctx, []int64{outcome, 1 << 50})
	c.ok(err)
	c.same(known, got.Outcomes)
	mine, err := a.News(c.ctx, watch) // of what it settled itself it knows
	c.ok(err)
	c.same(len(mine.Outcomes), 0)

	// A forgotten peer is news too.
	_, err = a.ForgetPeers(c.ctx, now().Add(time.Hour), []broker.PeerID{alice, bob}, now(), 10)
	c.ok(err)
	got, err = b.News(c.ctx, watch)
	c.ok(err)
	if len(got.Peers) != 2 || got.Peers[0].ID != carol || !got.Peers[0].Forgotten {
		t.Errorf("peers %+v", got.Peers)
	}
}

// What a transaction stamped long before it commits is told all the same.
func TestNewsOfSlowTransactions(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	s, _ := c.node("a", longLease)
	p := c.session(s)
	tx, err := c.connect().Begin(c.ctx)
	c.ok(err)
	// As if it had begun half a minute ago, were it not for the test's time.
	_, err = tx.Exec(c.ctx, "UPDATE peer SET changed = now_ms() WHERE id = $1", int64(p))
	c.ok(err)
	var began, stamped int64
	c.ok(tx.QueryRow(c.ctx, "SELECT (extract(epoch FROM now()) * 1000)::bigint, changed FROM peer WHERE id = $1", int64(p)).Scan(&began, &stamped))
	watch := broker.Watch{Meshes: []wire.ID{c.mesh}}
	for end := began + 7000; ; { // longer than the fixed reserve
		news, err := s.News(c.ctx, watch)
		c.ok(err)
		watch.Since = news.At
		if news.At > began {
			t.Fatalf("the next news begins at %d, a transaction that began at %d is open", news.At, began)
		}
		var clock int64
		c.ok(c.db.QueryRow(c.ctx, "SELECT now_ms()").Scan(&clock))
		if clock > end {
			break
		}
		time.Sleep(100 * time.Millisecond)
		if _, err := tx.Exec(c.ctx, "SELECT 1"); err != nil {
			t.Fatal(err)
		}
	}
	c.ok(tx.Commit(c.ctx))
	news, err := s.News(c.ctx, watch)
	c.ok(err)
	if len(news.Peers) != 1 || news.Peers[0].ID != p {
		t.Errorf("peers %+v, stamped at %d, asked since %d", news.Peers, stamped, watch.Since)
	}
	if news.At <= began {
		t.Errorf("the next news begins at %d, nothing is open any more", news.At)
	}
}

// settle ends the only delivery of a message and returns its number.
func (c *cluster) settle(s *postgres.Store, n int64, to broker.PeerID) int64 {
	c.Helper()
	done := make(chan error, 1)
	s.Settle([]broker.Settlement{{Mesh: c.mesh, Message: n, Delivery: n, Recipient: to, Mode: wire.ModeDM, Size: 34,
		State: wire.StateDelivered, At: now()}}, func(_ []bool, err error) { done <- err })
	c.ok(<-done)
	return n
}
