package broker

import (
	"context"
	"errors"
	"time"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// What a store keeps of each: beyond it there is ErrTooMany.
const (
	MaxRoles  = 1000 // role statements of a mesh
	MaxPauses = 100  // of one signer, that have not passed; resumes count, and are taken all the same
	MaxBlocks = 1000 // of one member
)

// ErrTooMany means that a store keeps no more of a kind.
var ErrTooMany = errors.New("too many")

// RoleChange gives a member another role. Of one that is an admin no more the
// invites close.
type RoleChange struct {
	Mesh      wire.ID
	Statement wire.Signed
	Closes    []InviteClose
	Version   int64 // the members version it was built on
}

// Pause stops a mesh's messages, or, with a zero Until, is the resume that ends
// the pause of that hash.
type Pause struct {
	Mesh      wire.ID
	Signer    wire.Key
	Statement wire.Signed
	Hash      [32]byte // SHA-256 of the pause's statement
	Until     time.Time
	Now       time.Time // what has passed by then is forgotten
}

// Block says that a member takes no messages of another.
type Block struct{ Member, Blocked wire.Key }

// GovernStore keeps how a mesh is run. Each change raises the members version
// once, which is how other brokers on the store find it. The same statement
// again is answered with the version of the first time.
type GovernStore interface {
	// SetRole stores a role and its closes. ErrStaleMembers when Version is not
	// the mesh's, ErrNotFound for an unknown mesh or invite, ErrTooMany.
	SetRole(ctx context.Context, r RoleChange) (version int64, err error)
	// AddPause stores a pause or a resume, which is forgotten with its pause.
	// ErrNotFound for an unknown mesh, or when there is no pause to end. ErrTooMany.
	AddPause(ctx context.Context, p Pause) (version int64, err error)
	// SetBlock puts a block there or takes it away. What changes nothing raises
	// no version and returns the mesh's. ErrNotFound for an unknown mesh, ErrTooMany.
	SetBlock(ctx context.Context, mesh wire.ID, b Block, on bool) (version int64, err error)
	// Blocks returns the blocks of a mesh. Those of and by removed members are gone.
	Blocks(ctx context.Context, mesh wire.ID) ([]Block, error)
}
