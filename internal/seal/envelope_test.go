package seal

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
	"pgregory.net/rapid"
)

func TestPadded(t *testing.T) {
	t.Parallel()
	for _, tt := range [][2]int{
		{0, 256}, {1, 256}, {256, 256}, {257, 512}, {512, 512}, {513, 576}, {576, 576}, {577, 640}, {1024, 1024}, {1025, 1152},
		{2048, 2048}, {2049, 2304}, {32768, 32768}, {32769, 36864}, {65536, 65536}, {65537, 73728},
	} {
		if got := Padded(tt[0]); got != tt[1] {
			t.Errorf("Padded(%d) = %d, want %d", tt[0], got, tt[1])
		}
	}
	for n := range 70_000 {
		if p := Padded(n); p < n || Padded(p) != p || (n > 512 && p-n > n/8+1) {
			t.Fatalf("Padded(%d) = %d", n, p)
		}
	}
}

// sizes are bodies whose inner plaintext ends around each padding step.
func sizes() []int {
	h := header(wire.ModeDM, "alice/1", "bob/1")
	s, _ := sender("alice/1")
	fixed := 1 + 5*4 + len(h.encode()) + len(trust.AttestationBytes(s.Attestation)) + len(text.Type) + 64
	out := []int{0, 1, wire.MaxBodyBytes - 1, wire.MaxBodyBytes}
	for n := Padded(fixed); n < wire.MaxBodyBytes; n = Padded(n + 1) {
		for d := -1; d <= 1; d++ {
			if b := n - fixed + d; b >= 0 {
				out = append(out, b)
			}
		}
	}
	return out
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, n := range sizes() {
		c := Content{"text/plain", bytes.Repeat([]byte{7}, n)}
		for _, mode := range []wire.Mode{wire.ModeDM, wire.ModeReceipt} {
			h := header(mode, "alice/1", "bob/1")
			p := direct(t, h, c, "alice/1", "bob/1")
			checkOpened(t, p, h, c, "bob/1")
			if l := len(p.Ciphertext) - overhead; Padded(l) != l {
				t.Errorf("%d bytes are sealed as %d", n, l)
			}
		}
		for _, mode := range []wire.Mode{wire.ModeGroup, wire.ModeBroadcast} {
			h := header(mode, "alice/1", "@all")
			for i, p := range group(t, h, c, "alice/1", "bob/1", "carol/1") {
				h.Seq = uint64(20 + i)
				checkOpened(t, p, h, c, []string{"bob/1", "carol/1"}[i])
			}
		}
	}
	h := header(wire.ModeDM, "alice", "bob") // members as themselves
	checkOpened(t, direct(t, h, text, "alice", "bob"), h, text, "bob")
	h.ReplyTo, h.Replaces, h.Target = wire.ID{4}, wire.ID{5}, ""
	checkOpened(t, direct(t, h, text, "alice", "bob"), h, text, "bob")
}

func checkOpened(t *testing.T, p *wire.Push, h Header, c Content, own string) {
	t.Helper()
	o, err := openAs(own, p)
	if err != nil {
		t.Fatal(err)
	}
	if o.Header != h || o.Content.Type != c.Type || !bytes.Equal(o.Content.Body, c.Body) {
		t.Errorf("opened %+v, sealed %+v", o.Header, h)
	}
	if (o.Attestation == nil) != (h.SenderMember == h.SenderSession) {
		t.Errorf("attestation %v", o.Attestation)
	}
}

func TestTooLarge(t *testing.T) {
	t.Parallel()
	s, _ := sender("alice/1")
	c := Content{"text/plain", make([]byte, wire.MaxBodyBytes+1)}
	_, err := Direct(header(wire.ModeDM, "alice/1", "bob/1"), c, s, shared(t, "alice/1", "bob/1"))
	wantCode(t, err, wire.CodeTooLarge)
	_, err = Group(header(wire.ModeGroup, "alice/1", "*"), c, s, nil)
	wantCode(t, err, wire.CodeTooLarge)
	// A sender that seals it all the same is refused.
	h := header(wire.ModeDM, "alice/1", "bob/1")
	_, err = openAs("bob/1", seal(t, h, pad(raw(kindDirect, h.encode(), c, s))))
	wantCode(t, err, wire.CodeBadEnvelope)
}

// raw is inner without its checks and padding.
func raw(kind byte, header []byte, c Content, s Sender) []byte {
	sig := s.Session.Sign(envelopeSignature(header, c))
	b := []byte{kind}
	for _, f := range [][]byte{header, trust.AttestationBytes(s.Attestation), []byte(c.Type), c.Body, sig[:]} {
		b = trust.AppendLP(b, f)
	}
	return b
}

// seal boxes any plaintext from alice/1 to bob/1.
func seal(t testing.TB, h Header, plain []byte) *wire.Push {
	t.Helper()
	b := sealBox(plain, shared(t, "alice/1", "bob/1"))
	return push(h, Sealed{Nonce: b[:nonceSize], Ciphertext: b[nonceSize:]}, -1, "bob/1")
}

// What a peer's own broken or hostile client may seal, each refused by name.
func TestHostileSender(t *testing.T) {
	t.Parallel()
	alice, _ := sender("alice/1")
	h := header(wire.ModeDM, "alice/1", "bob/1")
	good := raw(kindDirect, h.encode(), text, alice)
	edit := func(f func(h *Header)) []byte {
		x := h
		f(&x)
		return pad(raw(kindDirect, x.encode(), text, alice))
	}
	withHeader := func(b []byte) []byte { return pad(raw(kindDirect, b, text, alice)) }
	fields := func(edit func(f [][]byte) [][]byte) []byte {
		f, err := trust.Fields("header", h.encode())
		if err != nil {
			t.Fatal(err)
		}
		return withHeader(trust.T("header", edit(f)...))
	}
	set := func(i int, v []byte) func(f [][]byte) [][]byte {
		return func(f [][]byte) [][]byte { f[i] = v; return f }
	}
	dirty := pad(slices.Clone(good))
	dirty[len(dirty)-1] = 1
	dirtyStart := pad(slices.Clone(good))
	dirtyStart[len(good)] = 1
	unsigned := slices.Clone(good)
	unsigned[len(unsigned)-1] ^= 1
	old, _ := sender("alice/1")
	old.Attestation = &wire.Attestation{Issued: now, Sig: wire.Sig{1}}
	member, _ := sender("alice/1")
	member.Attestation = nil
	const envelope, padding, lifetime = wire.CodeBadEnvelope, wire.CodeBadPadding, wire.CodeBadLifetime
	for _, tt := range []struct {
		name  string
		plain []byte
		code  wire.Code
	}{
		{"good", pad(slices.Clone(good)), ""},
		{"nothing", nil, envelope},
		{"only zeros", make([]byte, 256), envelope},
		{"kind of a group", append([]byte{kindGroup}, pad(slices.Clone(good))[1:]...), envelope},
		{"kind of a wrap", append([]byte{kindWrap}, pad(slices.Clone(good))[1:]...), envelope},
		{"cut short", good[:len(good)-1], envelope},
		{"the last pad byte is not zero", dirty, padding},
		{"the first pad byte is not zero", dirtyStart, padding},
		{"no padding", good, padding},
		{"padded twice", append(pad(slices.Clone(good)), make([]byte, 64)...), padding},
		{"a padding step too many", append(pad(slices.Clone(good)), make([]byte, Padded(Padded(len(good))+1)-Padded(len(good)))...), padding},
		{"signature damaged", pad(unsigned), wire.CodeBadSignature},
		{"signed by the member", pad(raw(kindDirect, h.encode(), text, Sender{key("alice"), alice.Attestation})), wire.CodeBadSignature},
		{"attestation forged", pad(raw(kindDirect, h.encode(), text, old)), wire.CodeBadAttestation},
		{"no attestation", pad(raw(kindDirect, h.encode(), text, member)), wire.CodeBadAttestation},
		{"another mesh", edit(func(h *Header) { h.Mesh[0] ^= 1 }), wire.CodeWrongMesh},
		{"another recipient", edit(func(h *Header) { h.Recipient = pub("carol/1") }), wire.CodeWrongRecipient},
		{"another member", edit(func(h *Header) { h.SenderMember = pub("mallory") }), wire.CodeHeaderMismatch},
		{"no lifetime", edit(func(h *Header) { h.Sent = h.Expires }), lifetime},
		{"expires before it is sent", edit(func(h *Header) { h.Sent = h.Expires + 1 }), lifetime},
		{"31 days", edit(func(h *Header) { h.Sent = h.Expires - MaxLifetime - 1 }), lifetime},
		{"exactly 30 days", edit(func(h *Header) { h.Sent = h.Expires - MaxLifetime }), ""},
		{"sent before 1970", edit(func(h *Header) { h.Sent = -1 }), lifetime},
		{"sent at the end of time", edit(func(h *Header) { h.Sent = math.MinInt64 }), lifetime},
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
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := openAs("bob/1", seal(t, h, tt.plain))
			wantCode(t, err, tt.code)
		})
	}
}

func TestHeaderRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		id := func(what string) wire.ID { return wire.ID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(rt, what)) }
		h := header(rapid.SampledFrom([]wire.Mode{wire.ModeDM, wire.ModeGroup, wire.ModeBroadcast, wire.ModeReceipt}).Draw(rt, "mode"), "alice/1", "bob/1")
		h.ID, h.Target, h.Generation = id("id"), rapid.String().Draw(rt, "target"), rapid.Uint64().Draw(rt, "generation")
		h.ID[0] |= 1
		h.Priority = rapid.SampledFrom(wire.Priorities[:]).Draw(rt, "priority")
		h.Sent, h.Expires = rapid.Int64().Draw(rt, "sent"), rapid.Int64().Draw(rt, "expires")
		if rapid.Bool().Draw(rt, "reply") {
			h.ReplyTo, h.Replaces = id("replyTo"), id("replaces")
		}
		got, err := parseHeader(h.encode())
		if err != nil || got != h {
			rt.Fatalf("%+v, %v", got, err)
		}
	})
	h := header(wire.ModeGroup, "alice/1", "*")
	if strings.Count(string(h.encode()), "\x00\x00\x00\x00\x00\x00\x00\x01*") != 1 {
		t.Error("the recipient of a group message is not empty")
	}
}
