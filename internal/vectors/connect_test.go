package vectors_test

import (
	"bytes"
	"encoding/json"
	"errors"

	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/vectors"
	"github.com/claudemesh/claudemesh/internal/wire"
)

type (
	challengeIn struct {
		Pinned wire.Key        `json:"pinned"` // the broker key that the client knows
		Frame  json.RawMessage `json:"frame"`
	}
	helloIn struct {
		Broker wire.Key        `json:"broker"` // the key of the broker that gets it
		Frame  json.RawMessage `json:"frame"`
	}
	attestationIn struct {
		Mesh        wire.ID           `json:"mesh"`
		Member      wire.Key          `json:"member"`
		Session     wire.Key          `json:"session"`
		Attestation *wire.Attestation `json:"attestation,omitempty"`
	}
	cardIn struct {
		Mesh    wire.ID   `json:"mesh"`
		Member  wire.Key  `json:"member"`
		Session wire.Key  `json:"session"`
		Card    wire.Card `json:"card"`
	}
	joinedIn struct {
		Broker  wire.Key  `json:"broker"`
		Request string    `json:"request"`
		Blob    wire.Blob `json:"blob"`
		Sig     wire.Sig  `json:"sig"`
	}
	bytesIn struct {
		Bytes vectors.Hex `json:"bytes"`
	}
	attestationOut struct {
		Attestation *wire.Attestation `json:"attestation"`
	}
)

func verifyChallenge(in challengeIn) (any, error) {
	f, err := wire.Decode(in.Frame)
	if err != nil {
		return nil, err
	}
	if c, ok := f.(*wire.Challenge); !ok || c.BrokerPubkey != in.Pinned || !trust.VerifyChallenge(in.Pinned, c.Nonce, c.Sig) {
		return nil, wire.Faultf(wire.CodeWrongBroker, "")
	}
	return nil, nil
}

func verifyHello(in helloIn) (any, error) {
	f, err := wire.Decode(in.Frame)
	if err != nil {
		return nil, err
	}
	h, ok := f.(*wire.Hello)
	if !ok {
		return nil, errors.New("no hello")
	}
	return nil, trust.VerifyHello(in.Broker, h)
}

func verifyAttestation(in attestationIn) (any, error) {
	return nil, trust.VerifyAttestation(in.Mesh, in.Member, in.Session, in.Attestation)
}

func verifyAttestationBytes(in bytesIn) (any, error) {
	a, err := trust.ParseAttestation(in.Bytes)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(trust.AttestationBytes(a), in.Bytes) {
		return nil, errors.New("an attestation has two encodings")
	}
	return attestationOut{a}, nil
}

func verifyCard(in cardIn) (any, error) {
	return nil, trust.VerifyCard(in.Mesh, in.Member, in.Session, &in.Card)
}

func verifyJoined(in joinedIn) (any, error) {
	if !trust.VerifyJoined(in.Broker, []byte(in.Request), in.Blob, in.Sig) {
		return nil, wire.Faultf(wire.CodeWrongBroker, "")
	}
	return nil, nil
}

func ptr[T any](v T) *T { return &v }

// helloOf returns a valid hello of alice: of her session, or of herself.
func helloOf(role wire.Role) *wire.Hello {
	h := &wire.Hello{ProtocolVersion: wire.Version, Role: role, MeshID: mesh, Pubkey: pub("alice"), Nonce: seed("nonce")}
	k := key("alice")
	if role == wire.RoleSession {
		k = key("session")
		h.Attestation = ptr(trust.SignAttestation(key("alice"), mesh, k.Public(), now))
	}
	if role != wire.RoleObserver {
		h.Card = &wire.Card{Generation: 1, Seq: 7, Blob: wire.Blob("sealed")}
		trust.SignCard(k, mesh, h.Pubkey, h.Card)
	}
	h.SessionPubkey = k.Public()
	trust.SignHello(k, pub("broker"), h)
	return h
}

func connectCases() []vectors.Case {
	out := helloCases()
	nonce := wire.Nonce32(seed("nonce"))
	challenge := func(name, class string, pinned wire.Key, c wire.Challenge) {
		out = append(out, newCase("challenge", "challenge: "+name, class, challengeIn{pinned, frame(&c)}, nil))
	}
	const wrongBroker, badAttestation, badCard = string(wire.CodeWrongBroker), string(wire.CodeBadAttestation), string(wire.CodeBadCard)
	good := wire.Challenge{V: wire.Version, Nonce: nonce, BrokerPubkey: pub("broker"), Sig: trust.SignChallenge(key("broker"), nonce)}
	other := wire.Challenge{V: wire.Version, Nonce: nonce, BrokerPubkey: pub("mallory"), Sig: trust.SignChallenge(key("mallory"), nonce)}
	challenge("valid", "", pub("broker"), good)
	challenge("another broker's", wrongBroker, pub("broker"), other)
	other.BrokerPubkey = pub("broker")
	challenge("signed by another", wrongBroker, pub("broker"), other)
	renonced := good
	renonced.Nonce[31] ^= 1
	challenge("another nonce", wrongBroker, pub("broker"), renonced)
	challenge("a pinned key of small order", wrongBroker, weak, wire.Challenge{V: wire.Version, Nonce: nonce, BrokerPubkey: weak, Sig: good.Sig})

	attest := func(name, class string, in attestationIn) {
		out = append(out, newCase("attestation", "attestation: "+name, class, in, nil))
	}
	alice, session := pub("alice"), pub("session")
	a := trust.SignAttestation(key("alice"), mesh, session, now)
	late, byBob := a, trust.SignAttestation(key("bob"), mesh, session, now)
	late.Issued++
	attest("valid", "", attestationIn{mesh, alice, session, &a})
	attest("the member speaks for itself", "", attestationIn{mesh, alice, alice, nil})
	attest("none for a session", badAttestation, attestationIn{mesh, alice, session, nil})
	attest("one of the member for itself", badAttestation, attestationIn{mesh, alice, alice, ptr(trust.SignAttestation(key("alice"), mesh, alice, now))})
	attest("another time", badAttestation, attestationIn{mesh, alice, session, &late})
	attest("another mesh", badAttestation, attestationIn{trust.MeshID(pub("other owner")), alice, session, &a})
	attest("another session", badAttestation, attestationIn{mesh, alice, pub("bob/1"), &a})
	attest("another member", badAttestation, attestationIn{mesh, pub("bob"), session, &a})
	attest("by another member", badAttestation, attestationIn{mesh, alice, session, &byBob})
	attest("a member of small order", badAttestation, attestationIn{mesh, weak, session, &a})
	attest("a session of small order", badAttestation, attestationIn{mesh, alice, weak, ptr(trust.SignAttestation(key("alice"), mesh, weak, now))})

	raw := trust.AttestationBytes(&a)
	shape := func(name, class string, b []byte, yields any) {
		out = append(out, newCase("attestation_bytes", "attestation bytes: "+name, class, bytesIn{b}, yields))
	}
	shape("valid", "", raw, attestationOut{&a})
	shape("nothing", "", nil, attestationOut{})
	shape("a byte short", badAttestation, raw[1:], nil)
	shape("a byte more", badAttestation, append(bytes.Clone(raw), 0), nil)
	shape("a byte", badAttestation, []byte{0}, nil)
	shape("a time beyond all time", badAttestation, append([]byte{0x80 | raw[0]}, raw[1:]...), nil)

	card := func(name, class string, in cardIn) {
		out = append(out, newCase("card", "card: "+name, class, in, nil))
	}
	c := *helloOf(wire.RoleSession).Card
	newer, forged := c, c
	newer.Seq++
	forged.Blob = flip(c.Blob, 0)
	card("valid", "", cardIn{mesh, alice, session, c})
	card("another seq", badCard, cardIn{mesh, alice, session, newer})
	card("another blob", badCard, cardIn{mesh, alice, session, forged})
	card("another mesh", badCard, cardIn{wire.ID{1}, alice, session, c})
	card("another member", badCard, cardIn{mesh, pub("bob"), session, c})
	card("another session", badCard, cardIn{mesh, alice, pub("bob/1"), c})
	card("a session of small order", badCard, cardIn{mesh, alice, weak, c})

	joined := func(name, class string, in joinedIn) {
		out = append(out, newCase("joined", "joined: "+name, class, in, nil))
	}
	j := joinedIn{pub("broker"), "request", wire.Blob("blob"), trust.SignJoined(key("broker"), []byte("request"), []byte("blob"))}
	joined("valid", "", j)
	joined("another broker", wrongBroker, joinedIn{pub("mallory"), j.Request, j.Blob, j.Sig})
	joined("another request", wrongBroker, joinedIn{j.Broker, "other", j.Blob, j.Sig})
	joined("another blob", wrongBroker, joinedIn{j.Broker, j.Request, wire.Blob("blob2"), j.Sig})
	joined("a challenge's signature", wrongBroker, joinedIn{j.Broker, j.Request, j.Blob, good.Sig})
	joined("a broker of small order", wrongBroker, joinedIn{weak, j.Request, j.Blob, j.Sig})
	return out
}

func helloCases() (out []vectors.Case) {
	const sig, form, att, card = wire.CodeBadSignature, wire.CodeBadFrame, wire.CodeBadAttestation, wire.CodeBadCard
	broker := pub("broker")
	add := func(name string, code wire.Code, h *wire.Hello) {
		out = append(out, newCase("hello", "hello: "+name, string(code), helloIn{broker, frame(h)}, nil))
	}
	article := map[wire.Role]string{wire.RoleSession: "a session", wire.RolePerson: "a person", wire.RoleObserver: "an observer"}
	for _, role := range []wire.Role{wire.RoleSession, wire.RolePerson, wire.RoleObserver} {
		add("of "+article[role], "", helloOf(role))
	}
	for _, tt := range []struct {
		name string
		role wire.Role
		edit func(h *wire.Hello)
		code wire.Code
	}{
		{"version", wire.RoleSession, func(h *wire.Hello) { h.ProtocolVersion++ }, sig},
		{"an unknown role", wire.RoleSession, func(h *wire.Hello) { h.Role = "admin" }, form},
		{"no role", wire.RolePerson, func(h *wire.Hello) { h.Role = "" }, form},
		{"person as observer", wire.RolePerson, func(h *wire.Hello) { h.Role = wire.RoleObserver }, sig},
		{"observer as person", wire.RoleObserver, func(h *wire.Hello) { h.Role = wire.RolePerson }, sig},
		{"session as person", wire.RoleSession, func(h *wire.Hello) { h.Role = wire.RolePerson }, form},
		{"mesh of a session", wire.RoleSession, func(h *wire.Hello) { h.MeshID[0] ^= 1 }, att},
		{"mesh of a person", wire.RolePerson, func(h *wire.Hello) { h.MeshID[0] ^= 1 }, sig},
		{"member of a session", wire.RoleSession, func(h *wire.Hello) { h.Pubkey = pub("bob") }, att},
		{"member and session of a person", wire.RolePerson, func(h *wire.Hello) { h.Pubkey, h.SessionPubkey = pub("bob"), pub("bob") }, sig},
		{"member off the curve", wire.RoleSession, func(h *wire.Hello) { h.Pubkey = wire.Key{2} }, sig},
		{"session", wire.RoleSession, func(h *wire.Hello) { h.SessionPubkey = pub("bob") }, att},
		{"session of small order", wire.RoleSession, func(h *wire.Hello) { h.SessionPubkey = wire.Key{1} }, att},
		{"nonce", wire.RoleSession, func(h *wire.Hello) { h.Nonce[31] ^= 1 }, sig},
		{"signature", wire.RoleSession, func(h *wire.Hello) { h.Sig[0] ^= 1 }, sig},
		{"no signature", wire.RoleSession, func(h *wire.Hello) { h.Sig = wire.Sig{} }, sig},
		{"attestation's time", wire.RoleSession, func(h *wire.Hello) { h.Attestation.Issued++ }, att},
		{"attestation's signature", wire.RoleSession, func(h *wire.Hello) { h.Attestation.Sig[0] ^= 1 }, att},
		{"another valid attestation", wire.RoleSession, func(h *wire.Hello) {
			h.Attestation = ptr(trust.SignAttestation(key("alice"), mesh, pub("session"), now+1))
		}, sig},
		{"card's generation", wire.RoleSession, func(h *wire.Hello) { h.Card.Generation++ }, card},
		{"card's seq", wire.RoleSession, func(h *wire.Hello) { h.Card.Seq++ }, card},
		{"card's blob", wire.RoleSession, func(h *wire.Hello) { h.Card.Blob[0] ^= 1 }, card},
		{"card's signature", wire.RolePerson, func(h *wire.Hello) { h.Card.Sig[0] ^= 1 }, card},
		{"another session's card", wire.RoleSession, func(h *wire.Hello) { trust.SignCard(key("bob"), mesh, h.Pubkey, h.Card) }, card},
		{"a card of another mesh", wire.RoleSession, func(h *wire.Hello) { trust.SignCard(key("session"), wire.ID{1}, h.Pubkey, h.Card) }, card},
		{"a card that names another member", wire.RoleSession, func(h *wire.Hello) { trust.SignCard(key("session"), mesh, pub("bob"), h.Card) }, card},
		{"a session without attestation", wire.RoleSession, func(h *wire.Hello) { h.Attestation = nil; trust.SignHello(key("session"), broker, h) }, att},
		{"a session without card", wire.RoleSession, func(h *wire.Hello) { h.Card = nil }, card},
		{"a session with the member key", wire.RoleSession, func(h *wire.Hello) {
			h.SessionPubkey = h.Pubkey
			h.Attestation = ptr(trust.SignAttestation(key("alice"), mesh, h.Pubkey, now))
			trust.SignCard(key("alice"), mesh, h.Pubkey, h.Card)
			trust.SignHello(key("alice"), broker, h)
		}, form},
		{"an observer with a session key", wire.RoleSession, func(h *wire.Hello) { h.Role = wire.RoleObserver; trust.SignHello(key("session"), broker, h) }, form},
		{"a person with an attestation", wire.RolePerson, func(h *wire.Hello) {
			h.Attestation = ptr(trust.SignAttestation(key("alice"), mesh, h.Pubkey, now))
			trust.SignHello(key("alice"), broker, h)
		}, att},
		{"signed by the member", wire.RoleSession, func(h *wire.Hello) { trust.SignHello(key("alice"), broker, h) }, sig},
		{"signed for another broker", wire.RoleSession, func(h *wire.Hello) { trust.SignHello(key("session"), pub("mallory"), h) }, sig},
		{"the attestation by another member", wire.RoleSession, func(h *wire.Hello) {
			h.Attestation = ptr(trust.SignAttestation(key("bob"), mesh, pub("session"), now))
			trust.SignHello(key("session"), broker, h)
		}, att},
	} {
		h := helloOf(tt.role)
		tt.edit(h)
		add(tt.name, tt.code, h)
	}
	return out
}
