package vectors_test

import (
	"strings"

	"golang.org/x/crypto/nacl/box"
	"golang.org/x/crypto/nacl/secretbox"

	"github.com/claudemesh/claudemesh/internal/seal"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// Sealing by hand after docs/protocol.md, section 7, with nonces and keys that
// follow from names: package seal draws its own, and seals nothing hostile.

const (
	kindDirect = 0x00
	kindWrap   = 0x01
	kindGroup  = 0x02
)

var (
	msgID = wire.ID{1, 2, 3}
	text  = seal.Content{Type: "text/plain", Body: []byte("hello, peer")}
)

func nonce(label string) *[24]byte {
	h := sum("claudemesh nonce " + label)
	return (*[24]byte)(h[:24])
}

func shared(own, peer string) *[32]byte {
	k, err := seal.NewShared(key(own), pub(peer))
	if err != nil {
		panic(err) // every named key is a good one
	}
	return (*[32]byte)(k)
}

// sender is a session of a member that is named like it: "alice/1" of "alice".
// A name without a slash is the member itself.
func sender(name string) (s seal.Sender, member string) {
	member, _, ok := strings.Cut(name, "/")
	if !ok {
		return seal.Sender{Session: key(name)}, name
	}
	return seal.Sender{Session: key(name), Attestation: ptr(trust.SignAttestation(key(member), mesh, pub(name), now))}, member
}

func header(mode wire.Mode, from, to string) seal.Header {
	_, member := sender(from)
	h := seal.Header{
		Mode: mode, Mesh: mesh, SenderMember: pub(member), SenderSession: pub(from), Target: to, ID: msgID,
		Sent: now, Expires: now + 60_000, Priority: wire.PriorityNext, Generation: 3,
	}
	if mode.Direct() {
		h.Recipient, h.Seq = pub(to), 9
	}
	return h
}

// headerFields are the fields of a header in their order.
func headerFields(h seal.Header) [][]byte {
	optional := func(b []byte) []byte {
		if strings.Trim(string(b), "\x00") == "" {
			return nil
		}
		return b
	}
	f := [][]byte{[]byte(h.Mode), h.Mesh[:], h.SenderMember[:], h.SenderSession[:], optional(h.Recipient[:]), []byte(h.Target), h.ID[:],
		trust.U64(uint64(h.Sent)), trust.U64(uint64(h.Expires)), []byte(h.Priority), trust.U64(h.Seq), optional(h.ReplyTo[:]),
		optional(h.Replaces[:]), trust.U64(h.Generation)}
	if h.Hop > 0 {
		f = append(f, trust.U64(h.Hop))
	}
	return f
}

func encode(h seal.Header) []byte { return trust.T("header", headerFields(h)...) }

// envelopeT is what the session signs.
func envelopeT(header []byte, c seal.Content) []byte {
	hash := trust.H("content", []byte(c.Type), c.Body)
	return trust.T("envelope", header, hash[:])
}

// inner is an envelope's content before padding.
func inner(kind byte, header []byte, c seal.Content, s seal.Sender) []byte {
	sig := s.Session.Sign(envelopeT(header, c))
	b := []byte{kind}
	for _, f := range [][]byte{header, trust.AttestationBytes(s.Attestation), []byte(c.Type), c.Body, sig[:]} {
		b = trust.AppendLP(b, f)
	}
	return b
}

func pad(b []byte) []byte { return append(b, make([]byte, seal.Padded(len(b))-len(b))...) }

// sealBox is nonce then ciphertext.
func sealBox(label string, plain []byte, from, to string) wire.Blob {
	n := nonce(label)
	return box.SealAfterPrecomputation(n[:], plain, n, shared(from, to))
}

func sealSecret(label string, plain []byte, k [32]byte) wire.Blob {
	n := nonce(label)
	return secretbox.Seal(n[:], plain, n, &k)
}

// delivery is the push that an honest broker makes of sealed bytes.
func delivery(h seal.Header, sealed wire.Blob, to string) *wire.Push {
	return &wire.Push{
		Delivery: 1, ID: h.ID, Mode: h.Mode, To: pub(to), SenderPubkey: h.SenderSession, SenderMember: h.SenderMember,
		Priority: h.Priority, Expires: h.Expires, Nonce: sealed[:24], Ciphertext: sealed[24:], CreatedAt: now,
	}
}

// direct seals content in h as from does and returns its delivery.
func direct(label string, h seal.Header, c seal.Content, from, to string) *wire.Push {
	s, _ := sender(from)
	return delivery(h, sealBox(label, pad(inner(kindDirect, encode(h), c, s)), from, to), to)
}

// plain is any content, sealed from alice/1 to bob/1.
func plain(label string, content []byte) *wire.Push {
	return delivery(header(wire.ModeDM, "alice/1", "bob/1"), sealBox(label, content, "alice/1", "bob/1"), "bob/1")
}

func groupKey(label string) [32]byte { return seed("group key " + label) }

// wrap is the box of a group message's key to one reader; hash names the body.
func wrap(label string, k [32]byte, p *wire.Push, seq uint64, from, to string) wire.Blob {
	h := trust.H("body", p.ID[:], p.Nonce, p.Ciphertext)
	w := append(append(append([]byte{kindWrap}, k[:]...), h[:]...), trust.U64(seq)...)
	return sealBox(label+" to "+to, w, from, to)
}

// group seals content to all and returns a delivery for each, with seq 20 and on.
func group(label string, h seal.Header, c seal.Content, from string, to ...string) (out []*wire.Push) {
	s, _ := sender(from)
	h.Recipient, h.Seq = wire.Key{}, 0
	return groupOf(label, h, pad(inner(kindGroup, encode(h), c, s)), from, to...)
}

// groupOf is group for any content.
func groupOf(label string, h seal.Header, content []byte, from string, to ...string) (out []*wire.Push) {
	k := groupKey(label)
	sealed := sealSecret(label, content, k)
	for i, n := range to {
		p := delivery(h, sealed, n)
		p.Wrap = wrap(label, k, p, uint64(20+i), from, n)
		out = append(out, p)
	}
	return out
}
