package broker

import (
	"context"
	"errors"
	"time"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// Errors of a Store. Each method names those it returns; anything else is a
// fault of the storage itself.
var (
	ErrNotFound      = errors.New("not found")
	ErrMeshExists    = errors.New("mesh exists")
	ErrNameTaken     = errors.New("member name taken")
	ErrConflict      = errors.New("key registered otherwise")
	ErrStaleMembers  = errors.New("members version changed")
	ErrInviteExpired = errors.New("invite expired")
	ErrInviteUsedUp  = errors.New("invite used up")
	ErrInviteClosed  = errors.New("invite closed")
	ErrIDReused      = errors.New("message id reused")
	ErrStorageFull   = errors.New("storage full")
	ErrClosed        = errors.New("store closed")
)

// Store is what the broker keeps on disk. Every method is atomic and durable
// when it returns (for Accept and Settle: when done is called). Times are given
// by the caller and stored as Unix milliseconds. All methods may be called
// concurrently. internal/storetest is the contract as tests.
type Store interface {
	BrokerStore
	MeshStore
	MemberStore
	GovernStore
	InviteStore
	PeerStore
	QueueStore

	// Ready reports whether the store can be written and read now.
	Ready(ctx context.Context) error
	// Stats counts what is stored, for the metrics.
	Stats(ctx context.Context) (StoreStats, error)
	// Close commits what was accepted, then closes. Later calls return ErrClosed.
	Close() error
}

// StoreStats is a snapshot of the store and its writer.
type StoreStats struct {
	Meshes, Members, Queued int64
	OldestQueued            time.Time // zero when nothing is queued
	Commits, CommittedOps   int64     // since start: ops per commit is the mean batch
	CommitSeconds           float64   // total time spent in commits since start
}

// BrokerIdentity is the broker's own row.
type BrokerIdentity struct {
	Seed      [32]byte // ed25519 seed of the broker key
	TokenHash [32]byte // SHA-256 of the admin token
	Created   time.Time
}

// BrokerStore keeps the broker's identity.
type BrokerStore interface {
	// Identity returns the stored identity. When there is none it stores fresh
	// and returns it with created true.
	Identity(ctx context.Context, fresh BrokerIdentity) (id BrokerIdentity, created bool, err error)
	// SetTokenHash replaces the admin token. ErrNotFound before the first Identity.
	SetTokenHash(ctx context.Context, hash [32]byte) error
}

// Mesh is a registered mesh.
type Mesh struct {
	ID             wire.ID
	Owner          wire.Key
	Name           string
	Genesis        wire.Signed
	Created        time.Time
	MembersVersion int64  // grows by one with each join, removal, close, role, pause and block
	Generation     uint64 // of the current mesh key; 1 at founding
	Queued         int64  // deliveries in state queued
	QueuedBytes    int64  // sum of their Size
}

// MeshStore keeps meshes.
type MeshStore interface {
	// CreateMesh stores a mesh and its founder at members version 1 and
	// generation 1. ErrMeshExists when the id is taken, whatever the rest;
	// storing the very same genesis and founder again succeeds.
	CreateMesh(ctx context.Context, m Mesh, founder Member) error
	// Mesh returns a mesh. ErrNotFound.
	Mesh(ctx context.Context, id wire.ID) (Mesh, error)
}

// Member is an admitted member. Broker and store treat the certificate as bytes.
type Member struct {
	Mesh        wire.ID
	Key         wire.Key
	Name        string
	Role        string           // owner, admin or member
	Invite      wire.ID          // zero for the founder
	Certificate wire.Certificate // as in package wire
	Joined      time.Time
	Removed     bool
}

// MemberChanges is what changed in a mesh's membership after a version.
type MemberChanges struct {
	Members  []Member // admitted after it, removed ones included, oldest first
	Roles    []wire.Signed
	Removals []wire.Signed
	Closes   []wire.Signed
	Pauses   []wire.Signed // and resumes
	Keys     []wire.KeyBox // for the asking member, by generation
	Version  int64
	Gen      uint64
}

// Join admits one member by an invite.
type Join struct {
	Invite wire.ID
	Member Member
	Now    time.Time
}

// Admission is what a joined member gets.
type Admission struct {
	Blob       wire.Blob
	Generation uint64
	Version    int64
	Repeated   bool // the same certificate was stored before
}

// Removal takes a member out. Boxes may be empty: a member that leaves issues no key.
type Removal struct {
	Mesh      wire.ID
	Member    wire.Key
	Statement wire.Signed
	Closes    []InviteClose
	Version   int64 // the members version it was built on
	// NextKey is set when the removal issues the next mesh key.
	NextKey *NextKey
	Now     time.Time
}

// NextKey is a new mesh key generation, boxed to each remaining member.
type NextKey struct {
	Generation uint64 // one above the mesh's
	Issuer     wire.Key
	Boxes      []wire.KeyBoxTo
	Previous   wire.Blob
}

// InviteClose ends one invite.
type InviteClose struct {
	Invite    wire.ID
	Statement wire.Signed
}

// Removed is the outcome of a removal.
type Removed struct {
	Version int64
	Voided  []wire.ID // open invites whose blobs held the old key
	Bounced []Outcome // deliveries that waited for the removed member's keys
}

// MemberStore keeps memberships.
type MemberStore interface {
	// Changes returns what changed after version since, with the key boxes of
	// member that were stored after it. ErrNotFound for an unknown mesh.
	Changes(ctx context.Context, mesh wire.ID, since int64, member wire.Key) (MemberChanges, error)
	// Join stores a member if its invite admits one more: the invite exists,
	// is neither closed nor voided nor expired at j.Now, and has uses left; it
	// counts the use and raises the members version in the same transaction.
	// The very same certificate again is answered like the first time, whatever
	// became of the invite. ErrNotFound (invite), ErrInviteExpired, ErrInviteUsedUp,
	// ErrInviteClosed, ErrNameTaken (by a member that was not removed),
	// ErrConflict (the key has another certificate, or was removed).
	Join(ctx context.Context, j Join) (Admission, error)
	// Remove applies a removal: marks the member, stores statement, closes and
	// the next key, voids the mesh's other open invites when there is a next
	// key, bounces what is queued for the member's peers and forgets them, and
	// raises the members version once. A second removal of a member (an admin's
	// after its own, to issue the next key) is stored beside the first.
	// ErrStaleMembers when Version or NextKey.Generation does not fit, ErrNotFound.
	Remove(ctx context.Context, r Removal) (Removed, error)
}

// Invite is a stored invite.
type Invite struct {
	Mesh       wire.ID
	ID         wire.ID
	Capability wire.Signed
	Blob       wire.Blob
	Generation uint64
	MaxUses    int
	Uses       int
	Expires    time.Time
	Created    time.Time
	Closed     bool
	Voided     bool // a removal changed the mesh key that Blob seals
}

// Admits returns nil when an invite admits one more member, else why not:
// ErrInviteClosed, ErrInviteExpired or ErrInviteUsedUp.
func (in *Invite) Admits(now time.Time) error {
	switch {
	case in.Closed || in.Voided:
		return ErrInviteClosed
	case !now.Before(in.Expires):
		return ErrInviteExpired
	case in.Uses >= in.MaxUses:
		return ErrInviteUsedUp
	}
	return nil
}

// InviteStore keeps invites.
type InviteStore interface {
	// PutInvite stores an invite. ErrStaleMembers when in.Generation is not the
	// mesh's, ErrConflict when the id is taken by another capability,
	// ErrNotFound for an unknown mesh. The same capability again succeeds.
	PutInvite(ctx context.Context, in Invite) error
	// Invite returns one invite. ErrNotFound.
	Invite(ctx context.Context, id wire.ID) (Invite, error)
	// Invites returns a mesh's invites, newest first.
	Invites(ctx context.Context, mesh wire.ID) ([]Invite, error)
	// CloseInvite closes an invite and raises the members version. ErrNotFound.
	// Closing twice stores both statements.
	CloseInvite(ctx context.Context, mesh wire.ID, c InviteClose) (version int64, err error)
}

// PeerID is the store's small number for one (mesh, recipient key).
type PeerID int64

// Peer is a key that messages can be addressed to: a session's, or a member's own.
type Peer struct {
	ID          PeerID // set by the store
	Mesh        wire.ID
	Key         wire.Key // equal to Member for the member's own mailbox
	Member      wire.Key
	Attestation *wire.Attestation // nil for the member's own
	Card        *wire.Card        // nil when it has never shown one
	LastSeen    time.Time
}

// PeerStore keeps presence.
type PeerStore interface {
	// PutPeer inserts or updates a peer by (Mesh, Key) and returns its number.
	// A nil Card or Attestation and a zero LastSeen leave what is stored. The number
	// of a key never changes. ErrConflict when the key belongs to another member.
	// A store that several brokers share refuses a removed member's peers with
	// ErrStaleMembers: this broker has not heard of the removal yet.
	PutPeer(ctx context.Context, p Peer) (PeerID, error)
	// Peers returns a mesh's peers.
	Peers(ctx context.Context, mesh wire.ID) ([]Peer, error)
	// TouchPeers sets the last-seen time of several peers.
	TouchPeers(ctx context.Context, ids []PeerID, seen time.Time) error
	// ForgetPeers deletes session peers (Key != Member) that were last seen
	// before a time, bouncing their queues with wire.CodeSessionGone. Peers in
	// keep stay. It handles at most limit peers and returns what it did.
	ForgetPeers(ctx context.Context, before time.Time, keep []PeerID, now time.Time, limit int) ([]Forgotten, error)
}

// Forgotten is a peer that ForgetPeers deleted.
type Forgotten struct {
	Peer    Peer
	Bounced []Outcome
}

// Message is one accepted message with its deliveries.
type Message struct {
	Mesh       wire.ID
	Sender     PeerID
	ID         wire.ID
	Hash       [32]byte // of mode, to, nonce and ciphertext: what makes a repeat the same
	Mode       wire.Mode
	Priority   wire.Priority
	Created    time.Time
	Expires    time.Time
	Nonce      []byte
	Ciphertext []byte
	Deliveries []NewDelivery
	// MembersVersion is the one by which sender and recipients were checked; 0
	// asks for no comparison. A store that several brokers share refuses the
	// message with ErrStaleMembers when a removal or an invite's close came after it.
	MembersVersion int64
}

// NewDelivery is one recipient of a Message. Wrap is nil for a direct.
type NewDelivery struct {
	Recipient PeerID
	Wrap      []byte
}

// Size is what one delivery counts against quotas: the bytes of body and wrap.
func (m *Message) Size(d NewDelivery) int64 {
	return int64(len(m.Nonce) + len(m.Ciphertext) + len(d.Wrap))
}

// Accepted is the outcome of Accept.
type Accepted struct {
	// First is the number of the first delivery; the others follow it one by
	// one, in the order of Message.Deliveries. Zero for a duplicate.
	First     int64
	Duplicate bool
	Outcomes  []Outcome // for a duplicate: what is known of each delivery
}

// Outcome is the state of one delivery, enough to tell its sender.
type Outcome struct {
	Delivery     int64
	Mesh         wire.ID
	Sender       PeerID
	SenderKey    wire.Key // set where the store knows it without another look-up: bounces, Lookup and Status
	ID           wire.ID
	Recipient    PeerID
	RecipientKey wire.Key // likewise
	State        wire.State
	Code         wire.Code // of a bounce
	At           time.Time // when it reached the state
	Size         int64
}

// Delivery is the i-th delivery of a message whose first has that number.
func (m *Message) Delivery(i int, first int64) Delivery {
	return Delivery{
		Number: first + int64(i), Message: first, Sender: m.Sender, ID: m.ID, Mode: m.Mode, Priority: m.Priority,
		Created: m.Created, Expires: m.Expires, Nonce: m.Nonce, Ciphertext: m.Ciphertext, Wrap: m.Deliveries[i].Wrap,
	}
}

// Delivery is one queued delivery with its body.
type Delivery struct {
	Number     int64
	Message    int64 // number of the message's first delivery
	Sender     PeerID
	ID         wire.ID
	Mode       wire.Mode
	Priority   wire.Priority
	Created    time.Time
	Expires    time.Time
	Nonce      []byte
	Ciphertext []byte
	Wrap       []byte
	Attempts   int
}

// Size is what the delivery counts against quotas: the bytes of body and wrap.
func (d *Delivery) Size() int64 { return int64(len(d.Nonce) + len(d.Ciphertext) + len(d.Wrap)) }

// Settlement returns the settlement of a delivery to a recipient, without its end.
func (d *Delivery) Settlement(mesh wire.ID, to PeerID) Settlement {
	return Settlement{Mesh: mesh, Message: d.Message, Delivery: d.Number, Recipient: to, Mode: d.Mode, Size: d.Size()}
}

// Place is how far a mailbox was read: for each priority rank, the number of
// the last delivery.
type Place [len(wire.Priorities)]int64

// Settlement ends one delivery: State is delivered, or bounced with a code. What
// stands before State is the delivery's own, so that the store need not look it up.
type Settlement struct {
	Mesh      wire.ID
	Message   int64 // number of the message's first delivery
	Delivery  int64
	Recipient PeerID
	Mode      wire.Mode
	Size      int64
	State     wire.State
	Code      wire.Code
	At        time.Time
}

// Usage is what one sender has queued for one recipient.
type Usage struct {
	Sender PeerID
	Count  int64
	Bytes  int64
}

// QueueStore keeps messages and deliveries (design of delivery states: see
// docs/protocol.md, "Delivery").
type QueueStore interface {
	// Accept stores a message and its deliveries in state queued. It returns at
	// once, with the number that the first delivery will have (0 when the store
	// cannot say yet); done is called exactly once, from the writer and in commit order,
	// after the commit is on disk or has failed. Messages given one after
	// another commit in that order. done must not block.
	//
	// The same (Sender, ID) with the same Hash is a duplicate: nothing is
	// stored and done gets what is known of its deliveries. Another Hash is
	// ErrIDReused. ErrNotFound (mesh). ErrStaleMembers (see Message). ErrStorageFull
	// when the disk has no room. ErrClosed.
	Accept(m *Message, done func(Accepted, error)) (first int64)
	// Settle ends deliveries, in order with Accept. A delivery that is not queued
	// for that recipient is left alone: settled is false for it. When the last
	// delivery of a message is settled its body is dropped; what remains is the
	// tombstone that answers repeats and Status until a day past its expiry.
	Settle(s []Settlement, done func(settled []bool, err error))
	// Retry counts one failed attempt of each delivery and returns the counts.
	Retry(ctx context.Context, deliveries []int64) (attempts []int, err error)
	// Queued returns a page of a recipient's queued deliveries that stand after a place,
	// ordered by priority rank, then by number: at most rows of them, and no more once they
	// are bytes in size. more is false when there are no others. It sees
	// everything whose done was called.
	Queued(ctx context.Context, recipient PeerID, after Place, rows int, bytes int64) (page []Delivery, more bool, err error)
	// Usage sums what each sender has queued for a recipient.
	Usage(ctx context.Context, recipient PeerID) ([]Usage, error)
	// Lookup returns what is known of message (sender, id) and its hash. ErrNotFound.
	Lookup(ctx context.Context, sender PeerID, id wire.ID) (hash [32]byte, known []Outcome, err error)
	// Status returns what is known of the messages that any peer of a member sent under these ids.
	Status(ctx context.Context, mesh wire.ID, member wire.Key, ids []wire.ID) ([]Outcome, error)
	// Expire bounces up to limit queued deliveries whose messages expired at or before now, with
	// wire.CodeExpired, and returns them.
	Expire(ctx context.Context, now time.Time, limit int) ([]Outcome, error)
	// Prune deletes up to limit tombstones whose messages expired before a time.
	Prune(ctx context.Context, before time.Time, limit int) (int, error)
}
