// Package mailbox is a peer's local truth: what it has sent and what became of
// it (outbox), what it has received and who has read it (inbox), which message
// ids it has seen, and what it knows of the mesh (statements, peers, keys).
// Open keeps it in one SQLite file that several processes share; NewMemory
// keeps it in this process alone.
package mailbox

import (
	"context"
	"errors"
	"time"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// Errors of a Mailbox.
var (
	ErrNotFound = errors.New("no such message")
	ErrReplayed = errors.New("message expired before the replay floor")
	ErrNewer    = errors.New("the mailbox was written by a newer claudemesh")
)

// Mailbox is the contract of both implementations. Every method is atomic and,
// on disk, durable when it returns (SQLite WAL, synchronous=FULL). Methods may
// be called concurrently, by several processes on one file.
type Mailbox interface {
	Outbox
	Inbox
	Knowledge
	Couriers
	Trusts
	Holding
	Log

	// ID is drawn when the mailbox is made. Session keys are bound to it: a lost
	// mailbox means new session keys, for what was seen is lost with it.
	ID() string
	// Watch returns a channel that gets a value soon after this or another
	// process has changed the mailbox, until ctx ends. Hints coalesce; there may be
	// too many, never too few.
	Watch(ctx context.Context) <-chan struct{}
	// WatchClosely is Watch for a process that waits for little else: it sees
	// what others do within some 25 ms, and works for that.
	WatchClosely(ctx context.Context) <-chan struct{}
	// Prune forgets read messages and settled outgoing ones older than keep, and seen ids
	// whose expiry lies more than a day before both now and serverNow (Unix ms);
	// the largest expiry so forgotten becomes the replay floor of its mesh.
	Prune(ctx context.Context, keep time.Duration, now, serverNow int64) error
	Close() error
}

// State is what is known of an outgoing message at one recipient. It only
// grows: stored, accepted, delivered, read; bounced ends stored and accepted.
type State string

// The states told to people.
const (
	Stored    State = "stored"    // in this outbox
	Accepted  State = "accepted"  // on the broker's disk
	Delivered State = "delivered" // on the recipient's disk, by the broker's word
	Read      State = "read"      // shown to the agent, by its sealed receipt
	Bounced   State = "bounced"   // never will be; Code says why
)

// OutRecipient is one addressee of an outgoing message. Times are Unix ms.
type OutRecipient struct {
	Key    wire.Key
	Member wire.Key // whose session Key is, or Key itself
	Name   string   // as shown when it was sent
	Wrap   []byte   // nil for a direct
	Online bool     // at the broker's accept
	State  State
	Code   wire.Code
	At     int64 // when it reached State
}

// Outgoing is a sealed message in the outbox. Times are Unix ms.
type Outgoing struct {
	Number     int64 // order in the outbox, set by Put
	Mesh       wire.ID
	Sender     wire.Key // the session (or member) key that sealed it
	ID         wire.ID
	Mode       wire.Mode
	Target     string
	Priority   wire.Priority
	Sent       int64
	Expires    int64
	ReplyTo    wire.ID
	Replaces   wire.ID
	Hop        uint64 // 0: a person's or a program's; else one more than what it answers
	Text       string // kept for re-sealing and for showing what was sent; empty for receipts
	ToPerson   bool   // the user named a member: a dead session's message goes to the member key
	Nonce      []byte
	Ciphertext []byte
	Recipients []OutRecipient
}

// Lane names the counter that orders a sender's messages to one recipient.
type Lane struct {
	Mesh      wire.ID
	Sender    wire.Key
	Recipient wire.Key
	Priority  wire.Priority
}

// Outbox is the sender's ledger.
type Outbox interface {
	// Put draws the next number of each lane (the first is 1), calls seal with
	// them and stores what it returns, all in one transaction: a failed seal uses
	// no number. It returns the row's Number. An id that is there already is an error.
	Put(ctx context.Context, lanes []Lane, seal func(seqs []uint64) (Outgoing, error)) (int64, error)
	// Pending returns messages of a mesh with a recipient in state stored, in
	// Number order, from those above after. A zero sender means any; notAfter (Unix ms, 0 = any)
	// leaves out those sent after it. Expired ones are included.
	Pending(ctx context.Context, mesh wire.ID, sender wire.Key, after, notAfter int64, limit int) ([]Outgoing, error)
	// Advance moves one recipient of a message to a later state and reports
	// whether it did; a state that is not later changes nothing (changed false).
	Advance(ctx context.Context, mesh, id wire.ID, recipient wire.Key, to State, code wire.Code, online bool, at int64) (changed bool, err error)
	// Outgoing returns one sent message. ErrNotFound.
	Outgoing(ctx context.Context, id wire.ID) (Outgoing, error)
	// Unsettled returns ids of messages of a mesh with a recipient in state
	// accepted, oldest first, of those that expire after now: what to ask message_status for.
	Unsettled(ctx context.Context, mesh wire.ID, now int64, limit int) ([]wire.ID, error)
	// Drop bounces with code every stored recipient whose Key or Member is member,
	// and forgets its wrap.
	Drop(ctx context.Context, mesh wire.ID, member wire.Key, code wire.Code, at int64) error
	// Spread returns who a sender has sent a text to since a time (Unix ms), by its
	// Digest, and whether anyone has ever sent it from here or received it here.
	Spread(ctx context.Context, mesh wire.ID, sender wire.Key, digest [16]byte, since int64) (to []wire.Key, known bool, err error)
	// HopOf returns the highest hop of what these recipients have received as
	// message replyTo, read or not, or have read since a time (Unix ms) from these
	// sender keys, members or sessions; ok is false if there is no such message.
	HopOf(ctx context.Context, recipients []wire.Key, replyTo wire.ID, from []wire.Key, since int64) (hop uint64, ok bool, err error)
}

// Incoming is a received message, opened and verified. Times are Unix ms.
type Incoming struct {
	Number        int64 // order in the inbox, set by Receive
	Mesh          wire.ID
	Recipient     wire.Key // the session or member key it was sealed to
	SenderMember  wire.Key
	SenderSession wire.Key
	SenderName    string // "member/label", or "member", as known on arrival
	ID            wire.ID
	Mode          wire.Mode
	Target        string
	Priority      wire.Priority // as the sender sealed it
	Urgency       wire.Priority // as it is treated here; set by Receive
	Gate          Gate          // how far it comes by itself; set by Receive
	Own           bool          // the sender is this member too
	Hop           uint64
	ContentType   string
	Text          string
	ReplyTo       wire.ID
	Replaces      wire.ID
	Sent          int64
	Expires       int64
	Received      int64
	Seq           uint64
	Offered       int64    // when it was announced; 0 = not yet
	ReadAt        int64    // when it was shown; 0 = unread
	Reader        wire.Key // who it was shown to
}

// Query selects received messages.
type Query struct {
	Mesh       wire.ID       // zero: any
	Recipients []wire.Key    // any of these keys; required
	From       wire.Key      // a sender's member or session key; zero: any
	ReplyTo    wire.ID       // zero: any
	Unoffered  bool          // only those never announced
	Read       bool          // also those already read
	AtLeast    wire.Priority // only those of such Urgency or more; "": any
	Gate       Gate          // those of this gate or a lower; zero: only what may enter
	Except     []wire.ID     // leaves out answers to these messages, and all of these meshes
	Holder     string        // with Now: leaves out what others hold
	Now        int64         // Unix ms of this machine; 0: whoever holds it, and paused or not
	Limit      int           // 0: 100
}

// rank is the number of the least urgent priority that matches.
func (q *Query) rank() int {
	if q.AtLeast == "" {
		return len(wire.Priorities) - 1
	}
	return q.AtLeast.Rank()
}

// Gap is messages of one sender session that are known to be missing.
type Gap struct {
	Mesh          wire.ID
	SenderSession wire.Key
	SenderName    string
	Count         int
}

// Inbox is the recipient's ledger.
type Inbox interface {
	// Receive stores messages and the fact that their ids were seen, in one
	// transaction. fresh[i] is false for one that this recipient has seen before, or whose
	// Replaces any recipient here has seen; it is not stored again.
	// A message that expires at or below the mesh's floor and was not seen is
	// ErrReplayed, one that the sender has no grant for ErrNotGranted, one of a blocked
	// sender ErrBlocked: then errs[i] is set and the others are stored all the same.
	Receive(ctx context.Context, in []Incoming) (fresh []bool, errs []error, err error)
	// List returns messages, unread ones unless q.Read: by urgency, then oldest first
	// (with q.Read: newest first, whatever the urgency), and how many more match.
	List(ctx context.Context, q Query) (msgs []Incoming, more int, err error)
	// Take is List that marks what it returns as read by reader, in one
	// transaction: a message is given to one reader only.
	Take(ctx context.Context, q Query, reader wire.Key, at int64) (msgs []Incoming, more int, err error)
	// Message returns one received message by id for any of these recipients. ErrNotFound.
	Message(ctx context.Context, id wire.ID, recipients []wire.Key) (Incoming, error)
	// MarkRead marks one message read by reader and reports whether it was unread.
	MarkRead(ctx context.Context, number int64, reader wire.Key, at int64) (bool, error)
	// MarkOffered marks an unread message announced and reports whether it was the first
	// time: what was read meanwhile is not announced.
	MarkOffered(ctx context.Context, number int64, at int64) (bool, error)
	// Unreceipted returns read messages whose sender was not yet told, and
	// Receipted marks them told.
	Unreceipted(ctx context.Context, mesh wire.ID, reader wire.Key, limit int) ([]Incoming, error)
	Receipted(ctx context.Context, numbers []int64) error
	// Missing returns the gaps in the lanes to these recipients that were noticed
	// at or before a time (Unix ms). A lane's first message sets its start; a later
	// message fills its gap.
	Missing(ctx context.Context, recipients []wire.Key, noticed int64) ([]Gap, error)
}

// Statement is one verified statement of a mesh: exactly one field is set.
type Statement struct {
	Certificate wire.Certificate `json:"certificate,omitempty"`
	Removal     *wire.Signed     `json:"removal,omitempty"`
	Close       *wire.Signed     `json:"close,omitempty"`
	Role        *wire.Signed     `json:"role,omitempty"`
	Pause       *wire.Signed     `json:"pause,omitempty"` // or the end of one
}

// KnownPeer is a session or person as last seen. Card is the opened card's
// JSON; it is data of this machine, never sent. LastSeen is Unix ms.
type KnownPeer struct {
	Key         wire.Key
	Member      wire.Key
	Role        wire.Role
	Attestation *wire.Attestation
	CardSeq     uint64
	Card        []byte
	LastSeen    int64
}

// Knowledge is what a peer never forgets of its meshes.
type Knowledge interface {
	// SaveStatements appends statements and sets the members version they bring
	// the mesh to. The same statement again is no error, and not fresh; a version never goes down.
	SaveStatements(ctx context.Context, mesh wire.ID, version int64, s []Statement) (fresh []bool, err error)
	// Statements returns them in the order they were saved, and the version.
	Statements(ctx context.Context, mesh wire.ID) (version int64, s []Statement, err error)
	// SavePeers inserts or updates peers; a lower CardSeq leaves card and seq as they are, and
	// LastSeen never goes down.
	SavePeers(ctx context.Context, mesh wire.ID, peers []KnownPeer) error
	// Peers returns the known peers of a mesh.
	Peers(ctx context.Context, mesh wire.ID) ([]KnownPeer, error)
	// SaveKey stores a mesh key; the same generation with another key is an error.
	SaveKey(ctx context.Context, mesh wire.ID, generation uint64, key [32]byte) error
	// Keys returns the stored mesh keys by generation.
	Keys(ctx context.Context, mesh wire.ID) (map[uint64][32]byte, error)
	// Forget deletes everything of a mesh that was left.
	Forget(ctx context.Context, mesh wire.ID) error
}
