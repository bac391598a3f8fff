package seal

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"golang.org/x/crypto/nacl/box"
	"golang.org/x/crypto/nacl/secretbox"

	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/vectors"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// published is a push of the published set, which package vectors makes.
type published struct {
	vectors.Case
	push   *wire.Push
	reader trust.SecretKey
}

// pushes returns the pushes whose names have one of the prefixes.
func pushes(t testing.TB, prefixes ...string) (out []published) {
	t.Helper()
	f, err := vectors.Read("envelopes")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range f.Cases {
		for _, prefix := range prefixes {
			if strings.HasPrefix(c.Name, prefix) {
				out = append(out, read(t, c))
			}
		}
	}
	if len(out) == 0 {
		t.Fatalf("no push is named %q", prefixes)
	}
	return out
}

func read(t testing.TB, c vectors.Case) published {
	t.Helper()
	var in struct {
		ReaderSeed vectors.Hex
		Mesh       wire.ID
		Push       json.RawMessage
	}
	if err := json.Unmarshal(c.In, &in); err != nil {
		t.Fatal(c.Name, err)
	}
	p, err := wire.Decode(in.Push)
	if err != nil || in.Mesh != mesh {
		t.Fatal(c.Name, err)
	}
	return published{c, p.(*wire.Push), trust.SecretKeyFromSeed([32]byte(in.ReaderSeed))}
}

func (p published) open() (Opened, *Shared, error) {
	sh, err := NewShared(p.reader, p.push.SenderPubkey)
	if err != nil {
		return Opened{}, nil, wire.Faultf(wire.CodeBadBox, "sender key") // as clients do
	}
	o, err := Open(p.push, p.reader.Public(), mesh, sh)
	return o, sh, err
}

func checkRefusals(t *testing.T, cases []published) {
	t.Helper()
	for _, p := range cases {
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			o, _, err := p.open()
			wantCode(t, err, wire.Code(p.Class))
			if err != nil && (o.Content.Body != nil || o.Header != Header{}) {
				t.Error("a refused message has content")
			}
		})
	}
}

// TestHostileBroker is claim 2 of the protocol: whatever a broker makes of the
// messages that pass through it, the reader refuses it, and says why. That a
// message is shown twice, or is of no member, the caller notices.
func TestHostileBroker(t *testing.T) { t.Parallel(); checkRefusals(t, pushes(t, "broker: ")) }

// TestRecipientSwapsBody: a recipient of a group message knows its key; with the
// broker's help it seals another body under it for the others.
func TestRecipientSwapsBody(t *testing.T) { t.Parallel(); checkRefusals(t, pushes(t, "swap: ")) }

// TestHostileSender: what a peer's own broken or hostile client may seal, each
// refused by name.
func TestHostileSender(t *testing.T) {
	t.Parallel()
	checkRefusals(t, pushes(t, "sender: ", "group sender: ", "wrap: "))
}

// TestFrozen: what was opened is sealed again into the same bytes before padding.
func TestFrozen(t *testing.T) {
	t.Parallel()
	for _, p := range pushes(t, "envelope: ") {
		o, sh, err := p.open()
		if err != nil {
			t.Fatal(p.Name, err)
		}
		plain, kind := []byte(nil), byte(kindDirect)
		if p.push.Mode.Direct() {
			plain, _ = box.OpenAfterPrecomputation(nil, p.push.Ciphertext, (*[nonceSize]byte)(p.push.Nonce), (*[32]byte)(sh))
		} else {
			o.Header.Seq, kind = 0, kindGroup // the wrap has it
			w, _ := openBox(p.push.Wrap, sh)
			plain, _ = secretbox.Open(nil, p.push.Ciphertext, (*[nonceSize]byte)(p.push.Nonce), (*[32]byte)(w[1:33]))
		}
		from := "alice"
		if o.Attestation != nil {
			from = "alice/1"
		}
		again, err := inner(kind, &o.Header, o.Content, Sender{key(from), o.Attestation})
		if err != nil || !bytes.Equal(again, plain) {
			t.Errorf("%s: %v; is sealed again as %x, was %x", p.Name, err, again, plain)
		}
	}
}
