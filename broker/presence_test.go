package broker_test

import (
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

func event(e wire.PresenceEvent, k wire.Key) func(*wire.Presence) bool {
	return func(p *wire.Presence) bool { return p.Event == e && p.Peer.SessionPubkey == k }
}

func TestPresence(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	bob := w.join(trust.RoleMember, "bob")
	watcher, deaf := w.founder.observer(), w.founder.session()
	ask[*wire.PeersList](watcher, &wire.ListPeers{Watch: true})
	ask[*wire.PeersList](deaf, &wire.ListPeers{}) // does not watch

	b := bob.session()
	p := want(watcher, event(wire.PresenceJoined, b.pub()))
	if !p.Peer.Online || p.Peer.Card == nil || p.Peer.Attestation == nil || p.Peer.Pubkey != bob.key.Public() || p.Peer.Role != wire.RoleSession {
		t.Errorf("%+v", p.Peer)
	}
	ask[*wire.OK](b, &wire.SetCard{Card: *newCard(w, bob.key, b.key, p.Peer.Card.Seq+1, 256)})
	if q := want(watcher, event(wire.PresenceChanged, b.pub())); q.Peer.Card.Seq != p.Peer.Card.Seq+1 {
		t.Errorf("%+v", q.Peer.Card)
	}
	b.refused(&wire.SetCard{Card: *newCard(w, bob.key, b.key, p.Peer.Card.Seq+1, 256)}, wire.CodeBadCard) // no newer
	b.refused(&wire.SetCard{Card: *newCard(w, bob.key, b.key, 3, 256)}, wire.CodeBadCard)
	b.refused(&wire.SetCard{Card: *newCard(w, bob.key, trust.NewSecretKey(), p.Peer.Card.Seq+9, 256)}, wire.CodeBadCard)
	b.refused(&wire.SetCard{Card: *newCard(w, bob.key, b.key, p.Peer.Card.Seq+9, 5000)}, wire.CodeTooLarge)
	none[*wire.Presence](watcher, "refused cards are not told")

	b.cut() // a blip within the grace makes no noise
	b = bob.again(b)
	want(watcher, event(wire.PresenceChanged, b.pub()))
	second := bob.again(b) // takes the session over
	if got := b.closed(); got != websocket.StatusCode(wire.CloseReplaced) {
		t.Errorf("close code %d", got)
	}
	want(watcher, event(wire.PresenceChanged, b.pub()))
	second.sync()
	second.cut()
	none[*wire.Presence](watcher, "the grace runs")
	if l := ask[*wire.PeersList](watcher, &wire.ListPeers{}); len(l.Peers) != 2 {
		t.Errorf("%d peers are online in the grace", len(l.Peers))
	}
	w.Advance(31 * time.Second)
	w.tick()
	if q := want(watcher, event(wire.PresenceLeft, b.pub())); q.Peer.Online {
		t.Error("online after it left")
	}
	if l := ask[*wire.PeersList](watcher, &wire.ListPeers{}); len(l.Peers) != 1 {
		t.Errorf("%d peers", len(l.Peers))
	}
	l := ask[*wire.PeersList](watcher, &wire.ListPeers{Offline: true})
	if len(l.Peers) != 2 || l.Peers[0].Online == l.Peers[1].Online {
		t.Errorf("with the offline ones: %+v", l.Peers)
	}
	b = bob.again(b)
	want(watcher, event(wire.PresenceJoined, b.pub()))
	b.end() // in good order: at once
	want(watcher, event(wire.PresenceLeft, b.pub()))
	bob.observer().end()
	none[*wire.Presence](watcher, "an observer makes no presence")
	none[*wire.Presence](deaf, "it did not ask")
}

func TestPersonPresence(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	bob := w.join(trust.RoleMember, "bob")
	watcher, key := w.founder.observer(), bob.key.Public()
	ask[*wire.PeersList](watcher, &wire.ListPeers{Watch: true})
	one := bob.person()
	if p := want(watcher, event(wire.PresenceJoined, key)); p.Peer.Role != wire.RolePerson || !p.Peer.Online {
		t.Errorf("%+v", p.Peer)
	}
	two := bob.person()
	one.cut()
	want(watcher, event(wire.PresenceChanged, key)) // the second came; the first is not missed
	none[*wire.Presence](watcher, "the person is still there")
	if l := ask[*wire.PeersList](watcher, &wire.ListPeers{}); len(l.Peers) != 1 || l.Peers[0].Role != wire.RolePerson {
		t.Errorf("%+v", l.Peers)
	}
	two.end()
	want(watcher, event(wire.PresenceLeft, key))
	if l := ask[*wire.PeersList](watcher, &wire.ListPeers{Offline: true}); len(l.Peers) != 0 {
		t.Errorf("%+v", l.Peers)
	}
}

func TestPeerPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *broker.Config) { c.Limits.OutBytes, c.Limits.OutMax = 30<<10, 120<<10 }) // less than the whole list
	a := w.founder.session()
	seen := map[wire.Key]bool{}
	for i := range 150 {
		s := w.founder.session()
		if i == 75 {
			ask[*wire.OK](s, &wire.SetCard{Card: *newCard(w, s.member, s.key, 1<<50, 4000)})
		}
		if i < 100 {
			s.end()
		}
	}
	w.eventually("the first are offline", func() bool {
		n := 0
		l := ask[*wire.PeersList](a, &wire.ListPeers{})
		for n = len(l.Peers); l.More; n += len(l.Peers) {
			l = want[*wire.PeersList](a)
		}
		return n == 51
	})
	l := ask[*wire.PeersList](a, &wire.ListPeers{Offline: true})
	for {
		for _, p := range l.Peers {
			seen[p.SessionPubkey] = true
		}
		if raw, err := wire.Append(nil, l); err != nil || len(raw) > wire.MaxMessageBytes {
			t.Fatalf("a page of %d bytes, %v", len(raw), err)
		}
		if !l.More {
			break
		}
		l = want[*wire.PeersList](a)
	}
	if len(seen) != 151 {
		t.Errorf("%d peers", len(seen))
	}
}
