package vectors_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/claudemesh/claudemesh/internal/vectors"
)

// part is how one file of the set is made. Those of libsodium.json were made
// with libsodium and are only read.
type part struct {
	about string
	cases func() []vectors.Case
}

var parts = map[string]part{
	"encoding":   {"Section 1: T and what follows from it by hashing; section 7: padding.", encodingCases},
	"statements": {"Section 3: statements and certificates, each given to a fresh roster of mesh.json.", statements},
	"rosters":    {"Sections 3 and 4: who stands after a list of statements, told to a fresh roster of mesh.json in their order.", rosterCases},
	"links":      {"Section 4: invite links.", linkCases},
	"connect":    {"Section 5: challenge, hello, attestation, card and the answer to a join.", connectCases},
	"envelopes": {"Section 7: whole pushes, opened with the key of readerSeed; mesh is the reader's. Names say who is at work: " +
		"envelope an honest sender, sender and group sender a hostile one, broker a hostile broker, swap a hostile recipient.", envelopeCases},
	"boxes":  {"Sections 4 and 6: mesh keys as invites, boxes and previous carry them, and sealed cards.", boxCases},
	"safety": {"The number by which two members verify each other.", safetyCases},
	"frames": {"Sections 1 and 8: what is a frame and what is none. A text that is no UTF-8 stands as bytes, in base64.", frameCases},
}

// kinds say what a case of each kind holds and what is to be done with it.
var kinds = map[string]string{
	"T":                 "in: ds, fields (hex). out: t = T(ds, fields..), h = H(ds, fields..).",
	"fields":            "in: ds, body. Take body apart as T(ds, ..). out: ds, fields.",
	"padding":           "in: length of a content. out: padded, the length it is padded to.",
	"mesh_id":           "in: key, the owner's. out: id.",
	"invite_id":         "in: key, the invite's. out: id.",
	"invite_keys":       "in: secret of a link. out: seed, key and id of the invite, blobKey.",
	"key_hash":          "in: mesh, generation, key. out: hash = H(mesh-key, ..).",
	"previous_key":      "in: key of a generation. out: key, under which it seals the one before it.",
	"keypair":           "in: seed. out: the ed25519 public key, and both X25519 keys derived from it (the secret one clamped).",
	"key":               "in: key, from outside. out: x25519Public. bad_key: not to be accepted.",
	"signature":         "in: public, message (hex), sig.",
	"box":               "in: sender, recipientSeed, nonce, ciphertext. out: shared (crypto_box_beforenm), plaintext (hex).",
	"secretbox":         "in: key, nonce, ciphertext. out: plaintext (hex).",
	"genesis":           "in: statements, one: a genesis shown for the mesh of mesh.json.",
	"certificate":       "in: statements: a certificate for that roster.",
	"capability":        "in: statements, one: an invite's capability, to be used now.",
	"close":             "in: statements, one: an invite close.",
	"removal":           "in: statements, one.",
	"role":              "in: statements, one.",
	"pause":             "in: statements, one: a pause or a resume.",
	"roster":            "in: events [{kind, statements}], now; anyOrder: their order and repeats change nothing. out: refused, the index of the event that is refused with class; members that stand, with their roles of now; who is gone and why; the generation to seal with; until when messages are paused, 0 for not.",
	"standing":          "in: events, key. Is key a current member's after them?",
	"link":              "in: link. out: broker, brokerKey, owner, secret (hex). Links have no codes: their classes are of this set.",
	"challenge":         "in: pinned, the broker key that the client knows; frame.",
	"hello":             "in: broker, the key of the broker that gets it; frame.",
	"attestation":       "in: mesh, member, session, attestation (absent: none).",
	"attestation_bytes": "in: bytes, an attestation as it stands in an envelope. out: attestation (null: none).",
	"card":              "in: mesh, member, session, card. The signature; the blob is not opened.",
	"joined":            "in: broker, request (the bytes of the body, as text), blob, sig.",
	"push":              "in: readerSeed, mesh, push (a frame). out: the header's bytes, the T that was signed, the content's length before padding, seq (a group message's is its wrap's), hop, attested, contentType, body (base64).",
	"mesh_key":          "in: mesh, under (the secretbox's key), blob. out: generation, key.",
	"mesh_key_box":      "in: mesh, readerSeed, issuer, box. out: generation, key.",
	"card_blob":         "in: key, the mesh key; blob. out: card (JSON).",
	"safety":            "in: mesh, keys of two members. out: safetyNumber, 60 digits.",
	"frame":             "in: text or bytes of one frame. out: its type and reqId (of a refusal the reqId that the error echoes).",
	"message":           "in: text or bytes of a WebSocket message. out: how many frames it holds; they are not decoded.",
}

const meshAbout = "The mesh that the cases play in: owner's, with founder, admin, admin2, alice, bob and carol as members. admin and admin2 came by " +
	"the owner's invite admins, alice by the owner's open, bob and carol by admin's side; alice/1 is a session of alice. Keys follow from the seeds (RFC 8032), " +
	"seeds from SHA-256 of text. secrets holds the secrets of invite links and mesh keys. Whoever is named elsewhere is no member."

func makeMesh() vectors.Mesh {
	m := vectors.Mesh{
		Format: vectors.Format, About: meshAbout, Now: now, MeshID: mesh[:], Genesis: marshal(genesis()),
		Seeds: map[string]vectors.Hex{}, Public: map[string]vectors.Hex{}, Secrets: map[string]vectors.Hex{},
	}
	for _, n := range slices.Concat(everyone, []string{"owner", "other owner", "broker", "mallory", "dave", "session", "alice/1", "bob/1", "carol/1"}) {
		s, p := seed(n), pub(n)
		m.Seeds[n], m.Public[n] = s[:], p[:]
	}
	for _, n := range []string{"admins", "open", "side", "new"} {
		s := secret(n)
		m.Secrets["invite "+n] = s[:]
	}
	for _, n := range []string{"mesh key 1", "mesh key 2", "mesh key 3"} {
		s := seed(n)
		m.Secrets[n] = s[:]
	}
	for _, n := range everyone {
		m.Certificates = append(m.Certificates, marshal(certificates()[n]))
	}
	return m
}

// lay writes a part with a case on each line.
func lay(f vectors.File) []byte {
	var b bytes.Buffer
	b.WriteString("{\n\"format\": " + string(marshal(f.Format)) + ",\n\"about\": " + string(marshal(f.About)) + ",\n\"kinds\": {")
	for i, k := range slices.Sorted(maps.Keys(f.Kinds)) {
		b.WriteString([]string{"", ","}[min(i, 1)] + "\n " + string(marshal(k)) + ": " + string(marshal(f.Kinds[k])))
	}
	b.WriteString("\n},\n\"cases\": [")
	for i, c := range f.Cases {
		b.WriteString([]string{"", ","}[min(i, 1)] + "\n" + string(marshal(c)))
	}
	b.WriteString("\n]\n}\n")
	return b.Bytes()
}

// made is what the code makes of a part. Its makers panic where the code does
// not do what a case is made for.
func made(t *testing.T, p part) (cases []vectors.Case) {
	defer func() {
		if fault := recover(); fault != nil {
			t.Errorf("cannot be made: %v", fault)
		}
	}()
	return p.cases()
}

// TestFrozen holds the files against what the code makes of the same seeds.
func TestFrozen(t *testing.T) {
	same := func(name string, want []byte) {
		file := "testdata/" + name + ".json"
		if *update && !t.Failed() {
			if err := os.WriteFile(file, want, 0o644); err != nil { // testdata
				t.Fatal(err)
			}
		}
		old, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(old, want) {
			t.Errorf("%s differs from what the code makes; what is signed is forever", file)
		}
	}
	var m bytes.Buffer
	if err := json.Indent(&m, marshal(makeMesh()), "", " "); err != nil {
		t.Fatal(err)
	}
	same("mesh", append(m.Bytes(), '\n'))
	for name, p := range parts {
		f := vectors.File{Format: vectors.Format, About: p.about, Kinds: map[string]string{}, Cases: made(t, p)}
		for _, c := range f.Cases {
			f.Kinds[c.Kind] = kinds[c.Kind]
		}
		same(name, lay(f))
	}
}

func TestCases(t *testing.T) {
	for _, c := range all(t) {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			if err := judge(c, verifiers[c.Kind]); err != nil {
				t.Error(err)
			}
		})
	}
}

func all(t *testing.T) []vectors.Case { t.Helper(); return must(stored())(t) }
