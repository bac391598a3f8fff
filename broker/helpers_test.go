package broker_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/meshtest"
	"github.com/claudemesh/claudemesh/internal/pgtest"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

func TestMain(m *testing.M) {
	// The server waits half a second before it closes a connection whose request it has cut short.
	os.Exit(pgtest.Main(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait")))
}

// clock is a test's time: the real one and an offset.
type clock struct{ offset atomic.Int64 }

func (c *clock) Now() time.Time          { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) Advance(d time.Duration) { c.offset.Add(int64(d)) }

// world is a broker with one mesh and raw peers.
type world struct {
	*meshtest.World
	*clock
	t       *testing.T
	m       client.Membership // the founder's
	owner   trust.SecretKey
	founder *user
	mu      sync.Mutex
	peers   []*peer
	down    bool
}

// user is a member's keys.
type user struct {
	w    *world
	name string
	key  trust.SecretKey
	cert wire.Certificate
}

func newWorld(t *testing.T, edit func(*broker.Config)) *world {
	t.Helper()
	return newWorldOn(t, "", edit)
}

// newWorldOn is newWorld on a Postgres database, unless that is "".
func newWorldOn(t *testing.T, db string, edit func(*broker.Config)) *world {
	t.Helper()
	w := &world{t: t, clock: &clock{}}
	w.World = meshtest.NewOn(t, db, func(c *broker.Config) {
		c.Now = w.clock.Now
		// A test that moves the clock may do so while something is being written.
		c.Limits.GoneAfter, c.Limits.PingEvery, c.Limits.WriteTimeout = 1e6*time.Hour, 1e6*time.Hour, 1e6*time.Hour
		if edit != nil {
			edit(c)
		}
	})
	w.m = w.Found("acme", "alice")
	w.owner = trust.SecretKeyFromSeed(w.m.OwnerSeed)
	w.founder = &user{w: w, name: "alice", key: trust.SecretKeyFromSeed(w.m.MemberSeed), cert: w.m.Certificate}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	t.Cleanup(w.finish)
	return w
}

// finish checks the broker's books while its peers are connected, then ends them.
func (w *world) finish() {
	if !w.down && !w.t.Failed() {
		w.check()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.peers {
		_ = p.ws.CloseNow()
		<-p.done
	}
}

func (w *world) check() {
	w.t.Helper()
	var err error
	for range 1500 {
		if err = broker.Check(w.Broker); err == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	w.t.Errorf("the books do not balance: %v", err)
}

func (w *world) tick() { broker.Tick(w.Broker) }

func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	meshtest.Eventually(w.t, what, ok)
}

// invite is a stored invite and its secret.
type invite struct {
	secret     trust.Secret
	capability wire.Signed
	id         wire.ID
}

func (w *world) capability(issuer trust.SecretKey, role string, uses uint64, expires time.Time) invite {
	s := trust.NewSecret()
	k := s.InviteKey().Public()
	in := invite{secret: s, id: trust.InviteID(k)}
	in.capability = trust.SignCapability(issuer, trust.Capability{
		Mesh: w.m.MeshID, Invite: in.id, Key: k, Role: role, Expires: expires.UnixMilli(), MaxUses: uses, Broker: w.m.BrokerKey,
	})
	return in
}

func (in invite) put(generation uint64) *wire.InvitePut {
	return &wire.InvitePut{Capability: in.capability, Blob: make([]byte, 64), Generation: generation}
}

// join admits a member by an invite of the owner's.
func (w *world) join(role, name string) *user {
	w.t.Helper()
	o := w.founder.observer()
	in := w.capability(w.owner, role, 1, w.Now().Add(time.Hour))
	gen := ask[*wire.MembersList](o, &wire.Members{}).Generation
	ask[*wire.OK](o, in.put(gen))
	u := w.newUser(in, name)
	if status, body := w.postJoin(u.cert); status != 200 {
		w.t.Fatalf("join: %d %s", status, body)
	}
	o.end()
	return u
}

func (w *world) newUser(in invite, name string) *user {
	key := trust.NewSecretKey()
	return &user{w: w, name: name, key: key, cert: trust.SignJoin(in.secret.InviteKey(), key, in.capability, name, w.Now().UnixMilli())}
}

func (w *world) postJoin(c wire.Certificate) (int, string) {
	body, err := wire.Marshal(wire.JoinRequest{Certificate: c})
	if err != nil {
		w.t.Fatal(err)
	}
	status, answer, _ := w.http("POST", "/v2/join", string(body), nil)
	return status, answer
}

// peer is one socket in the hands of a test, which may misbehave with it.
type peer struct {
	w         *world
	ws        *websocket.Conn
	key       trust.SecretKey // the session's, or the member's
	member    trust.SecretKey
	challenge *wire.Challenge
	ack       *wire.HelloAck
	deaf      bool

	mu    sync.Mutex
	inbox []wire.Frame
	err   error // why reading ended
	done  chan struct{}
	req   int
}

// dial opens a socket and reads the challenge. A deaf one reads nothing after the hello_ack.
func (w *world) dial() *peer {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, w.URL, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	ws.SetReadLimit(-1)
	p := &peer{w: w, ws: ws, done: make(chan struct{})}
	_, raw, err := ws.Read(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	f, err := wire.Decode(raw)
	if err != nil {
		w.t.Fatal(err)
	}
	p.challenge = f.(*wire.Challenge)
	w.mu.Lock()
	w.peers = append(w.peers, p)
	w.mu.Unlock()
	return p
}

// read gathers frames until the socket ends.
func (p *peer) read() {
	defer close(p.done)
	for {
		_, raw, err := p.ws.Read(context.Background())
		var frames []wire.Frame
		if err == nil {
			in, e := wire.Frames(nil, raw)
			for _, f := range in {
				frames, e = append(frames, f.Frame), errors.Join(e, f.Err)
			}
			err = e
		}
		p.mu.Lock()
		p.inbox = append(p.inbox, frames...)
		p.err = err
		deaf := p.deaf && len(frames) > 0
		p.mu.Unlock()
		if err != nil || deaf {
			return
		}
	}
}

func newHello(w *world, p *peer, role wire.Role, member, session trust.SecretKey) *wire.Hello {
	h := &wire.Hello{
		ProtocolVersion: wire.Version, Role: role, MeshID: w.m.MeshID, Pubkey: member.Public(),
		SessionPubkey: session.Public(), Nonce: p.challenge.Nonce,
	}
	h.ReqID = "hello"
	if role == wire.RoleSession {
		a := trust.SignAttestation(member, h.MeshID, h.SessionPubkey, 1)
		h.Attestation, h.Card = &a, newCard(w, member, session, uint64(w.Now().UnixMilli()), 256)
	}
	trust.SignHello(session, p.challenge.BrokerPubkey, h)
	return h
}

func newCard(w *world, member, session trust.SecretKey, seq uint64, size int) *wire.Card {
	c := &wire.Card{Generation: 1, Seq: seq, Blob: make([]byte, size)}
	trust.SignCard(session, w.m.MeshID, member.Public(), c)
	return c
}

func (u *user) connect(role wire.Role, session trust.SecretKey, deaf bool) *peer {
	u.w.t.Helper()
	p := u.w.dial()
	p.member, p.key, p.deaf = u.key, session, deaf
	p.write(newHello(u.w, p, role, u.key, session))
	go p.read()
	p.ack = want[*wire.HelloAck](p)
	return p
}

func (u *user) session() *peer  { return u.connect(wire.RoleSession, trust.NewSecretKey(), false) }
func (u *user) person() *peer   { return u.connect(wire.RolePerson, u.key, false) }
func (u *user) observer() *peer { return u.connect(wire.RoleObserver, u.key, false) }
func (u *user) again(p *peer) *peer {
	return u.connect(wire.RoleSession, p.key, false)
}

func (p *peer) pub() wire.Key { return p.key.Public() }

// end closes in good order, cut without a word. The broker has let go of the
// connection when they return.
func (p *peer) end() { p.gone(func() error { return p.ws.Close(websocket.StatusNormalClosure, "") }) }
func (p *peer) cut() { p.gone(p.ws.CloseNow) }

func (p *peer) gone(shut func() error) {
	p.w.t.Helper()
	routed := func() int {
		if p.ack == nil { // it never said hello
			return 0
		}
		return broker.Routed(p.w.Broker, p.w.m.MeshID, p.pub())
	}
	before := routed()
	_ = shut()
	<-p.done
	p.w.eventually("the broker lets go", func() bool { return before == 0 || routed() < before })
}

func (p *peer) write(f wire.Frame) {
	p.w.t.Helper()
	raw, err := wire.Append(nil, f)
	if err != nil {
		p.w.t.Fatal(err)
	}
	p.text(string(raw))
}

func (p *peer) text(s string) { p.raw(websocket.MessageText, s) }

func (p *peer) raw(t websocket.MessageType, s string) {
	p.w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := p.ws.Write(ctx, t, []byte(s)); err != nil {
		p.w.t.Logf("write: %v", err)
	}
}

// closed waits for the end of the socket and returns its close code.
func (p *peer) closed() websocket.StatusCode {
	p.w.t.Helper()
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		p.w.t.Fatal("the socket was not closed")
	}
	return websocket.CloseStatus(p.err)
}

// take removes and returns the first frame that fits, waiting for it.
func (p *peer) take(within time.Duration, fits func(wire.Frame) bool) wire.Frame {
	for end := time.Now().Add(within); ; time.Sleep(2 * time.Millisecond) {
		p.mu.Lock()
		for i, f := range p.inbox {
			if fits(f) {
				p.inbox = append(p.inbox[:i:i], p.inbox[i+1:]...)
				p.mu.Unlock()
				return f
			}
		}
		p.mu.Unlock()
		if time.Now().After(end) {
			return nil
		}
	}
}

// want returns the next frame of a type that fits.
func want[F wire.Frame](p *peer, fits ...func(F) bool) F {
	p.w.t.Helper()
	f := p.take(8*time.Second, func(f wire.Frame) bool {
		g, ok := f.(F)
		return ok && (len(fits) == 0 || fits[0](g))
	})
	if f == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		var zero F
		p.w.t.Fatalf("no %T came; %d frames, first %+v; end %v", zero, len(p.inbox), first(p.inbox), p.err)
	}
	return f.(F)
}

func first(f []wire.Frame) wire.Frame {
	if len(f) == 0 {
		return nil
	}
	return f[0]
}

// none fails when a frame of a type is there or comes within a moment.
func none[F wire.Frame](p *peer, why string) {
	p.w.t.Helper()
	p.sync()
	if f := p.take(30*time.Millisecond, func(f wire.Frame) bool { _, ok := f.(F); return ok }); f != nil {
		p.w.t.Fatalf("%s, but: %+v", why, f)
	}
}

// sync waits until the broker has handled what this peer sent.
func (p *peer) sync() {
	p.w.t.Helper()
	ask[*wire.StatusList](p, &wire.MessageStatus{})
}

func (p *peer) request(f wire.Request) string {
	p.req++
	id := fmt.Sprintf("r%d", p.req)
	f.SetRequestID(id)
	p.write(f)
	return id
}

// answer sends a request and returns what carries its id.
func (p *peer) answer(f wire.Request) wire.Frame {
	p.w.t.Helper()
	id := p.request(f)
	a := p.take(8*time.Second, func(f wire.Frame) bool { r, ok := f.(wire.Request); return ok && r.RequestID() == id })
	if a == nil {
		p.w.t.Fatalf("no answer to %s", f.Type())
	}
	return a
}

// ask is answer for a request that succeeds.
func ask[F wire.Frame](p *peer, f wire.Request) F {
	p.w.t.Helper()
	a := p.answer(f)
	g, ok := a.(F)
	if !ok {
		p.w.t.Fatalf("%s: %+v", f.Type(), a)
	}
	return g
}

// refused is answer for a request that fails with a code.
func (p *peer) refused(f wire.Request, code wire.Code) *wire.Error {
	p.w.t.Helper()
	e, ok := p.answer(f).(*wire.Error)
	if !ok || e.Code != code {
		p.w.t.Fatalf("%s: want %s, got %+v", f.Type(), code, e)
	}
	if e.Retryable != code.Info().Retryable || e.Message == "" {
		p.w.t.Fatalf("error frame %+v", e)
	}
	return e
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// dm is a direct message; the broker cannot tell what is sealed in it.
func (p *peer) dm(to wire.Key, edit ...func(*wire.Send)) *wire.Send {
	s := &wire.Send{
		ID: wire.ID(random(16)), Mode: wire.ModeDM, To: to, Priority: wire.PriorityNext,
		Expires: p.w.Now().Add(time.Hour).UnixMilli(), Nonce: random(24), Ciphertext: random(64),
	}
	for _, e := range edit {
		e(s)
	}
	return s
}

// group is a group message to several keys.
func (p *peer) group(to ...wire.Key) *wire.Send {
	return p.dm(wire.Key{}, func(s *wire.Send) {
		s.Mode = wire.ModeGroup
		for _, k := range to {
			s.Wraps = append(s.Wraps, wire.Wrap{To: k, Box: append([]byte{1}, k[:]...)})
		}
	})
}

func (p *peer) ackPush(pushes ...*wire.Push) {
	f := &wire.ClientAck{}
	for _, x := range pushes {
		f.Deliveries = append(f.Deliveries, x.Delivery)
	}
	p.write(f)
}

func byID(id wire.ID) func(*wire.Push) bool { return func(p *wire.Push) bool { return p.ID == id } }
