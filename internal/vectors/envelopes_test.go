package vectors_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"slices"

	"github.com/claudemesh/claudemesh/internal/seal"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/vectors"
	"github.com/claudemesh/claudemesh/internal/wire"
)

type (
	pushIn struct {
		Reader vectors.Hex     `json:"readerSeed"` // of the key that reads
		Mesh   wire.ID         `json:"mesh"`
		Push   json.RawMessage `json:"push"`
	}
	pushOut struct {
		Header      vectors.Hex `json:"header"`      // its bytes
		Signed      vectors.Hex `json:"signed"`      // the T that the session signs
		Inner       int         `json:"innerLength"` // before padding
		Seq         uint64      `json:"seq"`         // of the wrap for a group message
		Hop         uint64      `json:"hop"`
		Attested    bool        `json:"attested"` // false: the member speaks for itself
		ContentType string      `json:"contentType"`
		Body        wire.Blob   `json:"body"`
	}
)

func verifyPush(in pushIn) (any, error) {
	f, err := wire.Decode(in.Push)
	if err != nil {
		return nil, err
	}
	p, ok := f.(*wire.Push)
	if !ok {
		return nil, errors.New("no push")
	}
	own := trust.SecretKeyFromSeed([32]byte(in.Reader))
	sh, err := seal.NewShared(own, p.SenderPubkey)
	if err != nil {
		return nil, wire.Faultf(wire.CodeBadBox, "sender key")
	}
	o, err := seal.Open(p, own.Public(), in.Mesh, sh)
	if err != nil {
		if o.Content.Body != nil || o.Header != (seal.Header{}) {
			return nil, errors.New("a refused message has content")
		}
		return nil, err
	}
	signed := o.Header
	if !p.Mode.Direct() {
		signed.Seq = 0
	}
	enc := encode(signed)
	n := len(inner(0, enc, o.Content, seal.Sender{Session: own, Attestation: o.Attestation}))
	return pushOut{enc, envelopeT(enc, o.Content), n, o.Header.Seq, o.Header.Hop, o.Attestation != nil, o.Content.Type, o.Content.Body}, nil
}

// pushed is the case of a push; what a valid one yields is asked of the code
// once, and frozen in the file.
func pushed(name, class, own string, p *wire.Push) vectors.Case {
	s := seed(own)
	in := pushIn{s[:], mesh, frame(p)}
	var yields any
	if class == "" {
		var err error
		if yields, err = verifyPush(in); err != nil {
			panic(name + ": " + err.Error())
		}
	}
	return newCase("push", name, class, in, yields)
}

func clonePush(p *wire.Push) *wire.Push {
	c := *p
	c.Nonce, c.Ciphertext, c.Wrap = slices.Clone(p.Nonce), slices.Clone(p.Ciphertext), slices.Clone(p.Wrap)
	return &c
}

func envelopeCases() []vectors.Case {
	return slices.Concat(honestCases(), senderCases(), groupSenderCases(), brokerCases(), swapCases())
}

// honestCases are what an honest sender seals and an honest broker brings.
func honestCases() (out []vectors.Case) {
	dm := func(name string, edit func(h *seal.Header)) {
		h := header(wire.ModeDM, "alice/1", "bob/1")
		edit(&h)
		out = append(out, pushed("envelope: "+name, "", "bob/1", direct(name, h, text, "alice/1", "bob/1")))
	}
	sized := func(name string, body []byte) {
		p := direct(name, header(wire.ModeDM, "alice/1", "bob/1"), seal.Content{Type: "text/plain", Body: body}, "alice/1", "bob/1")
		out = append(out, pushed("envelope: "+name, "", "bob/1", p))
	}
	dm("dm", func(*seal.Header) {})
	dm("dm with priority now", func(h *seal.Header) { h.Priority = wire.PriorityNow })
	dm("dm with priority low", func(h *seal.Header) { h.Priority = wire.PriorityLow })
	dm("dm that answers", func(h *seal.Header) { h.ReplyTo = wire.ID{4} })
	dm("dm that replaces", func(h *seal.Header) { h.Replaces = wire.ID{5} })
	dm("dm that answers and replaces", func(h *seal.Header) { h.ReplyTo, h.Replaces, h.Priority = wire.ID{4}, wire.ID{5}, wire.PriorityNow })
	dm("dm without target", func(h *seal.Header) { h.Target = "" })
	dm("dm of hop 1", func(h *seal.Header) { h.Hop, h.ReplyTo = 1, wire.ID{4} })
	dm("dm of hop 7", func(h *seal.Header) { h.Hop = 7 })
	dm("dm of 30 days", func(h *seal.Header) { h.Expires = h.Sent + seal.MaxLifetime })
	sized("dm without body", nil)
	h := header(wire.ModeDM, "alice/1", "bob/1")
	s, _ := sender("alice/1")
	empty := len(inner(kindDirect, encode(h), seal.Content{Type: "text/plain"}, s))
	sized("dm that fills 512 bytes", bytes.Repeat([]byte("a"), 512-empty))
	sized("dm a byte above 512", bytes.Repeat([]byte("a"), 513-empty))
	sized("dm beyond ASCII", []byte("grüß dich, 同行 👋"))
	out = append(out,
		pushed("envelope: dm of a member", "", "bob", direct("dm of a member", header(wire.ModeDM, "alice", "bob"), text, "alice", "bob")),
		pushed("envelope: dm of a session to a member", "", "bob", direct("dm to a member", header(wire.ModeDM, "alice/1", "bob"), text, "alice/1", "bob")))
	receipt := seal.Content{Type: "application/claudemesh-receipt",
		Body: []byte(`{"state":"read","recipient":"` + pub("alice/1").String() + `","ids":["` + msgID.String() + `"]}`)}
	rh := header(wire.ModeReceipt, "alice/1", "bob/1")
	rh.Seq, rh.Priority = 0, wire.PriorityLow
	out = append(out, pushed("envelope: receipt", "", "bob/1", direct("receipt", rh, receipt, "alice/1", "bob/1")))
	g := group("group", header(wire.ModeGroup, "alice/1", "@all"), text, "alice/1", "bob/1", "carol/1")
	hopped := header(wire.ModeGroup, "alice/1", "@all")
	hopped.Hop = 3
	return append(out,
		pushed("envelope: group, first", "", "bob/1", g[0]),
		pushed("envelope: group, second", "", "carol/1", g[1]),
		pushed("envelope: group of hop 3", "", "bob/1", group("group of hop 3", hopped, text, "alice/1", "bob/1")[0]),
		pushed("envelope: broadcast", "", "bob/1", group("broadcast", header(wire.ModeBroadcast, "alice/1", "*"), text, "alice/1", "bob/1")[0]),
		pushed("envelope: broadcast to a member", "", "bob", group("to a member", header(wire.ModeBroadcast, "alice/1", "*"), text, "alice/1", "bob")[0]))
}

// senderCases are what a peer's own broken or hostile client may seal.
func senderCases() (out []vectors.Case) {
	alice, _ := sender("alice/1")
	h := header(wire.ModeDM, "alice/1", "bob/1")
	good := inner(kindDirect, encode(h), text, alice)
	edit := func(f func(h *seal.Header)) []byte {
		x := h
		f(&x)
		return pad(inner(kindDirect, encode(x), text, alice))
	}
	withHeader := func(b []byte) []byte { return pad(inner(kindDirect, b, text, alice)) }
	fields := func(edit func(f [][]byte) [][]byte) []byte {
		return withHeader(trust.T("header", edit(headerFields(h))...))
	}
	set := func(i int, v []byte) func(f [][]byte) [][]byte {
		return func(f [][]byte) [][]byte { f[i] = v; return f }
	}
	more := func(v []byte) func(f [][]byte) [][]byte { return func(f [][]byte) [][]byte { return append(f, v) } }
	dirty := pad(slices.Clone(good))
	dirty[len(dirty)-1] = 1
	dirtyStart := pad(slices.Clone(good))
	dirtyStart[len(good)] = 1
	unsigned := flip(good, -1)
	old, member := alice, alice
	old.Attestation, member.Attestation = &wire.Attestation{Issued: now, Sig: wire.Sig{1}}, nil
	attested := trust.AttestationBytes(alice.Attestation)
	parts := func(attestation, sig []byte) []byte {
		b := []byte{kindDirect}
		for _, f := range [][]byte{encode(h), attestation, []byte(text.Type), text.Body, sig} {
			b = trust.AppendLP(b, f)
		}
		return pad(b)
	}
	const envelope, padding, lifetime = wire.CodeBadEnvelope, wire.CodeBadPadding, wire.CodeBadLifetime
	for _, tt := range []struct {
		name  string
		plain []byte
		code  wire.Code
	}{
		{"nothing", nil, envelope},
		{"only zeros", make([]byte, 256), envelope},
		{"kind of a group", append([]byte{kindGroup}, pad(slices.Clone(good))[1:]...), envelope},
		{"kind of a wrap", append([]byte{kindWrap}, pad(slices.Clone(good))[1:]...), envelope},
		{"cut short", good[:len(good)-1], envelope},
		{"the last pad byte is not zero", dirty, padding},
		{"the first pad byte is not zero", dirtyStart, padding},
		{"no padding", good, padding},
		{"padded twice", append(pad(slices.Clone(good)), make([]byte, 64)...), padding},
		{"a padding step too many", append(pad(slices.Clone(good)), make([]byte, seal.Padded(seal.Padded(len(good))+1)-seal.Padded(len(good)))...), padding},
		{"signature damaged", pad(unsigned), wire.CodeBadSignature},
		{"signed by the member", pad(inner(kindDirect, encode(h), text, seal.Sender{Session: key("alice"), Attestation: alice.Attestation})), wire.CodeBadSignature},
		{"attestation forged", pad(inner(kindDirect, encode(h), text, old)), wire.CodeBadAttestation},
		{"no attestation", pad(inner(kindDirect, encode(h), text, member)), wire.CodeBadAttestation},
		{"another mesh", edit(func(h *seal.Header) { h.Mesh[0] ^= 1 }), wire.CodeWrongMesh},
		{"another recipient", edit(func(h *seal.Header) { h.Recipient = pub("carol/1") }), wire.CodeWrongRecipient},
		{"another member", edit(func(h *seal.Header) { h.SenderMember = pub("mallory") }), wire.CodeHeaderMismatch},
		{"no lifetime", edit(func(h *seal.Header) { h.Sent = h.Expires }), lifetime},
		{"expires before it is sent", edit(func(h *seal.Header) { h.Sent = h.Expires + 1 }), lifetime},
		{"31 days", edit(func(h *seal.Header) { h.Sent = h.Expires - seal.MaxLifetime - 1 }), lifetime},
		{"exactly 30 days", edit(func(h *seal.Header) { h.Sent = h.Expires - seal.MaxLifetime }), ""},
		{"sent before 1970", edit(func(h *seal.Header) { h.Sent = -1 }), lifetime},
		{"sent at the end of time", edit(func(h *seal.Header) { h.Sent = math.MinInt64 }), lifetime},
		{"a header of another domain", withHeader(trust.T("heading", []byte("dm"))), envelope},
		{"an empty header", withHeader(nil), envelope},
		{"a header with a field more", fields(func(f [][]byte) [][]byte { return append(f, nil) }), envelope},
		{"a header with a field less", fields(func(f [][]byte) [][]byte { return f[:13] }), envelope},
		{"an unknown mode", fields(set(0, []byte("shout"))), envelope},
		{"an unknown priority", fields(set(9, []byte("urgent"))), envelope},
		{"a dm without recipient", fields(set(4, nil)), envelope},
		{"a recipient of zeros", fields(set(4, make([]byte, 32))), envelope},
		{"a short mesh", fields(set(1, mesh[1:])), envelope},
		{"no id", fields(set(6, nil)), envelope},
		{"a short id", fields(set(6, msgID[1:])), envelope},
		{"a long reply", fields(set(11, make([]byte, 17))), envelope},
		{"a reply of zeros", fields(set(11, make([]byte, 16))), envelope},
		{"replaces zeros", fields(set(12, make([]byte, 16))), envelope},
		{"a time of 4 bytes", fields(set(7, make([]byte, 4))), envelope},
		{"a seq of 9 bytes", fields(set(10, make([]byte, 9))), envelope},
		{"an attestation a byte short", parts(attested[1:], make([]byte, 64)), wire.CodeBadAttestation},
		{"a signature a byte short", parts(attested, make([]byte, 63)), envelope},
		{"hop 0 written out", fields(more(trust.U64(0))), envelope},
		{"a hop of 7 bytes", fields(more(trust.U64(1)[1:])), envelope},
		{"a hop and a field more", fields(func(f [][]byte) [][]byte { return append(f, trust.U64(1), trust.U64(1)) }), envelope},
		{"hop 8", edit(func(h *seal.Header) { h.Hop = 8 }), wire.CodeTooManyHops},
		{"hop 2^63", edit(func(h *seal.Header) { h.Hop = 1 << 63 }), wire.CodeTooManyHops},
		{"hop 8 and no lifetime", edit(func(h *seal.Header) { h.Hop, h.Sent = 8, h.Expires }), lifetime},
		{"a group's mode in a dm", edit(func(h *seal.Header) { h.Mode, h.Recipient = wire.ModeGroup, wire.Key{} }), wire.CodeHeaderMismatch},
		{"a group with a recipient", fields(set(0, []byte("group"))), envelope},
		{"another id than the frame's", edit(func(h *seal.Header) { h.ID[0] ^= 1 }), wire.CodeHeaderMismatch},
		{"another priority than the frame's", edit(func(h *seal.Header) { h.Priority = wire.PriorityNow }), wire.CodeHeaderMismatch},
		{"another expiry than the frame's", edit(func(h *seal.Header) { h.Expires++ }), wire.CodeHeaderMismatch},
		{"another session than the frame's", edit(func(h *seal.Header) { h.SenderSession = pub("carol/1") }), wire.CodeHeaderMismatch},
		{"the reader's own session as sender", edit(func(h *seal.Header) { h.SenderSession = pub("bob/1") }), wire.CodeReflected},
	} {
		out = append(out, pushed("sender: "+tt.name, string(tt.code), "bob/1", plain("sender "+tt.name, tt.plain)))
	}
	tooLong := seal.Content{Type: "text/plain", Body: make([]byte, wire.MaxBodyBytes+1)}
	return append(out, pushed("sender: a body above 32 KiB", string(envelope), "bob/1", plain("too long", pad(inner(kindDirect, encode(h), tooLong, alice)))))
}

// groupSenderCases are what a hostile sender of a group message may seal.
func groupSenderCases() (out []vectors.Case) {
	h, alice := header(wire.ModeGroup, "alice/1", "@all"), func() seal.Sender { s, _ := sender("alice/1"); return s }()
	add := func(name string, code wire.Code, content []byte) {
		out = append(out, pushed("group sender: "+name, string(code), "bob/1", groupOf("group sender "+name, h, content, "alice/1", "bob/1")[0]))
	}
	edited := func(edit func(h *seal.Header)) []byte {
		x := h
		edit(&x)
		return pad(inner(kindGroup, encode(x), text, alice))
	}
	good := inner(kindGroup, encode(h), text, alice)
	add("kind of a dm", wire.CodeBadEnvelope, append([]byte{kindDirect}, pad(slices.Clone(good))[1:]...))
	add("nothing", wire.CodeBadEnvelope, nil)
	add("no padding", wire.CodeBadPadding, good)
	add("signature damaged", wire.CodeBadSignature, pad(flip(good, -1)))
	add("another mesh", wire.CodeWrongMesh, edited(func(h *seal.Header) { h.Mesh[0] ^= 1 }))
	add("broadcast", wire.CodeHeaderMismatch, edited(func(h *seal.Header) { h.Mode = wire.ModeBroadcast }))
	add("no attestation", wire.CodeBadAttestation, pad(inner(kindGroup, encode(h), text, seal.Sender{Session: key("alice/1")})))
	add("no lifetime", wire.CodeBadLifetime, edited(func(h *seal.Header) { h.Sent = h.Expires }))
	add("hop 8", wire.CodeTooManyHops, edited(func(h *seal.Header) { h.Hop = 8 }))
	k := groupKey("wraps")
	sealed := delivery(h, sealSecret("wraps", pad(slices.Clone(good)), k), "bob/1")
	hash := trust.H("body", sealed.ID[:], sealed.Nonce, sealed.Ciphertext)
	w := slices.Concat([]byte{kindWrap}, k[:], hash[:], trust.U64(20))
	wrapped := func(name string, code wire.Code, wrap []byte) {
		p := clonePush(sealed)
		p.Wrap = sealBox("wrap "+name, wrap, "alice/1", "bob/1")
		out = append(out, pushed("wrap: "+name, string(code), "bob/1", p))
	}
	wrapped("valid", "", w)
	wrapped("of another kind", wire.CodeBadBox, append([]byte{kindGroup}, w[1:]...))
	wrapped("a byte short", wire.CodeBadBox, w[:72])
	wrapped("a byte more", wire.CodeBadBox, append(slices.Clone(w), 0))
	wrapped("empty", wire.CodeBadBox, nil)
	wrapped("another body's hash", wire.CodeBodyHash, flip(w, 33))
	wrapped("a key that does not open the body", wire.CodeBadBox, flip(w, 1))
	return out
}
