package seal

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"golang.org/x/crypto/nacl/box"
	"golang.org/x/crypto/nacl/secretbox"

	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// MaxLifetime bounds expires - sent, in ms: 30 days.
const MaxLifetime = 30 * 24 * 3600 * 1000

const (
	kindDirect = 0x00
	kindGroup  = 0x02
	kindWrap   = 0x01
)

// Header is what a message says of itself, under its sender's signature.
// Times are Unix ms. Recipient is zero for group and broadcast, where the wrap
// to one's key is the proof, and Seq is zero there, where the wrap has it.
type Header struct {
	Mode          wire.Mode
	Mesh          wire.ID
	SenderMember  wire.Key
	SenderSession wire.Key
	Recipient     wire.Key
	Target        string // what was meant, after resolution: "bob/checkout", "@backend", "*"
	ID            wire.ID
	Sent, Expires int64
	Priority      wire.Priority
	Seq           uint64
	ReplyTo       wire.ID // zero when it answers nothing
	Replaces      wire.ID // zero unless re-sealed after a bounce
	Generation    uint64  // of the sender's mesh key
	Hop           uint64  // 0 for what a person or program began; an agent's answer is one above what it answers
}

// MaxHop bounds the hops of a chain of agents that answer each other: a message
// that has come so far is refused.
const MaxHop = 8

// encode ends with the hop only when there is one: a header has one encoding.
func (h *Header) encode() []byte {
	f := [][]byte{
		[]byte(h.Mode), h.Mesh[:], h.SenderMember[:], h.SenderSession[:], optional(h.Recipient[:]),
		[]byte(h.Target), h.ID[:], trust.U64(uint64(h.Sent)), trust.U64(uint64(h.Expires)), []byte(h.Priority),
		trust.U64(h.Seq), optional(h.ReplyTo[:]), optional(h.Replaces[:]), trust.U64(h.Generation),
	}
	if h.Hop > 0 {
		f = append(f, trust.U64(h.Hop))
	}
	return trust.T("header", f...)
}

// optional encodes an absent (zero) field as an empty one.
func optional(b []byte) []byte {
	for _, c := range b {
		if c != 0 {
			return b
		}
	}
	return nil
}

func parseHeader(b []byte) (Header, error) {
	bad := wire.Faultf(wire.CodeBadEnvelope, "header")
	f, err := trust.Fields("header", b)
	if err != nil || len(f) < 14 || len(f) > 15 {
		return Header{}, bad
	}
	var h Header
	if len(f) == 15 {
		if len(f[14]) != 8 {
			return Header{}, bad
		}
		if h.Hop = binary.BigEndian.Uint64(f[14]); h.Hop == 0 {
			return Header{}, bad
		}
	}
	ok := fill(h.Mesh[:], f[1], false) && fill(h.SenderMember[:], f[2], false) && fill(h.SenderSession[:], f[3], false) &&
		fill(h.Recipient[:], f[4], true) && fill(h.ID[:], f[6], false) && fill(h.ReplyTo[:], f[11], true) &&
		fill(h.Replaces[:], f[12], true) && len(f[7]) == 8 && len(f[8]) == 8 && len(f[10]) == 8 && len(f[13]) == 8
	if !ok {
		return Header{}, bad
	}
	h.Mode, h.Target, h.Priority = wire.Mode(f[0]), string(f[5]), wire.Priority(f[9])
	h.Sent, h.Expires = int64(binary.BigEndian.Uint64(f[7])), int64(binary.BigEndian.Uint64(f[8]))
	h.Seq, h.Generation = binary.BigEndian.Uint64(f[10]), binary.BigEndian.Uint64(f[13])
	if !h.Mode.Valid() || h.Priority.Rank() < 0 || h.Mode.Direct() == h.Recipient.IsZero() || h.ID.IsZero() {
		return Header{}, bad
	}
	return h, nil
}

// fill copies a field of the right length. One that may be empty stands for
// zero when it is, and only then: a header has one encoding.
func fill(dst, f []byte, mayBeEmpty bool) bool {
	if mayBeEmpty && optional(f) == nil {
		return len(f) == 0
	}
	return copy(dst, f) == len(dst) && len(f) == len(dst)
}

// Content is the body of a message with its type.
type Content struct {
	Type string
	Body []byte
}

// Sender seals: a session's key and its member's word for it (nil when the
// member speaks as itself).
type Sender struct {
	Session     trust.SecretKey
	Attestation *wire.Attestation
}

// Sealed is an envelope as send carries it.
type Sealed struct {
	Nonce      []byte
	Ciphertext []byte
	Wraps      []wire.Wrap
}

func envelopeSignature(header []byte, c Content) []byte {
	h := trust.H("content", []byte(c.Type), c.Body)
	return trust.T("envelope", header, h[:])
}

func inner(kind byte, h *Header, c Content, s Sender) ([]byte, error) {
	if len(c.Body) > wire.MaxBodyBytes {
		return nil, wire.Faultf(wire.CodeTooLarge, fmt.Sprintf("a message holds at most %d bytes", wire.MaxBodyBytes))
	}
	header := h.encode()
	sig := s.Session.Sign(envelopeSignature(header, c))
	b := append(make([]byte, 0, len(header)+len(c.Body)+512), kind)
	for _, f := range [][]byte{header, trust.AttestationBytes(s.Attestation), []byte(c.Type), c.Body, sig[:]} {
		b = trust.AppendLP(b, f)
	}
	return pad(b), nil
}

// Direct seals a message of mode dm or receipt to h.Recipient.
func Direct(h Header, c Content, s Sender, shared *Shared) (Sealed, error) {
	plain, err := inner(kindDirect, &h, c, s)
	if err != nil {
		return Sealed{}, err
	}
	n := newNonce()
	return Sealed{Nonce: n[:], Ciphertext: box.SealAfterPrecomputation(nil, plain, n, (*[32]byte)(shared))}, nil
}

// GroupRecipient is one reader of a group message.
type GroupRecipient struct {
	Key    wire.Key
	Shared *Shared
	Seq    uint64 // the next of (sender session, recipient, priority)
}

// Group seals a message of mode group or broadcast: the body once under a
// fresh key, and that key to each recipient with the hash of the body.
func Group(h Header, c Content, s Sender, to []GroupRecipient) (Sealed, error) {
	h.Recipient, h.Seq = wire.Key{}, 0
	plain, err := inner(kindGroup, &h, c, s)
	if err != nil {
		return Sealed{}, err
	}
	var key [32]byte
	rand.Read(key[:]) // crypto/rand.Read never fails
	n := newNonce()
	out := Sealed{Nonce: n[:], Ciphertext: secretbox.Seal(nil, plain, n, &key)}
	hash := bodyHash(h.ID, out.Nonce, out.Ciphertext)
	for _, r := range to {
		w := append([]byte{kindWrap}, key[:]...)
		w = append(append(w, hash[:]...), trust.U64(r.Seq)...)
		out.Wraps = append(out.Wraps, wire.Wrap{To: r.Key, Box: sealBox(w, r.Shared)})
	}
	return out, nil
}

func bodyHash(id wire.ID, nonce, ciphertext []byte) [32]byte {
	return trust.H("body", id[:], nonce, ciphertext)
}

// Opened is an envelope that opened and whose sender signed it. That the
// sender is a member, and that the message was not seen before, is for the
// caller to check.
type Opened struct {
	Header      Header // Seq filled in from the wrap for group messages
	Attestation *wire.Attestation
	Content     Content
}

// Open opens a push addressed to own. Shared is that of own and the push's
// SenderPubkey. It fails with a *wire.Fault of its own code for each of:
// bad_box, body_hash, bad_padding, bad_envelope, reflected, header_mismatch,
// wrong_mesh, wrong_recipient, bad_attestation, bad_signature, bad_lifetime,
// too_many_hops.
func Open(p *wire.Push, own wire.Key, mesh wire.ID, shared *Shared) (Opened, error) {
	return OpenVouched(p, own, mesh, shared, trust.VerifyAttestation)
}

// Vouch checks a member's word for a session: trust.VerifyAttestation, or a
// memory of what it has verified before, for a signature costs more than all
// the rest of opening.
type Vouch func(mesh wire.ID, member, session wire.Key, a *wire.Attestation) error

// OpenVouched is Open with another way to check the attestation.
func OpenVouched(p *wire.Push, own wire.Key, mesh wire.ID, shared *Shared, vouch Vouch) (Opened, error) {
	plain, seq, err := decrypt(p, shared)
	if err != nil {
		return Opened{}, err
	}
	o, header, sig, err := parseInner(p.Mode, plain)
	if err != nil {
		return Opened{}, err
	}
	h := &o.Header
	if !p.Mode.Direct() {
		h.Seq = seq
	}
	switch {
	case h.SenderSession == own:
		return Opened{}, wire.Faultf(wire.CodeReflected, "")
	case h.Mode != p.Mode || h.ID != p.ID || h.Priority != p.Priority || h.Expires != p.Expires ||
		h.SenderSession != p.SenderPubkey || h.SenderMember != p.SenderMember:
		return Opened{}, wire.Faultf(wire.CodeHeaderMismatch, "")
	case h.Mesh != mesh:
		return Opened{}, wire.Faultf(wire.CodeWrongMesh, "")
	case p.Mode.Direct() && h.Recipient != own:
		return Opened{}, wire.Faultf(wire.CodeWrongRecipient, "")
	}
	if err := vouch(mesh, h.SenderMember, h.SenderSession, o.Attestation); err != nil {
		return Opened{}, err
	}
	if !trust.Verify(h.SenderSession, envelopeSignature(header, o.Content), sig) {
		return Opened{}, wire.Faultf(wire.CodeBadSignature, "envelope")
	}
	switch {
	case h.Sent < 0 || h.Expires <= h.Sent || h.Expires-h.Sent > MaxLifetime:
		return Opened{}, wire.Faultf(wire.CodeBadLifetime, "")
	case h.Hop >= MaxHop:
		return Opened{}, wire.Faultf(wire.CodeTooManyHops, "")
	}
	return o, nil
}

// decrypt opens the box of a direct, or the wrap and then the body of a group message.
func decrypt(p *wire.Push, shared *Shared) (plain []byte, seq uint64, err error) {
	if len(p.Nonce) != nonceSize {
		return nil, 0, wire.Faultf(wire.CodeBadBox, "nonce")
	}
	nonce := (*[nonceSize]byte)(p.Nonce)
	if p.Mode.Direct() {
		plain, ok := box.OpenAfterPrecomputation(nil, p.Ciphertext, nonce, (*[32]byte)(shared))
		if !ok {
			return nil, 0, wire.Faultf(wire.CodeBadBox, "")
		}
		return plain, 0, nil
	}
	w, ok := openBox(p.Wrap, shared)
	if !ok || len(w) != 1+32+32+8 || w[0] != kindWrap {
		return nil, 0, wire.Faultf(wire.CodeBadBox, "wrap")
	}
	if bodyHash(p.ID, p.Nonce, p.Ciphertext) != [32]byte(w[33:65]) {
		return nil, 0, wire.Faultf(wire.CodeBodyHash, "")
	}
	plain, ok = secretbox.Open(nil, p.Ciphertext, nonce, (*[32]byte)(w[1:33]))
	if !ok {
		return nil, 0, wire.Faultf(wire.CodeBadBox, "body")
	}
	return plain, binary.BigEndian.Uint64(w[65:]), nil
}

func parseInner(mode wire.Mode, plain []byte) (o Opened, header []byte, sig wire.Sig, err error) {
	bad := wire.Faultf(wire.CodeBadEnvelope, "")
	kind := byte(kindGroup)
	if mode.Direct() {
		kind = kindDirect
	}
	if len(plain) == 0 || plain[0] != kind {
		return o, nil, sig, bad
	}
	rest, ok := plain[1:], true
	var f [5][]byte
	for i := range f {
		if f[i], rest, ok = trust.CutLP(rest); !ok {
			return o, nil, sig, bad
		}
	}
	if !zeroPadding(rest, len(plain)) {
		return o, nil, sig, wire.Faultf(wire.CodeBadPadding, "")
	}
	if len(f[3]) > wire.MaxBodyBytes || len(f[4]) != len(sig) {
		return o, nil, sig, bad
	}
	if o.Header, err = parseHeader(f[0]); err != nil {
		return o, nil, sig, err
	}
	if o.Attestation, err = trust.ParseAttestation(f[1]); err != nil {
		return o, nil, sig, err
	}
	o.Content = Content{Type: string(f[2]), Body: f[3]}
	return o, f[0], wire.Sig(f[4]), nil
}
