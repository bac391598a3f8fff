package seal

import (
	"crypto/rand"
	"testing"

	"golang.org/x/crypto/nacl/secretbox"

	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// TestHostileBroker is claim 2 of the protocol: whatever a broker makes of the
// messages that pass through it, the reader refuses it, and says why. That a
// message is shown twice, or is of no member, the caller notices.
func TestHostileBroker(t *testing.T) {
	t.Parallel()
	dm := header(wire.ModeDM, "alice/1", "bob/1")
	dm2 := dm
	dm2.ID = wire.ID{9}
	receipt := header(wire.ModeReceipt, "alice/1", "bob/1")
	all := header(wire.ModeGroup, "alice/1", "@all")
	all2 := all
	all2.ID = wire.ID{8}
	otherMesh := dm
	otherMesh.Mesh = trust.MeshID(pub("other owner"))
	const box, body, mismatch, envelope = wire.CodeBadBox, wire.CodeBodyHash, wire.CodeHeaderMismatch, wire.CodeBadEnvelope

	toBob := direct(t, dm, text, "alice/1", "bob/1")
	toBob2 := direct(t, dm2, Content{"text/plain", []byte("another")}, "alice/1", "bob/1")
	toCarol := direct(t, header(wire.ModeDM, "alice/1", "carol/1"), text, "alice/1", "carol/1")
	fromBob := direct(t, header(wire.ModeDM, "bob/1", "alice/1"), text, "bob/1", "alice/1")
	seen := direct(t, receipt, text, "alice/1", "bob/1")
	g := group(t, all, text, "alice/1", "bob/1", "carol/1")
	gBob, gCarol := g[0], g[1]
	gBob2 := group(t, all2, Content{"text/plain", []byte("another")}, "alice/1", "bob/1", "carol/1")[0]
	broadcast := group(t, header(wire.ModeBroadcast, "alice/1", "*"), text, "alice/1", "bob/1")[0]

	for _, tt := range []struct {
		name string
		from *wire.Push
		own  string
		edit func(p *wire.Push)
		code wire.Code
	}{
		{"nothing is done to a dm", toBob, "bob/1", func(*wire.Push) {}, ""},
		{"nor to a group message", gBob, "bob/1", func(*wire.Push) {}, ""},
		{"what the broker may say freely", gBob, "bob/1", func(p *wire.Push) {
			p.Delivery, p.CreatedAt, p.MembersVersion, p.To = 99, 1, 1<<40, pub("x")
		}, ""},

		{"reflect a dm", toBob, "alice/1", func(p *wire.Push) { p.SenderPubkey = pub("bob/1") }, wire.CodeReflected},
		{"reflect it relabelled as the peer's", toBob, "alice/1", func(p *wire.Push) { p.SenderPubkey, p.SenderMember = pub("bob/1"), pub("bob") }, wire.CodeReflected},
		{"reflect a dm as one's own", toBob, "alice/1", func(*wire.Push) {}, box},
		{"reflect a group message", gBob, "alice/1", func(p *wire.Push) { p.SenderPubkey, p.SenderMember = pub("bob/1"), pub("bob") }, wire.CodeReflected},

		{"relabel the mode as receipt", toBob, "bob/1", func(p *wire.Push) { p.Mode = wire.ModeReceipt }, mismatch},
		{"relabel a receipt as dm", seen, "bob/1", func(p *wire.Push) { p.Mode = wire.ModeDM }, mismatch},
		{"relabel a dm as group", toBob, "bob/1", func(p *wire.Push) { p.Mode = wire.ModeGroup }, box},
		{"relabel a dm as group, its box as wrap", toBob, "bob/1", func(p *wire.Push) {
			p.Mode, p.Wrap = wire.ModeGroup, append(p.Nonce, p.Ciphertext...)
		}, box},
		{"relabel a group message as dm", gBob, "bob/1", func(p *wire.Push) { p.Mode = wire.ModeDM }, box},
		{"relabel a wrap as dm", gBob, "bob/1", func(p *wire.Push) {
			p.Mode, p.Nonce, p.Ciphertext = wire.ModeDM, p.Wrap[:nonceSize], p.Wrap[nonceSize:]
		}, envelope},
		{"relabel group as broadcast", gBob, "bob/1", func(p *wire.Push) { p.Mode = wire.ModeBroadcast }, mismatch},
		{"relabel broadcast as group", broadcast, "bob/1", func(p *wire.Push) { p.Mode = wire.ModeGroup }, mismatch},
		{"an unknown mode", toBob, "bob/1", func(p *wire.Push) { p.Mode = "" }, box},
		{"relabel the id of a dm", toBob, "bob/1", func(p *wire.Push) { p.ID[0] ^= 1 }, mismatch},
		{"relabel the id of a group message", gBob, "bob/1", func(p *wire.Push) { p.ID[0] ^= 1 }, body},
		{"relabel the priority", toBob, "bob/1", func(p *wire.Push) { p.Priority = wire.PriorityNow }, mismatch},
		{"relabel a group's priority", gBob, "bob/1", func(p *wire.Push) { p.Priority = wire.PriorityLow }, mismatch},
		{"live longer", toBob, "bob/1", func(p *wire.Push) { p.Expires++ }, mismatch},
		{"live shorter", gBob, "bob/1", func(p *wire.Push) { p.Expires-- }, mismatch},
		{"another sender session", toBob, "bob/1", func(p *wire.Push) { p.SenderPubkey = pub("carol/1") }, box},
		{"another sender session of a group", gBob, "bob/1", func(p *wire.Push) { p.SenderPubkey = pub("carol/1") }, box},
		{"another sender member", toBob, "bob/1", func(p *wire.Push) { p.SenderMember = pub("carol") }, mismatch},
		{"another sender member of a group", gBob, "bob/1", func(p *wire.Push) { p.SenderMember = pub("carol") }, mismatch},

		{"splice another dm's box", toBob, "bob/1", func(p *wire.Push) { p.Nonce, p.Ciphertext = toBob2.Nonce, toBob2.Ciphertext }, mismatch},
		{"splice another dm's ciphertext", toBob, "bob/1", func(p *wire.Push) { p.Ciphertext = toBob2.Ciphertext }, box},
		{"splice another dm's nonce", toBob, "bob/1", func(p *wire.Push) { p.Nonce = toBob2.Nonce }, box},
		{"splice one's own dm into the peer's", toBob, "bob/1", func(p *wire.Push) { p.Nonce, p.Ciphertext = fromBob.Nonce, fromBob.Ciphertext }, wire.CodeReflected},
		{"splice a receipt into a dm", toBob, "bob/1", func(p *wire.Push) { p.Nonce, p.Ciphertext = seen.Nonce, seen.Ciphertext }, mismatch},
		{"splice another group body", gBob, "bob/1", func(p *wire.Push) { p.Nonce, p.Ciphertext = gBob2.Nonce, gBob2.Ciphertext }, body},
		{"splice another group body with its id", gBob, "bob/1", func(p *wire.Push) { p.ID, p.Nonce, p.Ciphertext = gBob2.ID, gBob2.Nonce, gBob2.Ciphertext }, body},
		{"splice another message's wrap", gBob, "bob/1", func(p *wire.Push) { p.Wrap = gBob2.Wrap }, body},
		{"splice wrap and body under the old id", gBob, "bob/1", func(p *wire.Push) {
			p.Wrap, p.Nonce, p.Ciphertext = gBob2.Wrap, gBob2.Nonce, gBob2.Ciphertext
		}, body},
		{"splice another recipient's wrap", gBob, "bob/1", func(p *wire.Push) { p.Wrap = gCarol.Wrap }, box},
		{"splice a dm as wrap", gBob, "bob/1", func(p *wire.Push) { p.Wrap = append(wire.Blob(toBob.Nonce), toBob.Ciphertext...) }, box},
		{"no wrap", gBob, "bob/1", func(p *wire.Push) { p.Wrap = nil }, box},
		{"a short wrap", gBob, "bob/1", func(p *wire.Push) { p.Wrap = p.Wrap[:30] }, box},
		{"flip a bit of the wrap", gBob, "bob/1", func(p *wire.Push) { p.Wrap[40] ^= 1 }, box},
		{"flip a bit of a group body", gBob, "bob/1", func(p *wire.Push) { p.Ciphertext[40] ^= 1 }, body},
		{"flip a bit of a dm", toBob, "bob/1", func(p *wire.Push) { p.Ciphertext[40] ^= 1 }, box},
		{"cut a dm", toBob, "bob/1", func(p *wire.Push) { p.Ciphertext = p.Ciphertext[:5] }, box},
		{"empty a dm", toBob, "bob/1", func(p *wire.Push) { p.Ciphertext = nil }, box},
		{"a short nonce", toBob, "bob/1", func(p *wire.Push) { p.Nonce = p.Nonce[1:] }, box},
		{"no nonce", gBob, "bob/1", func(p *wire.Push) { p.Nonce = nil }, box},

		{"swap the recipient of a dm", toCarol, "bob/1", func(p *wire.Push) { p.To = pub("bob/1") }, box},
		{"swap the recipient of a group message", gCarol, "bob/1", func(p *wire.Push) { p.To = pub("bob/1") }, box},
		{"show a bystander a group message", gBob, "dave/1", func(p *wire.Push) { p.To = pub("dave/1") }, box},
		{"a ghost's wrap in the sender's name", gBob, "dave/1", func(p *wire.Push) { p.Wrap = wrapBy(t, "ghost", "dave/1", randomKey(), p) }, box},
		{"a ghost's wrap in its own name", gBob, "dave/1", func(p *wire.Push) {
			p.SenderPubkey, p.SenderMember, p.Wrap = pub("ghost"), pub("ghost"), wrapBy(t, "ghost", "dave/1", randomKey(), p)
		}, box},
		{"a ghost's wrap with the true key", gBob, "dave/1", func(p *wire.Push) {
			p.SenderPubkey, p.SenderMember, p.Wrap = pub("ghost"), pub("ghost"), wrapBy(t, "ghost", "dave/1", keyOf(t, gBob), p)
		}, mismatch},
		{"a ghost session of the member", toBob, "bob/1", func(p *wire.Push) {
			*p = *forged(t, "alice", "ghost", func(h *Header, s *Sender) {})
		}, wire.CodeBadAttestation},
		{"a ghost with another session's attestation", toBob, "bob/1", func(p *wire.Push) {
			*p = *forged(t, "alice", "ghost", func(_ *Header, s *Sender) { a, _ := sender("alice/1"); s.Attestation = a.Attestation })
		}, wire.CodeBadAttestation},
		{"a ghost vouched for by another member", toBob, "bob/1", func(p *wire.Push) {
			*p = *forged(t, "alice", "ghost", func(_ *Header, s *Sender) {
				a := trust.SignAttestation(key("mallory"), mesh, pub("ghost"), now)
				s.Attestation = &a
			})
		}, wire.CodeBadAttestation},
		{"a ghost vouched for in another mesh", toBob, "bob/1", func(p *wire.Push) {
			*p = *forged(t, "alice", "ghost", func(_ *Header, s *Sender) {
				a := trust.SignAttestation(key("alice"), wire.ID{1}, pub("ghost"), now)
				s.Attestation = &a
			})
		}, wire.CodeBadAttestation},
		{"a ghost that claims the member's session", toBob, "bob/1", func(p *wire.Push) {
			*p = *forged(t, "alice", "ghost", func(h *Header, _ *Sender) { h.SenderSession = pub("alice/1") })
			p.SenderPubkey = pub("ghost")
		}, mismatch},
		{"a member of small order", toBob, "bob/1", func(p *wire.Push) {
			*p = *forged(t, "alice", "ghost", func(h *Header, _ *Sender) { h.SenderMember = wire.Key{1} })
			p.SenderMember = wire.Key{1}
		}, wire.CodeBadAttestation},
		{"a sender of small order", toBob, "bob/1", func(p *wire.Push) { p.SenderPubkey = wire.Key{1} }, wire.CodeBadSignature},
		{"a message of another mesh", direct(t, otherMesh, text, "alice/1", "bob/1"), "bob/1", func(*wire.Push) {}, wire.CodeWrongMesh},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := clonePush(tt.from)
			tt.edit(p)
			o, err := openAs(tt.own, p)
			wantCode(t, err, tt.code)
			if err != nil && (o.Content.Body != nil || o.Header != Header{}) {
				t.Error("a refused message has content")
			}
		})
	}
}

func randomKey() (k [32]byte) { rand.Read(k[:]); return k } // never fails

// keyOf opens bob's wrap: what every recipient of a group message knows.
func keyOf(t *testing.T, p *wire.Push) [32]byte {
	t.Helper()
	w, ok := openBox(p.Wrap, shared(t, "bob/1", "alice/1"))
	if !ok {
		t.Fatal("bob's wrap does not open")
	}
	return [32]byte(w[1:33])
}

// wrapBy wraps the body of p for a reader that the sender did not choose.
func wrapBy(t *testing.T, by, to string, k [32]byte, p *wire.Push) []byte {
	t.Helper()
	h := bodyHash(p.ID, p.Nonce, p.Ciphertext)
	w := append(append([]byte{kindWrap}, k[:]...), h[:]...)
	return sealBox(append(w, trust.U64(1)...), shared(t, by, to))
}

// forged is a dm to bob/1 from a session that member never vouched for.
func forged(t *testing.T, member, session string, edit func(h *Header, s *Sender)) *wire.Push {
	t.Helper()
	h, s := header(wire.ModeDM, session, "bob/1"), Sender{Session: key(session)}
	h.SenderMember = pub(member)
	edit(&h, &s)
	out, err := Direct(h, text, s, shared(t, session, "bob/1"))
	if err != nil {
		t.Fatal(err)
	}
	return push(h, out, -1, "bob/1")
}

// A recipient of a group message knows its key K; with the broker's help it
// seals another body under it for the others.
func TestRecipientSwapsBody(t *testing.T) {
	t.Parallel()
	h := header(wire.ModeGroup, "alice/1", "@all")
	ps := group(t, h, text, "alice/1", "bob/1", "carol/1")
	k := keyOf(t, ps[0])
	plain, ok := secretbox.Open(nil, ps[1].Ciphertext, (*[24]byte)(ps[1].Nonce), &k)
	if !ok {
		t.Fatal("the key does not open the body")
	}
	for name, p := range map[string]*wire.Push{"the same body sealed again": clonePush(ps[1]), "its own body": clonePush(ps[1])} {
		t.Run(name, func(t *testing.T) {
			body := plain
			if name == "its own body" {
				mallory, _ := sender("mallory/1")
				body = pad(raw(kindGroup, h.encode(), Content{"text/plain", []byte("rm -rf")}, mallory))
			}
			n := newNonce()
			p.Nonce, p.Ciphertext = n[:], secretbox.Seal(nil, body, n, &k)
			_, err := openAs("carol/1", p)
			wantCode(t, err, wire.CodeBodyHash)
			// Its own wrap to carol is its own message, and the header says whose it is not.
			p.Wrap = wrapBy(t, "bob/1", "carol/1", k, p)
			_, err = openAs("carol/1", p)
			wantCode(t, err, wire.CodeBadBox)
			p.SenderPubkey, p.SenderMember = pub("bob/1"), pub("bob")
			_, err = openAs("carol/1", p)
			wantCode(t, err, wire.CodeHeaderMismatch)
		})
	}
}
