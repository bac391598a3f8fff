// Package audit is a log whose records hang together: each has the hash of the
// one before it in its own, so that none can be altered, taken out, moved or put
// in without all that follow giving it away. What is cut off at the end is not
// seen. It never holds what a message says.
package audit

import (
	"encoding/json"
	"fmt"
	"iter"
	"strings"

	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// Event is what happened.
type Event string

// The events.
const (
	Received   Event = "received"  // a message came in
	Refused    Event = "refused"   // one was not taken; Code says why
	Shown      Event = "shown"     // one was put before an agent or a person
	Held       Event = "held"      // one waits for a person before it is sent; Code says why
	Released   Event = "released"  // a held one was sent
	Discarded  Event = "discarded" // a held one was not
	Blocked    Event = "blocked"   // a member, here
	Unblocked  Event = "unblocked"
	Granted    Event = "granted"  // a member's level or grants were set here
	Verified   Event = "verified" // a member's safety number was compared
	Created    Event = "created"  // a mesh
	Joined     Event = "joined"
	Left       Event = "left"
	Removed    Event = "removed"
	Role       Event = "role" // a member's was changed
	Paused     Event = "paused"
	Resumed    Event = "resumed"
	Kicked     Event = "kicked"
	KeyChanged Event = "key_changed" // a pinned key was accepted anew
	Closed     Event = "closed"      // an invite
	Torn       Event = "torn"        // the end of the log was lost in a crash
)

// Entry is one thing that happened. What does not apply is zero.
type Entry struct {
	At      int64    `json:"at"` // Unix ms
	Event   Event    `json:"event"`
	Mesh    wire.ID  `json:"mesh,omitzero"`
	Member  wire.Key `json:"member,omitzero"`  // whom it is about
	Session wire.Key `json:"session,omitzero"` // of that member
	Message wire.ID  `json:"message,omitzero"`
	Code    string   `json:"code,omitempty"` // the reason, an enum
	Note    string   `json:"note,omitempty"` // short, and of ours: never a peer's text
}

// Sum is SHA-256; 64 lowercase hex digits in JSON.
type Sum [32]byte

// MarshalText returns the sum in hex.
func (s Sum) MarshalText() ([]byte, error) { return wire.Key(s).MarshalText() }

// UnmarshalText reads 64 lowercase hex digits.
func (s *Sum) UnmarshalText(t []byte) error { return (*wire.Key)(s).UnmarshalText(t) }

// Record is an entry in its place. Numbers begin at 1.
type Record struct {
	Number int64 `json:"number"`
	Entry
	Prev Sum `json:"prev"` // the Hash of the record before; zero for the first
	Hash Sum `json:"hash"`
}

// Chain puts an entry behind the record whose hash is prev.
func Chain(prev Sum, number int64, e Entry) Record {
	return Record{Number: number, Entry: e, Prev: prev, Hash: trust.H("audit", prev[:], trust.U64(uint64(number)), e.Canonical())}
}

// Next puts an entry behind r; a zero r is the beginning.
func (r Record) Next(e Entry) Record { return Chain(r.Hash, r.Number+1, e) }

// Canonical is the entry as it is hashed and stored: JSON without space, fields
// in their order, those that are absent left out.
func (e Entry) Canonical() []byte {
	e.Code, e.Note = strings.ToValidUTF8(e.Code, "\ufffd"), strings.ToValidUTF8(e.Note, "\ufffd")
	b, err := json.Marshal(e)
	if err != nil { // it holds numbers, text and hex only
		panic(err)
	}
	return b
}

// Broken says that a log does not hang together, and from where.
type Broken struct {
	Number int64 // the first record that does not fit
	Why    string
}

func (b *Broken) Error() string {
	return fmt.Sprintf("the audit log is broken at record %d: %s", b.Number, b.Why)
}

// Verify checks that records hang together, from wherever they begin: what the
// first says of the one before it is taken as given. It returns how many there
// are. *Broken, or an error of the records.
func Verify(records iter.Seq2[Record, error]) (n int, err error) {
	var last Record
	for r, err := range records {
		switch {
		case err != nil:
			return n, err
		case n > 0 && r.Number != last.Number+1:
			return n, &Broken{last.Number + 1, fmt.Sprintf("record %d stands in its place", r.Number)}
		case n > 0 && r.Prev != last.Hash:
			return n, &Broken{r.Number, "it does not follow the one before it"}
		case r.Number < 1, r.Number == 1 && r.Prev != (Sum{}):
			return n, &Broken{r.Number, "it is no beginning"}
		case r != Chain(r.Prev, r.Number, r.Entry):
			return n, &Broken{r.Number, "it was altered"}
		}
		last = r
		n++
	}
	return n, nil
}
