package broker_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

func TestBadHello(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *broker.Config) { c.Limits.HelloTimeout = time.Second })
	bob, carol := w.join(trust.RoleMember, "bob"), w.join(trust.RoleMember, "carol")
	gone := w.join(trust.RoleMember, "gone")
	w.removeMember(w.founder, gone)
	bobs := bob.session()
	stranger, other := trust.NewSecretKey(), w.dial()
	go other.read()

	fresh := trust.NewSecretKey
	signed := func(role wire.Role, member, session trust.SecretKey, edit func(*wire.Hello)) func(*peer) {
		return func(p *peer) {
			h := newHello(w, p, role, member, session)
			if edit != nil {
				edit(h)
				trust.SignHello(session, p.challenge.BrokerPubkey, h)
			}
			p.write(h)
		}
	}
	spoiled := func(edit func(*wire.Hello)) func(*peer) {
		return func(p *peer) {
			h := newHello(w, p, wire.RoleSession, bob.key, fresh())
			edit(h)
			p.write(h)
		}
	}
	text := func(s string) func(*peer) { return func(p *peer) { p.text(s) } }
	edited := func(old, new string) func(*peer) {
		return func(p *peer) {
			raw, _ := wire.Append(nil, newHello(w, p, wire.RoleSession, bob.key, fresh()))
			p.text(strings.Replace(string(raw), old, new, 1))
		}
	}
	for _, c := range []struct {
		name  string
		do    func(*peer)
		code  wire.Code // "" for none
		close wire.CloseCode
	}{
		{"signature", spoiled(func(h *wire.Hello) { h.Sig[5] ^= 1 }), wire.CodeBadSignature, wire.CloseBadHello},
		{"role not signed", spoiled(func(h *wire.Hello) { h.Role = "boss" }), wire.CodeBadFrame, wire.CloseBadHello},
		{"role signed", signed(wire.RoleSession, bob.key, fresh(), func(h *wire.Hello) { h.Role = "boss" }), wire.CodeBadFrame, wire.CloseBadHello},
		{"person with a session key", signed(wire.RoleSession, bob.key, fresh(), func(h *wire.Hello) { h.Role = wire.RolePerson }), wire.CodeBadFrame, wire.CloseBadHello},
		{"session with the member key", signed(wire.RolePerson, bob.key, bob.key, func(h *wire.Hello) { h.Role = wire.RoleSession }), wire.CodeBadFrame, wire.CloseBadHello},
		{"mesh not signed", spoiled(func(h *wire.Hello) { h.MeshID[0] ^= 1 }), wire.CodeBadAttestation, wire.CloseBadHello},
		{"member not signed", spoiled(func(h *wire.Hello) { h.Pubkey = carol.key.Public() }), wire.CodeBadAttestation, wire.CloseBadHello},
		{"session not signed", spoiled(func(h *wire.Hello) { h.SessionPubkey = fresh().Public() }), wire.CodeBadAttestation, wire.CloseBadHello},
		{"small-order member key", spoiled(func(h *wire.Hello) { h.Pubkey = wire.Key{1} }), wire.CodeBadSignature, wire.CloseBadHello},
		{"attestation issued", spoiled(func(h *wire.Hello) { h.Attestation.Issued++ }), wire.CodeBadAttestation, wire.CloseBadHello},
		{"attestation missing", signed(wire.RoleSession, bob.key, fresh(), func(h *wire.Hello) { h.Attestation = nil }), wire.CodeBadAttestation, wire.CloseBadHello},
		{"card signature", spoiled(func(h *wire.Hello) { h.Card.Sig[0] ^= 1 }), wire.CodeBadCard, wire.CloseBadHello},
		{"card seq", spoiled(func(h *wire.Hello) { h.Card.Seq++ }), wire.CodeBadCard, wire.CloseBadHello},
		{"card missing", spoiled(func(h *wire.Hello) { h.Card = nil }), wire.CodeBadCard, wire.CloseBadHello},
		{"nonce", signed(wire.RoleSession, bob.key, fresh(), func(h *wire.Hello) { h.Nonce[0] ^= 1 }), wire.CodeBadSignature, wire.CloseBadHello},
		{"nonce of another connection", signed(wire.RoleSession, bob.key, fresh(), func(h *wire.Hello) { h.Nonce = other.challenge.Nonce }), wire.CodeBadSignature, wire.CloseBadHello},
		{"nonce of a used connection", signed(wire.RoleSession, bob.key, fresh(), func(h *wire.Hello) { h.Nonce = bobs.challenge.Nonce }), wire.CodeBadSignature, wire.CloseBadHello},
		{"for another broker", func(p *peer) {
			k := fresh()
			h := newHello(w, p, wire.RoleSession, bob.key, k)
			trust.SignHello(k, fresh().Public(), h)
			p.write(h)
		}, wire.CodeBadSignature, wire.CloseBadHello},
		{"version", signed(wire.RoleSession, bob.key, fresh(), func(h *wire.Hello) { h.ProtocolVersion = 1 }), wire.CodeUnsupportedVersion, wire.CloseVersion},
		{"unknown mesh", func(p *peer) {
			k := fresh()
			h := newHello(w, p, wire.RoleObserver, k, k)
			h.MeshID[0] ^= 1
			trust.SignHello(k, p.challenge.BrokerPubkey, h)
			p.write(h)
		}, wire.CodeUnknownMesh, wire.CloseUnknown},
		{"unknown member", signed(wire.RoleSession, stranger, fresh(), nil), wire.CodeUnknownMember, wire.CloseUnknown},
		{"removed member", signed(wire.RoleSession, gone.key, fresh(), nil), wire.CodeRemoved, wire.CloseRemoved},
		{"session key of the owner", signed(wire.RoleSession, bob.key, w.owner, nil), wire.CodeBadAttestation, wire.CloseBadHello},
		{"session key of a member", signed(wire.RoleSession, bob.key, carol.key, nil), wire.CodeBadAttestation, wire.CloseBadHello},
		{"another member's session", signed(wire.RoleSession, carol.key, bobs.key, nil), wire.CodeBadAttestation, wire.CloseBadHello},
		{"large card", func(p *peer) {
			k := fresh()
			h := newHello(w, p, wire.RoleSession, bob.key, k)
			h.Card = newCard(w, bob.key, k, 5, 8000)
			p.write(h)
		}, wire.CodeTooLarge, wire.CloseBadHello},
		{"not JSON", text("hello"), wire.CodeBadFrame, wire.CloseBadHello},
		{"half JSON", text(`{"type":"hello"`), wire.CodeBadFrame, wire.CloseBadHello},
		{"empty object", text(`{}`), wire.CodeBadFrame, wire.CloseBadHello},
		{"null", text(`null`), wire.CodeBadFrame, wire.CloseBadHello},
		{"another type", text(`{"type":"send","_reqId":"hello"}`), wire.CodeBadFrame, wire.CloseBadHello},
		{"unknown type", text(`{"type":"knock"}`), wire.CodeUnknownType, wire.CloseBadHello},
		{"duplicate key", edited(`"role":"session"`, `"role":"session","role":"session"`), wire.CodeBadFrame, wire.CloseBadHello},
		{"uppercase hex", edited(`"meshId":"`+w.m.MeshID.String(), `"meshId":"`+strings.ToUpper(w.m.MeshID.String())+`F`), wire.CodeBadFrame, wire.CloseBadHello},
		{"array", func(p *peer) {
			raw, _ := wire.Append(nil, newHello(w, p, wire.RoleSession, bob.key, fresh()))
			p.text("[" + string(raw) + "]")
		}, wire.CodeBadFrame, wire.CloseBadHello},
		{"two frames in a message", func(p *peer) {
			raw, _ := wire.Append(nil, newHello(w, p, wire.RoleSession, bob.key, fresh()))
			p.text(string(raw) + string(raw))
		}, wire.CodeBadFrame, wire.CloseBadHello},
		{"binary", func(p *peer) {
			raw, _ := wire.Append(nil, newHello(w, p, wire.RoleSession, bob.key, fresh()))
			p.raw(websocket.MessageBinary, string(raw))
		}, wire.CodeBadFrame, wire.CloseBadHello},
		{"oversize", text(`{"type":"hello","x":"` + strings.Repeat("x", wire.MaxHelloBytes) + `"}`), "", wire.CloseFrameTooBig},
		{"nothing", func(*peer) {}, "", wire.CloseSlow},
	} {
		t.Run(c.name, func(t *testing.T) {
			began := time.Now()
			p := w.dial()
			go p.read()
			c.do(p)
			if got := p.closed(); got != websocket.StatusCode(c.close) {
				t.Errorf("close code %d (%v), want %d", got, p.err, c.close)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
			f, _ := p.take(0, func(f wire.Frame) bool { return true }).(*wire.Error)
			if c.code == "" {
				if f != nil {
					t.Errorf("got %+v", f)
				}
				return
			}
			if f == nil || f.Code != c.code {
				t.Fatalf("error frame %+v, want %s", f, c.code)
			}
			if strings.Contains(c.name, "signed") && f.ReqID != "hello" {
				t.Errorf("the refusal does not echo the id: %+v", f)
			}
		})
	}
	other.closed()
	w.eventually("pre-auth counters are zero", func() bool { all, n := broker.PreAuth(w.Broker); return all == 0 && n == 0 })
	bobs.sync() // whose socket nothing of this has touched
}

// What a good hello may look like.
func TestGoodHello(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	bob := w.join(trust.RoleMember, "bob")
	for _, role := range []wire.Role{wire.RolePerson, wire.RoleObserver} { // with a card of the member key
		p := w.dial()
		p.member, p.key = bob.key, bob.key
		h := newHello(w, p, role, bob.key, bob.key)
		h.Card = newCard(w, bob.key, bob.key, 7, 256)
		p.write(h)
		p.text(`{"type":"list_peers","_reqId":"early"}`) // what follows the hello is answered after it
		go p.read()
		a := want[*wire.HelloAck](p)
		if a.ReqID != "hello" || a.Limits.Window != 32 || a.Limits.Ciphertext != 40<<10 || a.Generation != 1 || a.MembersVersion != 2 || a.ServerTime == 0 {
			t.Errorf("%s: %+v", role, a)
		}
		if l := want[*wire.PeersList](p); l.ReqID != "early" {
			t.Errorf("%+v", l)
		}
	}
	if all, n := broker.PreAuth(w.Broker); all != 0 || n != 0 {
		t.Errorf("%d sockets count as unauthenticated, of %d addresses", all, n)
	}
}

func TestPreAuthLimits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		edit func(*broker.Limits)
	}{
		{"per address", func(l *broker.Limits) { l.PreAuthPerAddress = 3 }},
		{"in all", func(l *broker.Limits) { l.PreAuth = 3 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, func(cfg *broker.Config) { cfg.Limits.HelloTimeout = 700 * time.Millisecond; c.edit(&cfg.Limits) })
			inside := w.founder.session() // authenticated: does not count
			var open []*peer
			for range 3 {
				p := w.dial()
				go p.read()
				open = append(open, p)
			}
			req, _ := http.NewRequest("GET", strings.Replace(w.URL, "ws://", "http://", 1), nil)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusTooManyRequests {
				t.Errorf("the fourth socket: %d", resp.StatusCode)
			}
			open[0].cut()
			w.eventually("a place is free", func() bool { all, _ := broker.PreAuth(w.Broker); return all == 2 })
			w.founder.observer().end()
			for _, p := range open[1:] {
				if got := p.closed(); got != websocket.StatusCode(wire.CloseSlow) {
					t.Errorf("close code %d", got)
				}
			}
			w.eventually("counters are zero", func() bool { all, n := broker.PreAuth(w.Broker); return all == 0 && n == 0 })
			inside.sync()
		})
	}
}

// A client that dawdles over its HTTP request or its hello is cut.
func TestDawdler(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *broker.Config) { c.Limits.HelloTimeout = time.Second })
	addr := strings.TrimSuffix(strings.TrimPrefix(w.URL, "ws://"), "/ws")
	upgrade := "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
	for _, c := range []struct {
		name, atOnce, slowly string
		within               time.Duration
	}{
		{"headers", "", upgrade, 6500 * time.Millisecond},
		{"hello", upgrade, "\x81\xfe\x20\x00aaaa" + strings.Repeat("x", 1000), 3 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			began := time.Now()
			fmt.Fprint(conn, c.atOnce)
			go func() {
				for i := range len(c.slowly) {
					if _, err := conn.Write([]byte{c.slowly[i]}); err != nil {
						return
					}
					time.Sleep(100 * time.Millisecond)
				}
			}()
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			got, err := io.ReadAll(conn)
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				t.Fatal("still open")
			}
			if took := time.Since(began); took > c.within {
				t.Errorf("closed after %v", took)
			}
			if strings.Contains(string(got), "permessage-deflate") {
				t.Error("compression was negotiated")
			}
		})
	}
	t.Cleanup(func() {
		w.eventually("no socket is left", func() bool { all, _ := broker.PreAuth(w.Broker); return all == 0 })
	})
}

// TestHelloOvertaken: a hello waits for the disk, and its peer comes again meanwhile.
// Whatever becomes of the first, it does not replace the second: a peer that is told
// so does not try again.
func TestHelloOvertaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for range 10 {
		session := trust.NewSecretKey()
		release := broker.HoldCommits(w.Broker)
		var p [2]*peer
		for i := range p {
			p[i] = w.dial()
			p[i].member, p[i].key = w.founder.key, session
			p[i].write(newHello(w, p[i], wire.RoleSession, w.founder.key, session))
			go p[i].read()
		}
		release()
		p[1].ack = want[*wire.HelloAck](p[1])
		p[0].closed()
		p[1].sync()
		p[1].end()
	}
}
