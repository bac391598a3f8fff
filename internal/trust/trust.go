// Package trust is who belongs to a mesh and how that is proven: keys,
// signed statements, certificates, invites, removals and the roster they add
// up to. It is pure: no clock, no network, no disk. The source is
// docs/protocol.md, sections 1 to 5.
package trust

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"regexp"

	"github.com/claudemesh/claudemesh/internal/wire"
)

const domain = "claudemesh/v2/"

// maxFields bounds what a parsed statement may hold: a removal of an admin
// lists the members that stay.
const maxFields = 10_000

// T encodes the bytes that are signed or hashed:
// "claudemesh/v2/" ds 0x00 LP(f1) .. LP(fn), LP being a uint32 big-endian
// length and the bytes.
func T(ds string, fields ...[]byte) []byte {
	n := len(domain) + len(ds) + 1
	for _, f := range fields {
		n += 4 + len(f)
	}
	b := make([]byte, 0, n)
	b = append(b, domain...)
	b = append(b, ds...)
	b = append(b, 0)
	for _, f := range fields {
		b = AppendLP(b, f)
	}
	return b
}

// H is SHA-256 over T.
func H(ds string, fields ...[]byte) [32]byte { return sha256.Sum256(T(ds, fields...)) }

// AppendLP appends the length of f as uint32 big-endian, then f.
func AppendLP(dst, f []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(f)))
	return append(dst, f...)
}

// CutLP splits the first length-prefixed field off b. ok is false when b is too short.
func CutLP(b []byte) (field, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	n := binary.BigEndian.Uint32(b)
	b = b[4:]
	if uint64(n) > uint64(len(b)) {
		return nil, nil, false
	}
	return b[:n:n], b[n:], true
}

// U64 encodes an integer field.
func U64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

// Fields takes T(ds, f1..fn) apart. It fails on another domain, a field that
// is cut short, or bytes left over.
func Fields(ds string, body []byte) ([][]byte, error) {
	head := domain + ds + "\x00"
	rest, ok := bytes.CutPrefix(body, []byte(head))
	if !ok {
		return nil, fault(wire.CodeBadCertificate, "not a "+ds+" statement")
	}
	var fields [][]byte
	for len(rest) > 0 {
		f, more, ok := CutLP(rest)
		if !ok || len(fields) == maxFields {
			return nil, fault(wire.CodeBadCertificate, "malformed "+ds+" statement")
		}
		fields, rest = append(fields, f), more
	}
	return fields, nil
}

// reader takes the fields of one statement in order and remembers the first misfit.
type reader struct {
	ds     string
	fields [][]byte
	bad    bool
}

func open(ds string, body []byte) (*reader, error) {
	f, err := Fields(ds, body)
	if err != nil {
		return nil, err
	}
	return &reader{ds: ds, fields: f}, nil
}

func (r *reader) next() []byte {
	if len(r.fields) == 0 {
		r.bad = true
		return nil
	}
	f := r.fields[0]
	r.fields = r.fields[1:]
	return f
}

func (r *reader) fixed(dst []byte) {
	if f := r.next(); len(f) == len(dst) {
		copy(dst, f)
	} else {
		r.bad = true
	}
}

func (r *reader) id() (id wire.ID)   { r.fixed(id[:]); return }
func (r *reader) key() (k wire.Key)  { r.fixed(k[:]); return }
func (r *reader) hash() (h [32]byte) { r.fixed(h[:]); return }
func (r *reader) text() string       { return string(r.next()) }
func (r *reader) u64() uint64        { var b [8]byte; r.fixed(b[:]); return binary.BigEndian.Uint64(b[:]) }
func (r *reader) time() int64        { v := r.u64(); r.bad = r.bad || v > math.MaxInt64; return int64(v) }
func (r *reader) left() int          { return len(r.fields) }
func (r *reader) name() string       { s := r.text(); r.bad = r.bad || !ValidName(s); return s }
func (r *reader) oneOf(v ...string) string {
	s := r.text()
	for _, w := range v {
		if s == w {
			return s
		}
	}
	r.bad = true
	return s
}

// done fails when a field was missing, misshapen or left over.
func (r *reader) done() error {
	if r.bad || len(r.fields) > 0 {
		return fault(wire.CodeBadCertificate, "malformed "+r.ds+" statement")
	}
	return nil
}

var namePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,31}$`)

// ValidName reports whether s may name a mesh, a member, a label or a group.
func ValidName(s string) bool { return namePattern.MatchString(s) }

func fault(c wire.Code, detail string) error { return wire.Faultf(c, detail) }
