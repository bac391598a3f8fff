package broker

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/coder/websocket"

	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// handshake challenges the socket, reads its hello and registers the
// connection. Nothing in it is decided by time but its own deadline. It returns
// the id of the hello, which a refusal echoes.
func (c *conn) handshake() (req string, err error) {
	defer time.AfterFunc(c.b.cfg.Limits.HelloTimeout, c.cut).Stop()
	c.ws.SetReadLimit(wire.MaxHelloBytes)
	var nonce wire.Nonce32
	rand.Read(nonce[:]) // crypto/rand.Read never fails
	challenge := &wire.Challenge{V: wire.Version, Nonce: nonce, BrokerPubkey: c.b.PublicKey(), Sig: trust.SignChallenge(c.b.key, nonce)}
	raw, err := wire.Append(nil, challenge)
	if err != nil {
		return "", err
	}
	if err := c.ws.Write(c.ctx, websocket.MessageText, raw); err != nil {
		return "", errDropped
	}
	t, msg, err := c.ws.Read(c.ctx)
	if err != nil {
		return "", errDropped
	}
	if t != websocket.MessageText {
		return "", wire.Faultf(wire.CodeBadFrame, "frames are text")
	}
	f, err := wire.Decode(msg)
	if err != nil {
		return requestID(msg), err
	}
	h, ok := f.(*wire.Hello)
	switch {
	case !ok:
		return requestID(msg), wire.Faultf(wire.CodeBadFrame, "the first frame is hello")
	case h.ProtocolVersion != wire.Version:
		return h.ReqID, wire.Faultf(wire.CodeUnsupportedVersion, "")
	case h.Nonce != nonce:
		return h.ReqID, wire.Faultf(wire.CodeBadSignature, "the hello answers another challenge")
	}
	if err := trust.VerifyHello(c.b.PublicKey(), h); err != nil {
		return h.ReqID, err
	}
	c.hello = h
	return h.ReqID, c.register(c.ctx, h)
}

// register checks the member's standing, stores the peer, makes the connection
// a routing target and only then acknowledges.
func (c *conn) register(ctx context.Context, h *wire.Hello) error {
	if err := c.b.cluster.open(); err != nil {
		return err
	}
	m, err := c.b.mesh(ctx, h.MeshID)
	if err != nil {
		return err
	}
	if err := m.admits(ctx, h); err != nil {
		return err
	}
	p, own, err := c.enter(ctx, m, h)
	if err != nil {
		return err
	}
	c.mesh, c.role, c.member, c.key, c.self = m, h.Role, h.Pubkey, h.SessionPubkey, p
	hadOwn, err := c.hold(ctx, m, h.Role, p, own)
	if err != nil {
		return err
	}
	if err := m.join(c, p, own, hadOwn, h.ReqID); err != nil {
		m.syncOrLater([]PeerID{p.id, own.id}) // of what it was to hold
		return err
	}
	if h.Role != wire.RoleObserver {
		m.hintPeers([]Hold{{Peer: p.id}, {Peer: own.id}})
	}
	c.b.log.Debug("connected", "conn", c.id, "role", c.role, "member", c.member.Short(), "session", c.key.Short())
	return nil
}

// admits checks that a hello comes from a member that stands.
func (m *mesh) admits(ctx context.Context, h *wire.Hello) error {
	if m.b.cluster != nil { // it may have been removed, or have joined, at another node
		if err := m.refresh(ctx); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.roster.Standing(h.Pubkey); err != nil {
		return err
	}
	if h.Role == wire.RoleSession && m.isMemberKey(h.SessionPubkey) {
		return wire.Faultf(wire.CodeBadAttestation, "a session key is no other kind of key")
	}
	return nil
}

// enter stores the peer of a hello and returns it and the member's own.
func (c *conn) enter(ctx context.Context, m *mesh, h *wire.Hello) (p, own *peer, err error) {
	now := c.b.cfg.Now()
	row := Peer{Mesh: m.id, Key: h.SessionPubkey, Member: h.Pubkey, Attestation: h.Attestation}
	if h.Role != wire.RoleObserver {
		row.Card, row.LastSeen = h.Card, now
	}
	if c.settled, err = m.newcomer(ctx, h, now); err != nil {
		return nil, nil, err
	}
	p, err = m.putPeer(ctx, row)
	if errors.Is(err, ErrConflict) {
		err = wire.Faultf(wire.CodeBadAttestation, "the session key is another member's")
	}
	if err != nil {
		return nil, nil, err
	}
	if own, err = m.peerFor(ctx, h.Pubkey); err != nil {
		return nil, nil, err
	}
	for _, q := range []*peer{p, own} {
		if err := m.loadUsage(ctx, q); err != nil {
			return nil, nil, err
		}
	}
	return p, own, nil
}

// join makes c a routing target, tells watchers, and acknowledges the hello.
// hadOwn says that the member's own mailbox may be served here.
func (m *mesh) join(c *conn, p, own *peer, hadOwn bool, req string) error {
	now := m.b.cfg.Now()
	m.mu.Lock()
	if err := m.roster.Standing(c.member); err != nil { // it was removed meanwhile
		m.mu.Unlock()
		return err
	}
	if old := p.conn; c.closed.Load() || (c.role == wire.RoleSession && old != nil && old.number > c.number) {
		// Its hello waited for the disk, and its peer has given it up and come again.
		m.mu.Unlock()
		return errDropped
	}
	event := wire.PresenceJoined
	if m.describe(p, now).Online {
		event = wire.PresenceChanged
	}
	ack := &wire.HelloAck{
		Req: wire.Req{ReqID: req}, Conn: c.id, ServerTime: now.UnixMilli(), Limits: m.b.limits(),
		MembersVersion: m.version, Generation: m.generation,
		SpreadMs: spread(m.b.peers.Add(1)).Milliseconds(), Blocked: m.blockedBy(c.member),
	}
	m.conns[c], c.joined = struct{}{}, now
	var moved []*conn
	if c.role != wire.RoleObserver {
		if c.role == wire.RoleSession {
			if old := p.conn; old != nil {
				delete(m.conns, old)
				moved = m.detach(old)
				old.closeSoon(wire.CloseReplaced)
			}
			ack.Pending += int(p.usage.count)
			m.attach(p, c)
		}
		// The member's own mailbox goes to a person before a session.
		if hadOwn && (own.conn == nil || (c.role == wire.RolePerson && own.conn.role != wire.RolePerson)) {
			ack.Pending += int(own.usage.count)
			m.attach(own, c)
		}
		p.grace = time.Time{}
		m.tell(p, event, c)
	}
	c.send(ack)
	c.spread.Store(ack.SpreadMs) // from here on changes are told
	m.mu.Unlock()
	m.b.metrics.connected(c.role)
	for _, other := range append(moved, c) {
		m.pump(other)
	}
	return nil
}

// leave ends c as a routing target. What it had in flight is queued again.
func (m *mesh) leave(c *conn) {
	now := m.b.cfg.Now()
	m.mu.Lock()
	_, routed := m.conns[c] // else it was replaced, or its member removed
	delete(m.conns, c)
	served := make([]PeerID, len(c.serves))
	for i, p := range c.serves {
		served[i] = p.id
	}
	moved := m.detach(c)
	if c.role != wire.RoleObserver && routed {
		c.self.lastSeen, c.self.dirty = now, true
		if c.role == wire.RoleSession && !c.clean.Load() && c.ending.Load() == 0 && !m.b.stopping.Load() {
			c.self.grace = now.Add(m.b.cfg.Limits.Grace)
		} else if c.role == wire.RoleSession || m.person(c.member) == nil {
			m.tell(c.self, wire.PresenceLeft, c)
		}
	}
	m.mu.Unlock()
	m.b.peers.Add(-1)
	m.b.metrics.disconnected(c.role)
	for _, next := range moved {
		m.pump(next)
	}
	m.syncOrLater(served)
	m.b.log.Debug("disconnected", "conn", c.id, "clean", c.clean.Load())
}

// returns is how many clients a second a broker that was lost wants back, and
// maxSpread the longest that one is asked to wait: its own limit between attempts.
const (
	returns   = 80
	maxSpread = 30 * time.Second
)

// spread is over how long n clients are to come back when all are cut off at
// once: a few at once, many at a pace that a broker that has just started bears.
func spread(n int64) time.Duration {
	return min(maxSpread, max(time.Second, time.Duration(n)*time.Second/returns))
}

// tellSpread tells a client when the crowd that it is part of has become
// another: those that came first know of a small one.
func (c *conn) tellSpread(ms int64) {
	told := c.spread.Load()
	if told == 0 || ms <= told+told/8 && ms >= told/2 || !c.out.Roomy() {
		return
	}
	c.spread.Store(ms)
	c.send(&wire.Spread{SpreadMs: ms})
}

func (b *Broker) limits() wire.Limits {
	l := b.cfg.Limits
	return wire.Limits{
		MessageBytes: l.MessageBytes, Ciphertext: l.BodyBytes, Wraps: l.Wraps, Window: l.Window,
		MaxAgeMs: l.MaxAge.Milliseconds(),
	}
}
