package move_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
)

var t0 = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// world is what a store was filled with.
type world struct {
	testing.TB
	ctx     context.Context
	s       broker.Store
	n       uint64
	meshes  []wire.ID
	members []broker.Member
	invites []wire.ID
	peers   []broker.PeerID
	sent    []*broker.Message
}

func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// bytes returns n bytes that no other call returns.
func (w *world) bytes(n int) []byte {
	w.n++
	b := make([]byte, max(n, 8))
	for i := range b {
		b[i] = byte(w.n) ^ byte(i*7)
	}
	binary.BigEndian.PutUint64(b, w.n<<8|0xa5)
	return b[:n]
}

func (w *world) key() (k wire.Key) { copy(k[:], w.bytes(32)); return k }
func (w *world) id() (id wire.ID)  { copy(id[:], w.bytes(16)); return id }
func (w *world) signed() (s wire.Signed) {
	s.Body = w.bytes(40)
	copy(s.Sig[:], w.bytes(64))
	return s
}

// fill gives a store one of everything that can be in it, and so many messages.
func fill(t testing.TB, s broker.Store, messages int) *world {
	w := &world{TB: t, ctx: context.Background(), s: s}
	fresh := broker.BrokerIdentity{Created: t0}
	copy(fresh.Seed[:], w.bytes(32))
	copy(fresh.TokenHash[:], w.bytes(32))
	_, _, err := s.Identity(w.ctx, fresh)
	w.ok(err)
	w.membership()
	w.sessions()
	w.queue(messages)
	return w
}

func (w *world) membership() {
	for i := range 2 {
		m := broker.Mesh{ID: w.id(), Owner: w.key(), Name: fmt.Sprintf("mesh %d", i), Genesis: w.signed(), Created: t0}
		f := broker.Member{Mesh: m.ID, Key: w.key(), Name: "founder", Role: "owner", Certificate: wire.Certificate{w.signed()}, Joined: t0}
		w.ok(w.s.CreateMesh(w.ctx, m, f))
		w.meshes, w.members = append(w.meshes, m.ID), append(w.members, f)
	}
	for i := range 5 {
		w.join(fmt.Sprintf("member %d", i), 3)
	}
	w.invite(9) // is voided below
	closed := w.invite(2)
	_, err := w.s.CloseInvite(w.ctx, w.meshes[0], broker.InviteClose{Invite: closed.ID, Statement: w.signed()})
	w.ok(err)
	w.remove(w.members[3], nil)
	w.remove(w.members[3], w.nextKey()) // by an admin, after it left
	w.remove(w.members[4], w.nextKey(), broker.InviteClose{Invite: w.invite(1).ID, Statement: w.signed()})
	w.join("member 1", 1) // a name that is free again
	w.govern()
}

// govern changes roles, with and without closes, pauses and resumes, and blocks.
func (w *world) govern() {
	mesh := w.meshes[0]
	for i := range 2 {
		m, err := w.s.Mesh(w.ctx, mesh)
		w.ok(err)
		r := broker.RoleChange{Mesh: mesh, Statement: w.signed(), Version: m.MembersVersion}
		if i == 1 {
			r.Closes = []broker.InviteClose{{Invite: w.invite(1).ID, Statement: w.signed()}}
		}
		_, err = w.s.SetRole(w.ctx, r)
		w.ok(err)
		p := broker.Pause{Mesh: mesh, Signer: w.members[0].Key, Statement: w.signed(), Hash: w.key(), Until: t0.Add(time.Hour), Now: t0}
		_, err = w.s.AddPause(w.ctx, p)
		w.ok(err)
		p.Until, p.Statement = time.Time{}, w.signed()
		_, err = w.s.AddPause(w.ctx, p)
		w.ok(err)
		_, err = w.s.SetBlock(w.ctx, mesh, broker.Block{Member: w.members[0].Key, Blocked: w.members[2+3*i].Key}, true)
		w.ok(err)
	}
}

func (w *world) invite(uses int) broker.Invite {
	m, err := w.s.Mesh(w.ctx, w.meshes[0])
	w.ok(err)
	in := broker.Invite{Mesh: m.ID, ID: w.id(), Capability: w.signed(), Blob: w.bytes(48), Generation: m.Generation,
		MaxUses: uses, Expires: t0.Add(time.Hour), Created: t0}
	w.ok(w.s.PutInvite(w.ctx, in))
	w.invites = append(w.invites, in.ID)
	return in
}

func (w *world) join(name string, uses int) {
	in := w.invite(uses)
	j := broker.Join{Invite: in.ID, Now: t0, Member: broker.Member{Mesh: in.Mesh, Key: w.key(), Name: name, Role: "member", Invite: in.ID,
		Certificate: wire.Certificate{in.Capability, w.signed(), w.signed()}, Joined: t0}}
	_, err := w.s.Join(w.ctx, j)
	w.ok(err)
	w.members = append(w.members, j.Member)
}

func (w *world) nextKey() *broker.NextKey {
	m, err := w.s.Mesh(w.ctx, w.meshes[0])
	w.ok(err)
	k := &broker.NextKey{Generation: m.Generation + 1, Issuer: w.members[0].Key, Previous: w.bytes(60)}
	for _, to := range []int{0, 2, 5, 6} {
		k.Boxes = append(k.Boxes, wire.KeyBoxTo{To: w.members[to].Key, Box: w.bytes(80)})
	}
	return k
}

func (w *world) remove(m broker.Member, k *broker.NextKey, closes ...broker.InviteClose) {
	mesh, err := w.s.Mesh(w.ctx, m.Mesh)
	w.ok(err)
	_, err = w.s.Remove(w.ctx, broker.Removal{Mesh: m.Mesh, Member: m.Key, Statement: w.signed(), Closes: closes,
		Version: mesh.MembersVersion, NextKey: k, Now: t0})
	w.ok(err)
}

// sessions puts peers: members' own, with cards and attestations and without.
func (w *world) sessions() {
	for i := range 12 {
		m := w.members[[]int{0, 2, 5, 6}[i%4]]
		p := broker.Peer{Mesh: m.Mesh, Key: w.key(), Member: m.Key, LastSeen: t0.Add(time.Duration(i) * time.Minute)}
		switch i % 3 {
		case 0:
			p.Card = &wire.Card{Generation: 3, Seq: uint64(i), Blob: w.bytes(90)}
			copy(p.Card.Sig[:], w.bytes(64))
			fallthrough
		case 1:
			p.Attestation = &wire.Attestation{Issued: t0.UnixMilli()}
			copy(p.Attestation.Sig[:], w.bytes(64))
		case 2:
			if i < 4 {
				p.Key, p.LastSeen = m.Key, time.Time{}
			}
		}
		id, err := w.s.PutPeer(w.ctx, p)
		w.ok(err)
		w.peers = append(w.peers, id)
	}
	// One whose number must not be given again.
	_, err := w.s.PutPeer(w.ctx, broker.Peer{Mesh: w.meshes[0], Key: w.key(), Member: w.members[0].Key, LastSeen: t0.Add(-time.Hour)})
	w.ok(err)
	_, err = w.s.ForgetPeers(w.ctx, t0.Add(-time.Minute), w.peers, t0, 100)
	w.ok(err)
	_, err = w.s.Prune(w.ctx, t0, 100)
	w.ok(err)
}

// queue sends messages, of which some are settled, tried, expired, for peers
// that were forgotten, and pruned.
func (w *world) queue(n int) {
	var ends []broker.Settlement
	var tried []int64
	firsts := make(chan int64, n)
	for i := range n {
		m := w.message(i)
		if i >= n-5 {
			m.Expires = t0 // is pruned: the next number is not that after the last row's
		}
		w.s.Accept(m, func(a broker.Accepted, err error) {
			if err != nil {
				w.Error(err)
			}
			firsts <- a.First
		})
		w.sent = append(w.sent, m)
	}
	for i, m := range w.sent {
		first := <-firsts
		for j := range m.Deliveries {
			d := m.Delivery(j, first)
			e := d.Settlement(m.Mesh, m.Deliveries[j].Recipient)
			e.State, e.At = wire.StateDelivered, t0.Add(time.Duration(i)*time.Second)
			switch (i + j) % 5 {
			case 0:
				ends = append(ends, e)
			case 1:
				e.State, e.Code = wire.StateBounced, wire.CodeUndeliverable
				ends = append(ends, e)
			case 2:
				tried = append(tried, d.Number)
			}
		}
	}
	done := make(chan error, 1)
	w.s.Settle(ends, func(_ []bool, err error) { done <- err })
	w.ok(<-done)
	_, err := w.s.Retry(w.ctx, tried)
	w.ok(err)
	_, err = w.s.Expire(w.ctx, t0.Add(time.Minute), 1<<20)
	w.ok(err)
	forgotten, err := w.s.ForgetPeers(w.ctx, t0.Add(90*time.Second), nil, t0, 100)
	w.ok(err)
	if len(forgotten) == 0 {
		w.Error("no peer was forgotten")
	}
	if pruned, err := w.s.Prune(w.ctx, t0.Add(30*time.Second), 1<<20); err != nil || pruned == 0 {
		w.Error("pruned", pruned, err)
	}
	w.remove(w.members[6], w.nextKey()) // with what waits for it
}

// message is a direct, a receipt, a group message or a broadcast, some for nobody.
func (w *world) message(i int) *broker.Message {
	peer := func(k int) broker.PeerID { return w.peers[(i*7+k*5)%len(w.peers)] }
	m := &broker.Message{Mesh: w.meshes[0], Sender: peer(0), ID: w.id(), Mode: wire.ModeDM, Priority: wire.Priorities[i%3],
		Created: t0, Expires: t0.Add(time.Hour), Nonce: w.bytes(24), Ciphertext: w.bytes(i % 501)}
	copy(m.Hash[:], w.bytes(32))
	recipients := 1
	switch i % 7 {
	case 1:
		m.Mode = wire.ModeReceipt
	case 2, 3:
		m.Mode, recipients = wire.ModeGroup, i%4
	case 4:
		m.Mode, recipients = wire.ModeBroadcast, 5
	case 5:
		m.Expires = t0.Add(time.Duration(i%60) * time.Second)
	}
	for k := range recipients {
		d := broker.NewDelivery{Recipient: peer(k + 1)}
		if !m.Mode.Direct() {
			d.Wrap = w.bytes(72)
		}
		m.Deliveries = append(m.Deliveries, d)
	}
	return m
}

// view is all that a store tells.
func (w *world) view(s broker.Store) map[string]any {
	w.Helper()
	out := make(map[string]any)
	note := func(what string, got any, err error) {
		if err != nil && !errors.Is(err, broker.ErrNotFound) {
			w.Fatal(what, err)
		}
		out[what] = got
	}
	id, created, err := s.Identity(w.ctx, broker.BrokerIdentity{})
	note("identity", id, err)
	out["created"] = created
	st, err := s.Stats(w.ctx)
	note("stats", []any{st.Meshes, st.Members, st.Queued, st.OldestQueued}, err)
	var ids []wire.ID
	for _, m := range w.sent {
		ids = append(ids, m.ID)
		hash, known, err := s.Lookup(w.ctx, m.Sender, m.ID)
		note("message "+m.ID.String(), []any{hash, slices.Concat(known)}, err)
	}
	for _, mesh := range w.meshes {
		got, err := s.Mesh(w.ctx, mesh)
		note("mesh "+mesh.String(), got, err)
		invites, err := s.Invites(w.ctx, mesh)
		note("invites "+mesh.String(), slices.Concat(invites), err)
		blocks, err := s.Blocks(w.ctx, mesh)
		note("blocks "+mesh.String(), slices.Concat(blocks), err)
		peers, err := s.Peers(w.ctx, mesh)
		note("peers "+mesh.String(), slices.Concat(peers), err)
		for _, m := range w.members {
			for _, since := range []int64{0, 4, 9} {
				c, err := s.Changes(w.ctx, mesh, since, m.Key)
				note(fmt.Sprint("changes ", mesh, m.Name, since), c, err)
			}
			status, err := s.Status(w.ctx, mesh, m.Key, ids)
			note(fmt.Sprint("status ", mesh, m.Key), slices.Concat(status), err)
		}
	}
	for _, p := range w.peers {
		q, more, err := s.Queued(w.ctx, p, broker.Place{}, 1<<20, 1<<40)
		note(fmt.Sprint("queue of ", p), slices.Concat(q), err)
		out[fmt.Sprint("more of ", p)] = more
		usage, err := s.Usage(w.ctx, p)
		note(fmt.Sprint("usage of ", p), slices.Concat(usage), err)
	}
	return out
}

// same compares what two stores tell.
func (w *world) same(got, want map[string]any) {
	w.Helper()
	if len(got) != len(want) {
		w.Errorf("%d answers, want %d", len(got), len(want))
	}
	differ := 0
	for what := range want {
		if !reflect.DeepEqual(plain(got[what]), plain(want[what])) {
			if differ++; differ > 5 {
				w.Fatal("and more")
			}
			w.Errorf("%s:\ngot  %+v\nwant %+v", what, got[what], want[what])
		}
	}
}

// plain makes the empty bytes of a queue nil: no bytes are no bytes.
func plain(v any) any {
	q, ok := v.([]broker.Delivery)
	if !ok {
		return v
	}
	q = slices.Clone(q)
	for i := range q {
		if len(q[i].Ciphertext) == 0 {
			q[i].Ciphertext = nil
		}
		if len(q[i].Wrap) == 0 {
			q[i].Wrap = nil
		}
	}
	return q
}
