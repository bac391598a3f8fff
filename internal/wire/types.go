package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
)

// Key is a 32-byte ed25519 public key; 64 lowercase hex digits on the wire.
type Key [32]byte

// ID is a 16-byte identifier of a mesh, an invite or a message; 32 lowercase
// hex digits on the wire.
type ID [16]byte

// Sig is a 64-byte ed25519 signature; 128 lowercase hex digits on the wire.
type Sig [64]byte

// Nonce32 is the 32-byte challenge of one connection, in hex.
type Nonce32 [32]byte

// Blob is binary data; standard base64 with padding on the wire.
type Blob []byte

var errHex = errors.New("want lowercase hex")

func appendHex(dst, src []byte) []byte { return hex.AppendEncode(dst, src) }

// decodeHex fills dst from exactly 2*len(dst) lowercase hex digits.
func decodeHex(dst, text []byte) error {
	if len(text) != 2*len(dst) {
		return fmt.Errorf("want %d hex digits, got %d", 2*len(dst), len(text))
	}
	for _, c := range text {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return errHex
		}
	}
	_, err := hex.Decode(dst, text)
	return err
}

// AppendText appends the key in hex.
func (k Key) AppendText(b []byte) ([]byte, error) { return appendHex(b, k[:]), nil }

// MarshalText returns the key in hex.
func (k Key) MarshalText() ([]byte, error) { return appendHex(nil, k[:]), nil }

// UnmarshalText reads 64 lowercase hex digits.
func (k *Key) UnmarshalText(t []byte) error { return decodeHex(k[:], t) }

func (k Key) String() string { return hex.EncodeToString(k[:]) }

// Short returns the first 8 hex digits, the longest form that may be logged.
func (k Key) Short() string { return hex.EncodeToString(k[:4]) }

// IsZero reports whether the key is absent.
func (k Key) IsZero() bool { return k == Key{} }

// AppendText appends the id in hex.
func (id ID) AppendText(b []byte) ([]byte, error) { return appendHex(b, id[:]), nil }

// MarshalText returns the id in hex.
func (id ID) MarshalText() ([]byte, error) { return appendHex(nil, id[:]), nil }

// UnmarshalText reads 32 lowercase hex digits.
func (id *ID) UnmarshalText(t []byte) error { return decodeHex(id[:], t) }

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether the id is absent.
func (id ID) IsZero() bool { return id == ID{} }

// ParseID reads 32 lowercase hex digits.
func ParseID(s string) (ID, error) {
	var id ID
	err := id.UnmarshalText([]byte(s))
	return id, err
}

// AppendText appends the signature in hex.
func (s Sig) AppendText(b []byte) ([]byte, error) { return appendHex(b, s[:]), nil }

// MarshalText returns the signature in hex.
func (s Sig) MarshalText() ([]byte, error) { return appendHex(nil, s[:]), nil }

// UnmarshalText reads 128 lowercase hex digits.
func (s *Sig) UnmarshalText(t []byte) error { return decodeHex(s[:], t) }

// AppendText appends the nonce in hex.
func (n Nonce32) AppendText(b []byte) ([]byte, error) { return appendHex(b, n[:]), nil }

// MarshalText returns the nonce in hex.
func (n Nonce32) MarshalText() ([]byte, error) { return appendHex(nil, n[:]), nil }

// UnmarshalText reads 64 lowercase hex digits.
func (n *Nonce32) UnmarshalText(t []byte) error { return decodeHex(n[:], t) }

var strictBase64 = base64.StdEncoding.Strict()

// AppendText appends the blob in base64.
func (b Blob) AppendText(dst []byte) ([]byte, error) { return strictBase64.AppendEncode(dst, b), nil }

// MarshalText returns the blob in base64.
func (b Blob) MarshalText() ([]byte, error) { return b.AppendText(nil) }

// UnmarshalText reads canonical standard base64 with padding, no line breaks.
func (b *Blob) UnmarshalText(t []byte) error {
	for _, c := range t {
		if c == '\n' || c == '\r' {
			return errors.New("line break in base64")
		}
	}
	out, err := strictBase64.AppendDecode(make([]byte, 0, strictBase64.DecodedLen(len(t))), t)
	if err != nil {
		return err
	}
	*b = out
	return nil
}

// Signed is one statement: the exact bytes that were signed, T(ds, fields..)
// of protocol section 1, and the signature over them. Package trust makes and
// verifies them; everything else carries them unopened.
type Signed struct {
	Body Blob `json:"body"`
	Sig  Sig  `json:"sig"`
}

// Equal reports whether two statements are the same, byte for byte.
func (s Signed) Equal(o Signed) bool { return s.Sig == o.Sig && bytes.Equal(s.Body, o.Body) }

// IsZero reports whether the statement is absent.
func (s Signed) IsZero() bool { return len(s.Body) == 0 }

// Certificate proves one member: {founder} for the founder, {capability, join,
// possession} for a member that an invite admitted.
type Certificate []Signed

// Mode says how a message is addressed.
type Mode string

// The modes of protocol section 7.
const (
	ModeDM        Mode = "dm"
	ModeGroup     Mode = "group"
	ModeBroadcast Mode = "broadcast"
	ModeReceipt   Mode = "receipt"
)

// Valid reports whether m is one of the four modes.
func (m Mode) Valid() bool {
	return m == ModeDM || m == ModeGroup || m == ModeBroadcast || m == ModeReceipt
}

// Direct reports whether a message of this mode has exactly one recipient and no wraps.
func (m Mode) Direct() bool { return m == ModeDM || m == ModeReceipt }

// Priority orders deliveries: now overtakes next, next overtakes low.
type Priority string

// The priorities of the delivery contract.
const (
	PriorityNow  Priority = "now"
	PriorityNext Priority = "next"
	PriorityLow  Priority = "low"
)

// Rank returns 0 for now, 1 for next, 2 for low and -1 for anything else.
func (p Priority) Rank() int {
	switch p {
	case PriorityNow:
		return 0
	case PriorityNext:
		return 1
	case PriorityLow:
		return 2
	}
	return -1
}

// Priorities lists the priorities by rank.
var Priorities = [...]Priority{PriorityNow, PriorityNext, PriorityLow}

// Role is what a connection is for (protocol section 5).
type Role string

// The three roles.
const (
	RoleSession  Role = "session"
	RolePerson   Role = "person"
	RoleObserver Role = "observer"
)

// Valid reports whether r is one of the three roles.
func (r Role) Valid() bool { return r == RoleSession || r == RolePerson || r == RoleObserver }

// State is what is known of one delivery at the broker.
type State string

// The broker's delivery states.
const (
	StateQueued    State = "queued"
	StateDelivered State = "delivered"
	StateBounced   State = "bounced"
)
