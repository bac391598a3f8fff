package postgres_test

import (
	"context"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/pgtest"
	"github.com/claudemesh/claudemesh/internal/postgres"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// write is a writing method that would change something.
type write struct {
	name string
	run  func(s *postgres.Store) error
}

// writes prepares, by a store that may write, every method that writes.
func (c *cluster) writes(s *postgres.Store) []write {
	c.Helper()
	ctx := c.ctx
	_, _, err := s.Identity(ctx, broker.BrokerIdentity{Seed: bytesOf[wire.Key](c), TokenHash: bytesOf[wire.Key](c), Created: now()})
	c.ok(err)
	in := c.invite(s)
	leaving := c.join(s, "leaving")
	p, q := c.session(s), c.session(s)
	c.hold(s, broker.Hold{Peer: p, Conn: 1})
	message := c.message(q, p)
	queued := c.accept(s, message)
	_, err = c.db.Exec(ctx, `INSERT INTO message (seq, mesh, sender, id, hash, mode, recipients, created, expires)
		SELECT 1000000, mesh, sender, '\x00112233445566778899aabbccddeeff', hash, mode, 1, 1, 2 FROM message WHERE seq = $1`, queued)
	c.ok(err)
	ended := message.Delivery(0, queued)
	settlement := ended.Settlement(c.mesh, p)
	settlement.State, settlement.At = wire.StateDelivered, now()
	later := now().Add(24 * time.Hour)
	joining := c.joining(in, "joining")
	fresh := broker.Mesh{ID: bytesOf[wire.ID](c), Owner: c.founder.Key, Name: "fresh", Genesis: c.signed(), Created: now()}
	return []write{
		{"SetTokenHash", func(s *postgres.Store) error { return s.SetTokenHash(ctx, [32]byte{1}) }},
		{"CreateMesh", func(s *postgres.Store) error { return s.CreateMesh(ctx, fresh, c.founder) }},
		{"Join", func(s *postgres.Store) error { _, err := s.Join(ctx, joining); return err }},
		{"Remove", func(s *postgres.Store) error {
			m, err := s.Mesh(ctx, c.mesh)
			c.ok(err)
			_, err = s.Remove(ctx, broker.Removal{Mesh: c.mesh, Member: leaving.Key, Statement: c.signed(), Version: m.MembersVersion, Now: now()})
			return err
		}},
		{"PutInvite", func(s *postgres.Store) error {
			in := in
			in.ID = bytesOf[wire.ID](c)
			return s.PutInvite(ctx, in)
		}},
		{"CloseInvite", func(s *postgres.Store) error {
			_, err := s.CloseInvite(ctx, c.mesh, broker.InviteClose{Invite: in.ID, Statement: c.signed()})
			return err
		}},
		{"PutPeer", func(s *postgres.Store) error {
			_, err := s.PutPeer(ctx, broker.Peer{Mesh: c.mesh, Key: bytesOf[wire.Key](c), Member: c.founder.Key})
			return err
		}},
		{"TouchPeers", func(s *postgres.Store) error { return s.TouchPeers(ctx, []broker.PeerID{p}, later) }},
		{"Accept", func(s *postgres.Store) error {
			done := make(chan error, 1)
			s.Accept(c.message(q, p), func(_ broker.Accepted, err error) { done <- err })
			return <-done
		}},
		{"Retry", func(s *postgres.Store) error { _, err := s.Retry(ctx, []int64{queued}); return err }},
		{"Settle", func(s *postgres.Store) error {
			done := make(chan error, 1)
			s.Settle([]broker.Settlement{settlement}, func(_ []bool, err error) { done <- err })
			return <-done
		}},
		{"Hold", func(s *postgres.Store) error { _, err := s.Hold(ctx, []broker.Hold{{Peer: q, Conn: 2}}); return err }},
		{"LetGo", func(s *postgres.Store) error { return s.LetGo(ctx, []broker.Hold{{Peer: p, Conn: 1}}) }},
		{"ForgetPeers", func(s *postgres.Store) error { _, err := s.ForgetPeers(ctx, later, nil, now(), 10); return err }},
		{"Expire", func(s *postgres.Store) error {
			_, err := s.Expire(ctx, later, 10)
			return err
		}},
		{"Prune", func(s *postgres.Store) error { _, err := s.Prune(ctx, later, 10); return err }},
		{"Renew", func(s *postgres.Store) error { _, err := s.Renew(ctx); return err }},
	}
}

func (c *cluster) invite(s *postgres.Store) broker.Invite {
	c.Helper()
	in := broker.Invite{Mesh: c.mesh, ID: bytesOf[wire.ID](c), Capability: c.signed(), Blob: []byte("blob"), Generation: 1,
		MaxUses: 100, Expires: now().Add(time.Hour), Created: now()}
	c.ok(s.PutInvite(c.ctx, in))
	return in
}

func (c *cluster) joining(in broker.Invite, name string) broker.Join {
	return broker.Join{Invite: in.ID, Now: now(), Member: broker.Member{Mesh: c.mesh, Key: bytesOf[wire.Key](c), Name: name, Role: "member",
		Certificate: wire.Certificate{c.signed()}, Joined: now()}}
}

func (c *cluster) join(s *postgres.Store, name string) broker.Member {
	c.Helper()
	j := c.joining(c.invite(s), name)
	_, err := s.Join(c.ctx, j)
	c.ok(err)
	return j.Member
}

func (c *cluster) message(from broker.PeerID, to ...broker.PeerID) *broker.Message {
	m := &broker.Message{Mesh: c.mesh, Sender: from, ID: bytesOf[wire.ID](c), Hash: bytesOf[wire.Key](c), Mode: wire.ModeDM, Priority: wire.PriorityNext,
		Created: now(), Expires: now().Add(time.Hour), Nonce: make([]byte, 24), Ciphertext: []byte("ciphertext")}
	for _, p := range to {
		m.Deliveries = append(m.Deliveries, broker.NewDelivery{Recipient: p})
	}
	return m
}

// accept stores a message and returns the number of its first delivery.
func (c *cluster) accept(s *postgres.Store, m *broker.Message) int64 {
	c.Helper()
	type result struct {
		broker.Accepted
		err error
	}
	done := make(chan result, 1)
	s.Accept(m, func(a broker.Accepted, err error) { done <- result{a, err} })
	r := <-done
	c.ok(r.err)
	return r.First
}

// No method writes for a node whose lease has passed, that was buried or that
// was replaced; all do again once it has enlisted.
func TestFence(t *testing.T) {
	for name, lose := range map[string]func(c *cluster, n broker.Node){
		"overdue": func(c *cluster, n broker.Node) { c.expire(n) },
		"buried": func(c *cluster, n broker.Node) {
			c.expire(n)
			undertaker, _ := c.node("undertaker", longLease)
			_, err := undertaker.Renew(c.ctx)
			c.ok(err)
			c.until("buried", "SELECT NOT EXISTS (SELECT 1 FROM node WHERE epoch = $1)", n.Epoch)
		},
		"replaced": func(c *cluster, _ broker.Node) { c.node("a", longLease) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			s, n := c.node("a", longLease)
			writes := c.writes(s)
			lose(c, n)
			before := string(pgtest.Rows(c, c.url))
			for _, w := range writes {
				if err := w.run(s); err != nil {
					c.fails(err, broker.ErrFenced)
				} else {
					t.Errorf("%s succeeded", w.name)
				}
				if string(pgtest.Rows(c, c.url)) != before {
					t.Fatalf("%s wrote", w.name)
				}
			}
			if _, err := s.Mesh(c.ctx, c.mesh); err != nil {
				t.Errorf("reading: %v", err)
			}
			c.again(s, "a", longLease)
			c.hold(s, broker.Hold{Peer: 1, Conn: 1})
			for _, w := range writes {
				before := string(pgtest.Rows(c, c.url))
				if err := w.run(s); err != nil {
					t.Errorf("%s: %v", w.name, err)
				}
				if string(pgtest.Rows(c, c.url)) == before && w.name != "LetGo" { // its mailbox went with the lease
					t.Errorf("%s wrote nothing: the test of it says nothing", w.name)
				}
			}
		})
	}
}

// Time alone ends a lease.
func TestLeaseEnds(t *testing.T) {
	c := newCluster(t)
	p := c.session(open(t, c.url))
	s, n := c.node("a", shortLease)
	c.overdue(n)
	c.fails(s.TouchPeers(context.Background(), []broker.PeerID{p}, now()), broker.ErrFenced)
}
