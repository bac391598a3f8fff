package mailbox_test

import (
	"context"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/wire"
)

func signed(s string) wire.Signed { return wire.Signed{Body: wire.Blob(s)} }

func TestStatements(t *testing.T) {
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		removal, closing := signed("r"), signed("c")
		list := []mailbox.Statement{{Certificate: wire.Certificate{signed("a"), signed("b")}}, {Removal: &removal}, {Close: &closing}}
		save := func(version int64, s []mailbox.Statement) string {
			t.Helper()
			fresh, err := b.SaveStatements(ctx, mesh, version, s)
			check(t, err)
			return fmt.Sprint(fresh)
		}
		equal(t, save(7, list[:2]), "[true true]")
		equal(t, save(5, []mailbox.Statement{list[1], list[2], list[0]}), "[false true false]")
		version, got, err := b.Statements(ctx, mesh)
		check(t, err)
		if version != 7 || !reflect.DeepEqual(got, list) {
			t.Fatalf("version %d, got\n%+v, want\n%+v", version, got, list)
		}
		version, got, err = b.Statements(ctx, mesh2)
		equal(t, say(version, got, err), "0 [] <nil>")
		for _, bad := range []mailbox.Statement{{}, {Removal: &removal, Close: &closing}} {
			_, err := b.SaveStatements(ctx, mesh, 9, []mailbox.Statement{bad})
			equal(t, err != nil, true)
		}
		version, _, _ = b.Statements(ctx, mesh)
		equal(t, version, 7) // a refused call changes nothing
	})
}

func TestPeers(t *testing.T) {
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		p := mailbox.KnownPeer{Key: bob, Member: carol, Role: wire.RoleSession, Attestation: &wire.Attestation{Issued: 3},
			CardSeq: 1<<63 + 1, Card: []byte("{}"), LastSeen: 100}
		older := mailbox.KnownPeer{Key: alice, Member: carol, Role: wire.RolePerson, LastSeen: 50}
		check(t, b.SavePeers(ctx, mesh, []mailbox.KnownPeer{older, p}))
		low := p
		low.CardSeq, low.Card, low.LastSeen, low.Attestation = 2, []byte("old"), 90, nil
		check(t, b.SavePeers(ctx, mesh, []mailbox.KnownPeer{low}))
		got, err := b.Peers(ctx, mesh)
		check(t, err)
		if want := []mailbox.KnownPeer{p, older}; !reflect.DeepEqual(got, want) {
			t.Fatalf("got\n%+v, want\n%+v", got, want)
		}
		p.CardSeq++
		p.Card, p.LastSeen = []byte("new"), 101
		check(t, b.SavePeers(ctx, mesh, []mailbox.KnownPeer{p}))
		if got, _ = b.Peers(ctx, mesh); !reflect.DeepEqual(got[0], p) {
			t.Fatalf("got %+v, want %+v", got[0], p)
		}
		got, err = b.Peers(ctx, mesh2)
		equal(t, say(len(got), err), "0 <nil>")
	})
}

func TestKeys(t *testing.T) {
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		check(t, b.SaveKey(ctx, mesh, 1, [32]byte{1}))
		check(t, b.SaveKey(ctx, mesh, 1, [32]byte{1}))
		check(t, b.SaveKey(ctx, mesh, 1<<63, [32]byte{2}))
		equal(t, b.SaveKey(ctx, mesh, 1, [32]byte{3}) != nil, true)
		keys, err := b.Keys(ctx, mesh)
		check(t, err)
		equal(t, len(keys), 2)
		equal(t, keys[1] == [32]byte{1} && keys[1<<63] == [32]byte{2}, true)
	})
}

func TestForget(t *testing.T) {
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		fill := func(m wire.ID, n int) {
			o, r, later := out(n, bob), in(n), in(n+1)
			o.Mesh, r.Mesh, r.Seq, later.Mesh, later.Seq = m, m, 1, m, 3
			l := lane(bob)
			l.Mesh = m
			_, err := b.Put(ctx, []mailbox.Lane{l}, func(s []uint64) (mailbox.Outgoing, error) {
				equal(t, s[0], 1)
				return o, nil
			})
			check(t, err)
			equal(t, say(receive(t, b, r, later)), "[true true]")
			_, err = b.SaveStatements(ctx, m, 1, []mailbox.Statement{{Certificate: wire.Certificate{signed("a")}}})
			check(t, err)
			check(t, b.SavePeers(ctx, m, []mailbox.KnownPeer{{Key: bob}}))
			check(t, b.SaveKey(ctx, m, 1, [32]byte{byte(n)}))
		}
		count := func(m wire.ID) string {
			p, _ := b.Pending(ctx, m, wire.Key{}, 0, 0, 0)
			l, _, _ := b.List(ctx, mailbox.Query{Recipients: []wire.Key{bob}, Mesh: m})
			v, s, _ := b.Statements(ctx, m)
			peers, _ := b.Peers(ctx, m)
			keys, _ := b.Keys(ctx, m)
			return say(len(p), len(l), v, len(s), len(peers), len(keys))
		}
		fill(mesh, 10)
		fill(mesh2, 20)
		check(t, b.Forget(ctx, mesh))
		equal(t, count(mesh), "0 0 0 0 0 0")
		equal(t, count(mesh2), "1 2 1 1 1 1")
		gaps, err := b.Missing(ctx, []wire.Key{bob}, 1<<40)
		equal(t, say(len(gaps), err), "1 <nil>")
		fill(mesh, 10) // also numbers and seen ids were forgotten
	})
}

func TestWatch(t *testing.T) {
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		watch, cancel := context.WithCancel(ctx)
		ch := b.Watch(watch)
		put(t, b, out(1, bob))
		put(t, b, out(2, bob))
		hinted(t, ch, 10*time.Millisecond)
		cancel()
		time.Sleep(50 * time.Millisecond)
		select {
		case <-ch: // a hint that came before the end
		default:
		}
		put(t, b, out(3, bob))
		time.Sleep(200 * time.Millisecond)
		equal(t, len(ch), 0)
	})
}

func hinted(t *testing.T, ch <-chan struct{}, within time.Duration) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(within):
		t.Fatalf("no hint within %v", within)
	}
}

func TestClosedAndIdentity(t *testing.T) {
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		equal(t, len(b.ID()), 32)
		check(t, b.Close())
		check(t, b.Close())
		_, _, err := b.List(ctx, toBob)
		equal(t, err, error(mailbox.ErrClosed))
		_, err = b.MarkRead(ctx, 1, bob, 1)
		equal(t, err, error(mailbox.ErrClosed))
		gone, cancel := context.WithCancel(ctx)
		cancel()
		_ = b.Watch(gone)
	})
}
