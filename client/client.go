// Package client is a peer of a mesh as a library: it connects to a broker,
// seals and sends, receives and opens, and tells the truth about where each
// message is. Gateways need only this package.
//
// What is sent is in the Mailbox before Send returns, and what is received is
// there before the broker hears that it arrived: with a mailbox on disk neither
// is lost. With the broker away a Client goes on working on what it has, and
// connects again by itself.
package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/seal"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// Mailbox is a peer's ledgers: outbox, inbox, seen ids, and what it knows of
// its meshes. Several clients of one process, and several processes, may share one.
type Mailbox = mailbox.Mailbox

// OpenMailbox opens, or makes, a mailbox in a SQLite file.
func OpenMailbox(ctx context.Context, path string) (Mailbox, error) { return mailbox.Open(ctx, path) }

// MemoryMailbox makes a mailbox that ends with the process: for gateways that
// keep their own books, and for load generators.
func MemoryMailbox() Mailbox { return mailbox.NewMemory() }

// Push is a delivery as the broker hands it over: sealed.
type Push = wire.Push

// Role is what a client is on its mesh.
type Role = wire.Role

// The roles: a session is an agent's seat; a person takes the member's own
// mailbox; an observer lists and sends, and nobody sees it.
const (
	Session  = wire.RoleSession
	Person   = wire.RolePerson
	Observer = wire.RoleObserver
)

// Fault is a refusal with a machine-readable code.
type Fault = wire.Fault

// Options configure a Client. Membership is required, and for role Session
// SessionSeed; the rest has defaults.
type Options struct {
	Membership  Membership
	Role        Role    // default Session
	SessionSeed Secret  // seed of the session key; keep it with the mailbox, so that the session keeps its address
	Card        Card    // what this peer says of itself
	Mailbox     Mailbox // default MemoryMailbox()
	Logger      *slog.Logger
	// Hold keeps what is sent in the outbox until Release lets it go, message by
	// message: for gateways that pace themselves, and for load generators.
	Hold bool
	// Unopened takes pushes as they are, before they are opened, stored or
	// verified; each is acknowledged when it returns nil. Nothing is received
	// otherwise. It is for relays and load generators; it must not block for long.
	Unopened func(*Push) error
	Now      func() time.Time
	// HTTP opens the connection: for proxies, certificates and networks of one's
	// own. Default http.DefaultClient.
	HTTP *http.Client
}

// Client is one peer on one mesh. Its methods may be called concurrently.
type Client struct {
	m    Membership
	role Role
	box  Mailbox
	log  *slog.Logger
	now  func() time.Time
	http *http.Client

	member      trust.SecretKey
	session     trust.SecretKey // the member key for persons and observers
	attestation *wire.Attestation
	self        Key // session's public key

	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	kick    chan struct{} // the outbox has something
	hold    bool
	allowed atomic.Int64 // messages that may leave a held outbox
	relay   func(*Push) error
	offset  atomic.Int64 // server's clock minus ours, ms
	spread  atomic.Int64 // over how many ms the broker's clients come back together
	syncing sync.Mutex   // one membership sync at a time
	listing sync.Mutex   // one listing of peers at a time

	suspicions suspicions

	mu              sync.Mutex // guards the following
	roster          *trust.Roster
	version         int64  // members version that the roster shows
	shownGeneration uint64 // of the mesh key that the card was sealed under
	keys            map[uint64][32]byte
	peers           map[Key]*Peer
	watching        bool // the peer table follows the broker's
	card            Card
	cardSeq         uint64
	sealed          sealedCard // the last one
	shared          map[sharedID]*seal.Shared
	vouches         map[vouched]bool
	conn            *conn
	state           State
	changed         chan struct{} // closed and replaced when state changes
	withheld        uint64        // the mesh key whose removal the broker hides: nothing is sent until it shows it
}

// State is how a client stands with its broker.
type State struct {
	Online bool
	Err    error // why it is not: the last failure; with Final it will not try again
	Final  bool
	Since  time.Time // when it came to be so
}

// Dial starts a client. It returns at once: the connection is made and kept
// in the background, until Close. Ready waits for it. ctx bounds only the start.
func Dial(ctx context.Context, o Options) (*Client, error) {
	c := &Client{
		m: o.Membership, role: o.Role, box: o.Mailbox, log: o.Logger, now: o.Now, card: o.Card,
		keys: map[uint64][32]byte{}, peers: map[Key]*Peer{}, shared: map[sharedID]*seal.Shared{}, vouches: map[vouched]bool{},
		kick: make(chan struct{}, 1), changed: make(chan struct{}), member: o.Membership.memberKey(),
	}
	c.hold, c.relay, c.http = o.Hold, o.Unopened, o.HTTP
	if c.role == "" {
		c.role = Session
	}
	if c.box == nil {
		c.box = MemoryMailbox()
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.now == nil {
		c.now = time.Now
	}
	if err := c.identify(o); err != nil {
		return nil, err
	}
	if err := c.remember(ctx); err != nil {
		return nil, err
	}
	c.card.clip()
	if err := c.card.fits(); err != nil {
		return nil, err
	}
	c.state.Since = c.now()
	c.ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	c.wg.Go(c.run)
	c.wg.Go(c.drainLoop)
	c.wg.Go(c.receiptLoop)
	return c, nil
}

// identify sets the keys that this client speaks with.
func (c *Client) identify(o Options) error {
	if c.m.MeshID != trust.MeshID(c.m.Owner) || c.m.MemberSeed.IsZero() {
		return errors.New("the membership is damaged: its mesh id does not name its owner, or its key is missing")
	}
	if c.role != Session {
		c.session, c.self = c.member, c.member.Public()
		return nil
	}
	if o.SessionSeed.IsZero() {
		return errors.New("a session needs a key")
	}
	c.session = trust.SecretKeyFromSeed(o.SessionSeed)
	c.self = c.session.Public()
	a := trust.SignAttestation(c.member, c.m.MeshID, c.self, c.now().UnixMilli())
	c.attestation = &a
	return nil
}

// remember loads from the mailbox what was known of the mesh.
func (c *Client) remember(ctx context.Context) error {
	roster, err := trust.NewRoster(c.m.Owner, c.m.Genesis)
	if err != nil {
		return err
	}
	c.roster = roster
	if _, err := roster.Add(c.m.Certificate); err != nil && len(c.m.Certificate) == 1 {
		return err // a member's own certificate may need its admin's first, which the list below has
	}
	version, list, err := c.box.Statements(ctx, c.m.MeshID)
	if err != nil {
		return err
	}
	for _, s := range list {
		if err := applyStatement(roster, s); err != nil {
			return fmt.Errorf("the mailbox holds a statement that does not verify: %w", err)
		}
	}
	c.version = version
	if c.keys, err = c.box.Keys(ctx, c.m.MeshID); err != nil {
		return err
	}
	if c.m.Generation > 0 {
		c.keys[c.m.Generation] = c.m.MeshKey
	}
	known, err := c.box.Peers(ctx, c.m.MeshID)
	if err != nil {
		return err
	}
	for _, k := range known {
		if p, ok := c.fromKnown(k); ok {
			c.peers[k.Key] = p
		}
		if k.Key == c.self {
			c.resume(k)
		}
	}
	return nil
}

// resume takes over what a session of this key last said: a restarted agent
// stays in its groups, and its cards go on counting.
func (c *Client) resume(k mailbox.KnownPeer) {
	c.cardSeq = k.CardSeq
	if last, err := parseCard(k.Card); err == nil && c.card.Groups == nil {
		c.card.Groups = last.Groups
	}
}

// Close ends the connection cleanly and waits for everything the client
// started. What was stored and not yet accepted stays in the mailbox, which
// remains the caller's to close.
func (c *Client) Close() error {
	c.cancel()
	c.wg.Wait()
	return nil
}

// Mesh is the mesh's name.
func (c *Client) Mesh() string { return c.m.Mesh }

// MeshID is the mesh's id.
func (c *Client) MeshID() ID { return c.m.MeshID }

// Key is the key that this client sends from.
func (c *Client) Key() Key { return c.self }

// MemberKey is the key of the member whose client it is.
func (c *Client) MemberKey() Key { return c.member.Public() }

// Name is this client's full name: member/label for a session, else the member's.
func (c *Client) Name() string {
	if c.role == Session {
		return c.m.Member + "/" + c.Card().Label
	}
	return c.m.Member
}

// Addresses are the keys whose messages this client may read: its session's
// and its member's own.
func (c *Client) Addresses() []Key {
	if c.role == Session {
		return []Key{c.self, c.member.Public()}
	}
	return []Key{c.self}
}

// State returns how the client stands with its broker.
func (c *Client) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

func (c *Client) setState(s State) {
	s.Since = c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = s
	close(c.changed)
	c.changed = make(chan struct{})
}

// Ready waits until the client is online. It fails when ctx ends, with
// ErrUnreachable and the last cause, or when the broker refuses for good.
func (c *Client) Ready(ctx context.Context) error {
	for {
		c.mu.Lock()
		s, ch := c.state, c.changed
		c.mu.Unlock()
		switch {
		case s.Online:
			return nil
		case s.Final:
			return s.Err
		}
		select {
		case <-ch:
		case <-c.ctx.Done():
			return ErrClosed
		case <-ctx.Done():
			if s.Err != nil {
				return fmt.Errorf("%w: %w", ErrUnreachable, s.Err)
			}
			return fmt.Errorf("%w: %w", ErrUnreachable, ctx.Err())
		}
	}
}

// ErrClosed says that the client was closed.
var ErrClosed = errors.New("the client is closed")

// clock is the time by the broker's clock as far as it is known, in Unix ms.
func (c *Client) clock() int64 { return c.now().UnixMilli() + c.offset.Load() }

// ClockOffset is how far the broker's clock is ahead of this machine's.
func (c *Client) ClockOffset() time.Duration {
	return time.Duration(c.offset.Load()) * time.Millisecond
}

// sharedWith returns the box key of this client's key own and a peer, kept for
// the next time: it costs a curve multiplication.
func (c *Client) sharedWith(own trust.SecretKey, peer Key) (*seal.Shared, error) {
	id := sharedID{own.Public(), peer}
	c.mu.Lock()
	s := c.shared[id]
	c.mu.Unlock()
	if s != nil {
		return s, nil
	}
	s, err := seal.NewShared(own, peer)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.shared) >= maxShared {
		clear(c.shared)
	}
	c.shared[id] = s
	return s, nil
}

// vouched is an attestation that was verified.
type vouched struct {
	member, session Key
	attested        bool // a member's own key is not
	attestation     wire.Attestation
}

// maxShared bounds the box keys, and the attestations, that are kept.
const maxShared = 4096

// sharedID names a box key: a session's client has two keys of its own.
type sharedID struct{ own, peer Key }
