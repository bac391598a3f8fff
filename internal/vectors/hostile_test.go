package vectors_test

import (
	"golang.org/x/crypto/nacl/secretbox"

	"github.com/claudemesh/claudemesh/internal/seal"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/vectors"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// brokerCases are whatever a broker makes of the messages that pass through it.
func brokerCases() (out []vectors.Case) {
	dm := header(wire.ModeDM, "alice/1", "bob/1")
	dm2 := dm
	dm2.ID = wire.ID{9}
	receipt := header(wire.ModeReceipt, "alice/1", "bob/1")
	all := header(wire.ModeGroup, "alice/1", "@all")
	all2 := all
	all2.ID = wire.ID{8}
	otherMesh := dm
	otherMesh.Mesh = trust.MeshID(pub("other owner"))
	another := seal.Content{Type: "text/plain", Body: []byte("another")}
	const box, body, mismatch, envelope = wire.CodeBadBox, wire.CodeBodyHash, wire.CodeHeaderMismatch, wire.CodeBadEnvelope

	toBob := direct("dm", dm, text, "alice/1", "bob/1")
	toBob2 := direct("dm 2", dm2, another, "alice/1", "bob/1")
	toCarol := direct("to carol", header(wire.ModeDM, "alice/1", "carol/1"), text, "alice/1", "carol/1")
	fromBob := direct("from bob", header(wire.ModeDM, "bob/1", "alice/1"), text, "bob/1", "alice/1")
	seen := direct("seen", receipt, text, "alice/1", "bob/1")
	g := group("group", all, text, "alice/1", "bob/1", "carol/1")
	gBob, gCarol := g[0], g[1]
	gBob2 := group("group 2", all2, another, "alice/1", "bob/1", "carol/1")[0]
	broadcast := group("broadcast", header(wire.ModeBroadcast, "alice/1", "*"), text, "alice/1", "bob/1")[0]

	for _, tt := range []struct {
		name string
		from *wire.Push
		own  string
		edit func(p *wire.Push)
		code wire.Code
	}{
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
			p.Mode, p.Nonce, p.Ciphertext = wire.ModeDM, p.Wrap[:24], p.Wrap[24:]
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
		{"a ghost's wrap in the sender's name", gBob, "dave/1", func(p *wire.Push) { p.Wrap = wrapBy("ghost", "dave/1", seed("random"), p) }, box},
		{"a ghost's wrap in its own name", gBob, "dave/1", func(p *wire.Push) {
			p.SenderPubkey, p.SenderMember, p.Wrap = pub("ghost"), pub("ghost"), wrapBy("ghost", "dave/1", seed("random"), p)
		}, box},
		{"a ghost's wrap with the true key", gBob, "dave/1", func(p *wire.Push) {
			p.SenderPubkey, p.SenderMember, p.Wrap = pub("ghost"), pub("ghost"), wrapBy("ghost", "dave/1", groupKey("group"), p)
		}, mismatch},
		{"a ghost session of the member", toBob, "bob/1", func(p *wire.Push) {
			*p = *forged("alice", "ghost", func(h *seal.Header, s *seal.Sender) {})
		}, wire.CodeBadAttestation},
		{"a ghost with another session's attestation", toBob, "bob/1", func(p *wire.Push) {
			*p = *forged("alice", "ghost", func(_ *seal.Header, s *seal.Sender) { a, _ := sender("alice/1"); s.Attestation = a.Attestation })
		}, wire.CodeBadAttestation},
		{"a ghost vouched for by another member", toBob, "bob/1", func(p *wire.Push) {
			*p = *forged("alice", "ghost", func(_ *seal.Header, s *seal.Sender) {
				a := trust.SignAttestation(key("mallory"), mesh, pub("ghost"), now)
				s.Attestation = &a
			})
		}, wire.CodeBadAttestation},
		{"a ghost vouched for in another mesh", toBob, "bob/1", func(p *wire.Push) {
			*p = *forged("alice", "ghost", func(_ *seal.Header, s *seal.Sender) {
				a := trust.SignAttestation(key("alice"), wire.ID{1}, pub("ghost"), now)
				s.Attestation = &a
			})
		}, wire.CodeBadAttestation},
		{"a ghost that claims the member's session", toBob, "bob/1", func(p *wire.Push) {
			*p = *forged("alice", "ghost", func(h *seal.Header, _ *seal.Sender) { h.SenderSession = pub("alice/1") })
			p.SenderPubkey = pub("ghost")
		}, mismatch},
		{"a member of small order", toBob, "bob/1", func(p *wire.Push) {
			*p = *forged("alice", "ghost", func(h *seal.Header, _ *seal.Sender) { h.SenderMember = weak })
			p.SenderMember = weak
		}, wire.CodeBadAttestation},
		{"a sender of small order", toBob, "bob/1", func(p *wire.Push) { p.SenderPubkey = weak }, box},
		{"a message of another mesh", direct("another mesh", otherMesh, text, "alice/1", "bob/1"), "bob/1", func(*wire.Push) {}, wire.CodeWrongMesh},
	} {
		p := clonePush(tt.from)
		tt.edit(p)
		out = append(out, pushed("broker: "+tt.name, string(tt.code), tt.own, p))
	}
	return out
}

// wrapBy wraps the body of p for a reader that the sender did not choose.
func wrapBy(by, to string, k [32]byte, p *wire.Push) wire.Blob {
	return wrap("by "+by, k, p, 1, by, to)
}

// forged is a dm to bob/1 from a session that member never vouched for.
func forged(member, session string, edit func(h *seal.Header, s *seal.Sender)) *wire.Push {
	h, s := header(wire.ModeDM, session, "bob/1"), seal.Sender{Session: key(session)}
	h.SenderMember = pub(member)
	edit(&h, &s)
	return delivery(h, sealBox("forged", pad(inner(kindDirect, encode(h), text, s)), session, "bob/1"), "bob/1")
}

// swapCases: a recipient of a group message knows its key; with the broker's
// help it seals another body under it for the others.
func swapCases() (out []vectors.Case) {
	h := header(wire.ModeGroup, "alice/1", "@all")
	theirs := group("group", h, text, "alice/1", "bob/1", "carol/1")[1]
	k := groupKey("group")
	same, ok := secretbox.Open(nil, theirs.Ciphertext, (*[24]byte)(theirs.Nonce), &k)
	if !ok {
		panic("the key does not open the body")
	}
	mallory, _ := sender("mallory/1")
	own := pad(inner(kindGroup, encode(h), seal.Content{Type: "text/plain", Body: []byte("rm -rf")}, mallory))
	for name, body := range map[string][]byte{"the same body sealed again": same, "its own body": own} {
		p := clonePush(theirs)
		sealed := sealSecret("swap "+name, body, k)
		p.Nonce, p.Ciphertext = sealed[:24], sealed[24:]
		out = append(out, pushed("swap: "+name, string(wire.CodeBodyHash), "carol/1", p))
		p.Wrap = wrapBy("bob/1", "carol/1", k, p)
		out = append(out, pushed("swap: "+name+", its own wrap", string(wire.CodeBadBox), "carol/1", p))
		p.SenderPubkey, p.SenderMember = pub("bob/1"), pub("bob")
		out = append(out, pushed("swap: "+name+", its own wrap and name", string(wire.CodeHeaderMismatch), "carol/1", p))
	}
	return sorted(out)
}
