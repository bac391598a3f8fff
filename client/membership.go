package client

import (
	"encoding/hex"
	"log/slog"

	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// The types of keys and ids, for users of this package.
type (
	// Key is an ed25519 public key: a member's or a session's.
	Key = wire.Key
	// ID names a mesh, an invite or a message.
	ID = wire.ID
)

// Secret is 32 bytes that must not be shown: a key's seed or a mesh key. It is
// hex in JSON and [redacted] anywhere else.
type Secret [32]byte

// MarshalText returns hex: what the config file holds.
func (s Secret) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, s[:]), nil }

// UnmarshalText reads 64 lowercase hex digits.
func (s *Secret) UnmarshalText(t []byte) error { return (*wire.Key)(s).UnmarshalText(t) }

// String hides the secret.
func (s Secret) String() string { return "[redacted]" }

// GoString hides the secret.
func (s Secret) GoString() string { return "[redacted]" }

// LogValue hides the secret.
func (s Secret) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// IsZero reports whether the secret is absent.
func (s Secret) IsZero() bool { return s == Secret{} }

// Membership is one person's belonging to one mesh, with its secret keys: what
// Found and Join return, what Dial needs, and what must be kept in a file that
// nobody else can read.
type Membership struct {
	Mesh        string           `json:"mesh"` // the mesh's name
	MeshID      ID               `json:"meshId"`
	Broker      string           `json:"broker"` // ws:// or wss:// URL
	BrokerKey   Key              `json:"brokerKey"`
	Owner       Key              `json:"owner"`
	OwnerSeed   Secret           `json:"ownerSeed,omitzero"` // on the founder's machine only
	Member      string           `json:"member"`             // this member's name
	MemberSeed  Secret           `json:"memberSeed"`
	Role        string           `json:"role"` // owner, admin or member
	Genesis     wire.Signed      `json:"genesis"`
	Certificate wire.Certificate `json:"certificate"`
	Generation  uint64           `json:"generation"` // of MeshKey, as at joining
	MeshKey     Secret           `json:"meshKey"`
	Joined      int64            `json:"joined"`             // Unix ms
	Insecure    bool             `json:"insecure,omitempty"` // ws:// beyond loopback was allowed when joining
}

func (m *Membership) memberKey() trust.SecretKey { return trust.SecretKeyFromSeed(m.MemberSeed) }

// MemberKey is this member's public key.
func (m *Membership) MemberKey() Key { return m.memberKey().Public() }
