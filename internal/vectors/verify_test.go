package vectors_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/crypto/nacl/box"
	"golang.org/x/crypto/nacl/secretbox"

	"github.com/claudemesh/claudemesh/internal/seal"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/vectors"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// verifier is this implementation's answer to the cases of a kind.
type verifier func(in json.RawMessage) (out any, err error)

// judge says what is wrong with a verifier's answer to a case.
func judge(c vectors.Case, verify verifier) error {
	out, err := verify(c.In)
	if got := codeOf(err); got != c.Class {
		return fmt.Errorf("fails with %q (%v), want %q", got, err, c.Class)
	}
	if out == nil && c.Out == nil {
		return nil
	}
	if got := marshal(out); !bytes.Equal(got, c.Out) {
		return fmt.Errorf("yields %s, want %s", got, c.Out)
	}
	return nil
}

// on reads a case's input for a verifier.
func on[T any](verify func(in T) (any, error)) verifier {
	return func(raw json.RawMessage) (any, error) {
		var in T
		if err := json.Unmarshal(raw, &in); err != nil {
			return nil, err
		}
		return verify(in)
	}
}

var verifiers = map[string]verifier{
	"T":            on(verifyT),
	"fields":       on(verifyFields),
	"padding":      on(func(in paddingIn) (any, error) { return paddingOut{seal.Padded(in.Length)}, nil }),
	"mesh_id":      on(func(in keyIn) (any, error) { return idOut{trust.MeshID(in.Key)}, nil }),
	"invite_id":    on(func(in keyIn) (any, error) { return idOut{trust.InviteID(in.Key)}, nil }),
	"invite_keys":  on(verifyInviteKeys),
	"key_hash":     on(verifyKeyHash),
	"previous_key": on(verifyPreviousKey),

	"keypair":   on(verifyKeypair),
	"key":       on(verifyKey),
	"signature": on(verifySignature),
	"box":       on(verifyBox),
	"secretbox": on(verifySecretbox),

	"genesis":     onStatement(func(_ *trust.Roster, s wire.Signed) error { _, err := trust.NewRoster(pub("owner"), s); return err }),
	"capability":  onStatement(func(r *trust.Roster, s wire.Signed) error { _, err := r.VerifyCapability(s); return err }),
	"close":       onStatement(func(r *trust.Roster, s wire.Signed) error { _, err := r.AddClose(s); return err }),
	"removal":     onStatement(func(r *trust.Roster, s wire.Signed) error { _, err := r.AddRemoval(s); return err }),
	"role":        onStatement(func(r *trust.Roster, s wire.Signed) error { _, err := r.AddRole(s); return err }),
	"pause":       onStatement(func(r *trust.Roster, s wire.Signed) error { _, err := r.AddPause(s); return err }),
	"certificate": on(func(in statementsIn) (any, error) { _, err := newRoster().Add(in.Statements); return nil, err }),
	"roster":      on(verifyRoster),
	"standing":    on(verifyStanding),

	"link":              on(verifyLink),
	"challenge":         on(verifyChallenge),
	"hello":             on(verifyHello),
	"attestation":       on(verifyAttestation),
	"attestation_bytes": on(verifyAttestationBytes),
	"card":              on(verifyCard),
	"joined":            on(verifyJoined),

	"push":         on(verifyPush),
	"mesh_key":     on(verifyMeshKey),
	"mesh_key_box": on(verifyMeshKeyBox),
	"card_blob":    on(verifyCardBlob),
	"safety":       on(verifySafety),
	"frame":        on(verifyFrame),
	"message":      on(verifyMessage),
}

func onStatement(verify func(r *trust.Roster, s wire.Signed) error) verifier {
	return on(func(in statementsIn) (any, error) { return nil, verify(newRoster(), in.Statements[0]) })
}

// newRoster is the mesh of everyone.
func newRoster() *trust.Roster {
	r, err := trust.NewRoster(pub("owner"), genesis())
	for _, n := range everyone {
		if err == nil {
			_, err = r.Add(certificates()[n])
		}
	}
	if err != nil {
		panic(err) // the mesh of the cases is a valid one
	}
	return r
}

type tIn struct {
	DS     string        `json:"ds"`
	Fields []vectors.Hex `json:"fields"`
}

type tOut struct {
	T vectors.Hex `json:"t"`
	H vectors.Hex `json:"h"`
}

func verifyT(in tIn) (any, error) {
	var f [][]byte
	for _, x := range in.Fields {
		f = append(f, x)
	}
	h := trust.H(in.DS, f...)
	return tOut{trust.T(in.DS, f...), h[:]}, nil
}

type fieldsIn struct {
	DS   string      `json:"ds"`
	Body vectors.Hex `json:"body"`
}

func verifyFields(in fieldsIn) (any, error) {
	f, err := trust.Fields(in.DS, in.Body)
	if err != nil {
		return nil, err
	}
	out := tIn{DS: in.DS, Fields: []vectors.Hex{}}
	for _, x := range f {
		out.Fields = append(out.Fields, x)
	}
	return out, nil
}

type (
	paddingIn struct {
		Length int `json:"length"`
	}
	paddingOut struct {
		Padded int `json:"padded"`
	}
	keyIn struct {
		Key wire.Key `json:"key"`
	}
	idOut struct {
		ID wire.ID `json:"id"`
	}
	secretIn struct {
		Secret vectors.Hex `json:"secret"`
	}
	inviteOut struct {
		Seed    vectors.Hex `json:"seed"`
		Key     wire.Key    `json:"key"`
		ID      wire.ID     `json:"id"`
		BlobKey vectors.Hex `json:"blobKey"`
	}
	meshKeyIn struct {
		Mesh       wire.ID     `json:"mesh"`
		Generation uint64      `json:"generation"`
		Key        vectors.Hex `json:"key"`
	}
	hashOut struct {
		Hash vectors.Hex `json:"hash"`
	}
	keyOut struct {
		Key vectors.Hex `json:"key"`
	}
)

func verifyInviteKeys(in secretIn) (any, error) {
	s := trust.Secret(in.Secret)
	k, b := s.InviteKey(), s.BlobKey()
	sd := k.Seed()
	return inviteOut{sd[:], k.Public(), trust.InviteID(k.Public()), b[:]}, nil
}

func verifyKeyHash(in meshKeyIn) (any, error) {
	h := trust.KeyHash(in.Mesh, in.Generation, [32]byte(in.Key))
	return hashOut{h[:]}, nil
}

func verifyPreviousKey(in keyOut) (any, error) {
	p := trust.PreviousKey([32]byte(in.Key))
	return keyOut{p[:]}, nil
}

type (
	seedIn struct {
		Seed vectors.Hex `json:"seed"`
	}
	keypairOut struct {
		Public  wire.Key    `json:"public"`
		XPublic vectors.Hex `json:"x25519Public"`
		XSecret vectors.Hex `json:"x25519Secret"`
	}
	xOut struct {
		XPublic vectors.Hex `json:"x25519Public"`
	}
	signatureIn struct {
		Public  wire.Key    `json:"public"`
		Message vectors.Hex `json:"message"`
		Sig     wire.Sig    `json:"sig"`
	}
	boxIn struct {
		Sender     wire.Key    `json:"sender"`
		Recipient  vectors.Hex `json:"recipientSeed"`
		Nonce      vectors.Hex `json:"nonce"`
		Ciphertext vectors.Hex `json:"ciphertext"`
	}
	boxOut struct {
		Shared    vectors.Hex `json:"shared"`
		Plaintext vectors.Hex `json:"plaintext"`
	}
	secretboxIn struct {
		Key        vectors.Hex `json:"key"`
		Nonce      vectors.Hex `json:"nonce"`
		Ciphertext vectors.Hex `json:"ciphertext"`
	}
	plainOut struct {
		Plaintext vectors.Hex `json:"plaintext"`
	}
)

func verifyKeypair(in seedIn) (any, error) {
	k := trust.SecretKeyFromSeed([32]byte(in.Seed))
	x, err := trust.Montgomery(k.Public())
	s := k.Scalar()
	return keypairOut{k.Public(), x[:], s[:]}, err
}

func verifyKey(in keyIn) (any, error) {
	x, err := trust.Montgomery(in.Key)
	if err != nil || trust.CheckKey(in.Key) != nil {
		return nil, badKey
	}
	return xOut{x[:]}, nil
}

func verifySignature(in signatureIn) (any, error) {
	if trust.CheckKey(in.Public) != nil || !trust.Verify(in.Public, in.Message, in.Sig) {
		return nil, wire.Faultf(wire.CodeBadSignature, "")
	}
	return nil, nil
}

func verifyBox(in boxIn) (any, error) {
	own := trust.SecretKeyFromSeed([32]byte(in.Recipient))
	k, err := seal.NewShared(own, in.Sender)
	if err != nil {
		return nil, wire.Faultf(wire.CodeBadBox, "sender key")
	}
	plain, ok := box.OpenAfterPrecomputation(nil, in.Ciphertext, (*[24]byte)(in.Nonce), (*[32]byte)(k))
	p := &wire.Push{Mode: wire.ModeDM, Nonce: wire.Blob(in.Nonce), Ciphertext: wire.Blob(in.Ciphertext)}
	_, opened := seal.Open(p, own.Public(), mesh, k)
	if ok == (codeOf(opened) == string(wire.CodeBadBox)) {
		return nil, errors.New("the box opens in one way and not in the other")
	}
	if !ok {
		return nil, wire.Faultf(wire.CodeBadBox, "")
	}
	return boxOut{k[:], plain}, nil
}

func verifySecretbox(in secretboxIn) (any, error) {
	plain, ok := secretbox.Open(nil, in.Ciphertext, (*[24]byte)(in.Nonce), (*[32]byte)(in.Key))
	if !ok {
		return nil, wire.Faultf(wire.CodeBadBox, "")
	}
	return plainOut{plain}, nil
}

// linkClasses are what the refusals of links, which are sentences, say.
var linkClasses = map[class]string{
	"link_form": "starts with", "link_secret": "lost the part", "link_damaged": "is damaged (not", "link_version": "another version",
	"link_key": "bad key", "link_broker": "names no ws", "link_too_long": "too long",
}

type (
	linkIn struct {
		Link string `json:"link"`
	}
	linkOut struct {
		Broker    string      `json:"broker"`
		BrokerKey wire.Key    `json:"brokerKey"`
		Owner     wire.Key    `json:"owner"`
		Secret    vectors.Hex `json:"secret"`
	}
)

func verifyLink(in linkIn) (any, error) {
	l, err := trust.ParseLink(in.Link)
	if s := secret("open"); err != nil && strings.Contains(err.Error(), base64.StdEncoding.EncodeToString(s[:9])) {
		return nil, errors.New("the error tells the secret")
	}
	for c, text := range linkClasses {
		if err != nil && strings.Contains(err.Error(), text) {
			return nil, c
		}
	}
	return linkOut{l.Broker, l.BrokerKey, l.Owner, l.Secret[:]}, err
}

type frameIn struct {
	Text  string    `json:"text,omitempty"`
	Bytes wire.Blob `json:"bytes,omitempty"` // what is no UTF-8
}

func (in frameIn) raw() []byte {
	if in.Bytes != nil {
		return in.Bytes
	}
	return []byte(in.Text)
}

type reqOut struct {
	Type  wire.Type `json:"type,omitempty"`
	ReqID string    `json:"reqId,omitempty"`
}

func verifyFrame(in frameIn) (any, error) {
	f, err := wire.Decode(in.raw())
	var d *wire.DecodeError
	if errors.As(err, &d) {
		return reqOut{ReqID: d.ReqID}, err
	}
	out := reqOut{Type: f.Type()}
	if r, ok := f.(wire.Request); ok {
		out.ReqID = r.RequestID()
	}
	return out, nil
}

type messageOut struct {
	Frames int `json:"frames"`
}

func verifyMessage(in frameIn) (any, error) {
	raws, err := wire.Split(in.raw())
	if err != nil {
		return nil, wire.Faultf(wire.CodeBadFrame, err.Error())
	}
	return messageOut{len(raws)}, nil
}

// the set as it stands in the files, read once.
var stored = sync.OnceValues(vectors.All)
