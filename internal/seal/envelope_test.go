package seal

import (
	"bytes"
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
