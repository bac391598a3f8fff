package postgres_test

import (
	"errors"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/pgtest"
	"github.com/claudemesh/claudemesh/internal/wire"
)

func (c *cluster) removal(s broker.Store, member wire.Key) broker.Removal {
	c.Helper()
	m, err := s.Mesh(c.ctx, c.mesh)
	c.ok(err)
	return broker.Removal{Mesh: c.mesh, Member: member, Statement: c.signed(), Version: m.MembersVersion, Now: now()}
}

// The same statement again, as after a lost answer, is answered with its
// version and changes nothing.
func TestStatementsRepeated(t *testing.T) {
	c := newCluster(t)
	s := open(t, c.url)
	bob := c.join(s, "bob")
	in := c.invite(s)
	r := c.removal(s, bob.Key)
	r.NextKey = &broker.NextKey{Generation: 2, Issuer: c.founder.Key, Boxes: []wire.KeyBoxTo{{To: c.founder.Key, Box: []byte("box")}}, Previous: []byte("key")}
	first, err := s.Remove(c.ctx, r)
	c.ok(err)
	if len(first.Voided) != 2 {
		t.Errorf("voided %v", first.Voided)
	}
	statement := broker.InviteClose{Invite: in.ID, Statement: c.signed()}
	closed, err := s.CloseInvite(c.ctx, c.mesh, statement)
	c.ok(err)
	before := string(pgtest.Rows(c, c.url))
	again, err := s.Remove(c.ctx, r)
	c.ok(err)
	c.same(again, broker.Removed{Version: first.Version})
	version, err := s.CloseInvite(c.ctx, c.mesh, statement)
	c.ok(err)
	c.same(version, closed)
	if after := string(pgtest.Rows(c, c.url)); after != before {
		t.Errorf("a repeated statement changed\n%s\nto\n%s", before, after)
	}
}

// A peer's change is stamped when other nodes would show something else.
func TestPeerChanged(t *testing.T) {
	c := newCluster(t)
	s := open(t, c.url)
	p := broker.Peer{Mesh: c.mesh, Key: bytesOf[wire.Key](c), Member: c.founder.Key, LastSeen: now(),
		Card:        &wire.Card{Generation: 1, Seq: 1, Blob: []byte("card"), Sig: bytesOf[wire.Sig](c)},
		Attestation: &wire.Attestation{Issued: 1, Sig: bytesOf[wire.Sig](c)}}
	put := func(change func(p *broker.Peer)) (stamped bool) {
		t.Helper()
		change(&p)
		id, err := s.PutPeer(c.ctx, p)
		c.ok(err)
		c.ok(c.db.QueryRow(c.ctx, "SELECT changed > 1 FROM peer WHERE id = $1", int64(id)).Scan(&stamped))
		_, err = c.db.Exec(c.ctx, "UPDATE peer SET changed = 1 WHERE id = $1", int64(id))
		c.ok(err)
		return stamped
	}
	c.same(put(func(*broker.Peer) {}), true)
	c.same(put(func(*broker.Peer) {}), false)
	c.same(put(func(p *broker.Peer) { p.LastSeen = p.LastSeen.Add(time.Hour) }), false)
	c.same(put(func(p *broker.Peer) { p.Card.Seq, p.Card.Sig = 2, bytesOf[wire.Sig](c) }), true)
	c.same(put(func(p *broker.Peer) { p.Attestation.Sig = bytesOf[wire.Sig](c) }), true)
	c.same(put(func(p *broker.Peer) { p.Card, p.Attestation = nil, nil }), false)
	_, err := s.ForgetPeers(c.ctx, now().Add(2*time.Hour), nil, now(), 10)
	c.ok(err)
	_, err = c.db.Exec(c.ctx, "UPDATE peer SET changed = 1")
	c.ok(err)
	c.same(put(func(*broker.Peer) {}), true)
}

// A removed member's peers are gone and do not come back, whichever node puts
// them at that moment.
func TestPutPeerOfRemoved(t *testing.T) {
	c := newCluster(t)
	a, b := open(t, c.url), open(t, c.url)
	for range 20 {
		bob := c.join(a, "bob")
		r := c.removal(a, bob.Key)
		put := make(chan error, 8)
		for range cap(put) {
			go func() {
				_, err := b.PutPeer(c.ctx, broker.Peer{Mesh: c.mesh, Key: bytesOf[wire.Key](c), Member: bob.Key, LastSeen: now()})
				put <- err
			}()
		}
		_, err := a.Remove(c.ctx, r)
		c.ok(err)
		for range cap(put) {
			if err := <-put; err != nil && !errors.Is(err, broker.ErrStaleMembers) {
				t.Error(err)
			}
		}
		peers, err := a.Peers(c.ctx, c.mesh)
		c.ok(err)
		if len(peers) > 0 {
			t.Fatalf("%d peers of a removed member", len(peers))
		}
		_, err = b.PutPeer(c.ctx, broker.Peer{Mesh: c.mesh, Key: bob.Key, Member: bob.Key})
		c.fails(err, broker.ErrStaleMembers)
	}
}

// Two meshes' invites under one id at the same moment: one is stored, the other refused.
func TestPutInviteRace(t *testing.T) {
	c := newCluster(t)
	s := open(t, c.url)
	other := broker.Mesh{ID: bytesOf[wire.ID](c), Owner: c.founder.Key, Name: "other", Genesis: c.signed(), Created: now()}
	c.ok(s.CreateMesh(c.ctx, other, c.founder))
	for range 20 {
		id := bytesOf[wire.ID](c)
		errs := make(chan error, 2)
		for _, mesh := range []wire.ID{c.mesh, other.ID} {
			in := broker.Invite{Mesh: mesh, ID: id, Capability: c.signed(), Blob: []byte("blob"), Generation: 1, MaxUses: 1, Expires: now(), Created: now()}
			go func() { errs <- s.PutInvite(c.ctx, in) }()
		}
		x, y := <-errs, <-errs
		if (x == nil) == (y == nil) {
			t.Fatalf("errors %v and %v", x, y)
		}
		c.fails(errors.Join(x, y), broker.ErrConflict)
	}
}
