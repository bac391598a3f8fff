package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// Errors of a node.
var (
	// ErrFenced means that this node's lease has passed, or that it was replaced:
	// nothing was written.
	ErrFenced = errors.New("the node has lost its lease")
	// ErrReplaced is the ErrFenced of a node under whose name another broker runs.
	ErrReplaced = fmt.Errorf("%w: another broker has taken its name; give each its own --node", ErrFenced)
)

// Node is one of the brokers that share a store.
type Node struct {
	Name  string
	Epoch int64 // drawn at each Enlist, from 1, never twice; 0 is no node
}

// Holder is who holds a peer's mailbox: that node alone pushes what waits there.
type Holder struct {
	Node
	Conn   int64 // the node's number of the connection
	Person bool  // a human waits at it
	Since  int64 // when it was taken, in milliseconds by the database's clock
}

// Hold asks for a mailbox.
type Hold struct {
	Peer   PeerID
	Conn   int64
	Person bool
	// Take takes it from whoever holds it; else it is had only if no node that
	// stands holds it, or this one does.
	Take bool
}

// Held is the outcome of a Hold.
type Held struct {
	Had    bool
	Since  int64  // as in Holder; zero when it was not had
	Before Holder // who held it before, when another node did; with Had false: who holds it
}

// Located is a peer and who holds its mailbox.
type Located struct {
	Peer
	Forgotten bool
	Holder    Holder // zero: no node that stands
}

// Watch is what a node asks News about.
type Watch struct {
	Meshes    []wire.ID // in its memory
	Mailboxes []PeerID  // which it holds
	Senders   []PeerID  // whose messages may have outcomes to tell here
	Since     int64     // News.At of the time before; 0: nothing is told but At, Meshes, Holders and Waiting
}

// MeshNews is what changes about a mesh.
type MeshNews struct {
	Version             int64 // of its members
	Queued, QueuedBytes int64 // as in Mesh
}

// News is what a node may not have heard of: hints get lost.
type News struct {
	At       int64 // for the next Watch, by the database's clock
	Knows    int64 // who took a mailbox up to then, by that clock, stands in Holders unless it was let go
	Meshes   map[wire.ID]MeshNews
	Holders  map[PeerID]Holder // of every mailbox of the meshes that a standing node holds
	Peers    []Located         // of the meshes, that were put, changed their card or were forgotten since
	Waiting  map[PeerID]bool   // of the mailboxes, those with queued deliveries, in flight or not
	Outcomes []Outcome         // of the senders' messages, settled by others since
}

// ClusterStore is a Store that several brokers may share. Until Enlist it is an
// ordinary store. From then on every write is fenced by the node's epoch, in the
// transaction: once the lease has passed, or the node was replaced, all writes
// fail with ErrFenced and change nothing, until it enlists again. Leases go by
// the database's clock.
type ClusterStore interface {
	Store

	// Enlist makes the store a node's, with a lease of that length and a new
	// epoch. A node of the same name is replaced at once. What was given to
	// Accept and Settle before and has not begun fails with ErrFenced.
	Enlist(ctx context.Context, name string, lease time.Duration) (Node, error)
	// Renew prolongs the lease, buries the nodes whose lease has passed, with
	// what they held, and returns all that stand. ErrFenced, ErrReplaced.
	Renew(ctx context.Context) ([]Node, error)
	// Resign lets go of what the node holds and ends its lease. The store is an
	// ordinary one afterwards, to be closed.
	Resign(ctx context.Context) error

	// Hold asks for mailboxes, all in one transaction, in the order of holds.
	// A forgotten or unknown peer is not had. ErrFenced.
	Hold(ctx context.Context, holds []Hold) ([]Held, error)
	// LetGo gives mailboxes back that this node holds by these connections;
	// what is held otherwise stays. ErrFenced.
	LetGo(ctx context.Context, holds []Hold) error

	// Locate returns peers of a mesh with their holders: those with these
	// numbers, forgotten ones included, or with nil all that are not forgotten.
	Locate(ctx context.Context, mesh wire.ID, ids []PeerID) ([]Located, error)
	// LocateKey returns one that is not forgotten. ErrNotFound.
	LocateKey(ctx context.Context, mesh wire.ID, key wire.Key) (Located, error)
	// Outcomes returns what is known of deliveries, queued ones included,
	// by their numbers. Unknown numbers are left out.
	Outcomes(ctx context.Context, deliveries []int64) ([]Outcome, error)
	// News tells what happened. What is told may have been told before.
	News(ctx context.Context, w Watch) (News, error)
}

// Bus carries hints from node to node. It may lose, repeat and reorder them:
// whatever they speak of stands in the store, and is found there within
// the poll interval. Implementations reconnect by themselves.
type Bus interface {
	// Listen calls got with each payload that comes for this node until ctx
	// ends, and gap whenever some may have been lost. It returns at once; the
	// bus connects in the background. Calls come one at a time.
	Listen(ctx context.Context, node string, got func(payload []byte), gap func())
	// Send gives a payload, UTF-8 text of at most MaxPayload bytes, on its way to a node. An
	// error means that it is lost. It blocks no longer than ctx.
	Send(ctx context.Context, node string, payload []byte) error
	MaxPayload() int
	// Close ends the connections. Listen's ctx must have ended.
	Close() error
}
