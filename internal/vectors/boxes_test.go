package vectors_test

import (
	"encoding/json"

	"github.com/claudemesh/claudemesh/internal/seal"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/vectors"
	"github.com/claudemesh/claudemesh/internal/wire"
)

type (
	meshKeySealed struct {
		Mesh  wire.ID     `json:"mesh"`
		Under vectors.Hex `json:"under"` // the key of the secretbox
		Blob  wire.Blob   `json:"blob"`
	}
	meshKeyBoxed struct {
		Mesh   wire.ID     `json:"mesh"`
		Reader vectors.Hex `json:"readerSeed"`
		Issuer wire.Key    `json:"issuer"`
		Box    wire.Blob   `json:"box"`
	}
	meshKeyOut struct {
		Generation uint64      `json:"generation"`
		Key        vectors.Hex `json:"key"`
	}
	cardBlobIn struct {
		Key  vectors.Hex `json:"key"` // the mesh key
		Blob wire.Blob   `json:"blob"`
	}
	cardBlobOut struct {
		Card json.RawMessage `json:"card"`
	}
)

func verifyMeshKey(in meshKeySealed) (any, error) {
	k, err := seal.OpenMeshKey(in.Mesh, in.Blob, [32]byte(in.Under))
	if err != nil {
		return nil, err
	}
	return meshKeyOut{k.Generation, k.Key[:]}, nil
}

func verifyMeshKeyBox(in meshKeyBoxed) (any, error) {
	sh, err := seal.NewShared(trust.SecretKeyFromSeed([32]byte(in.Reader)), in.Issuer)
	if err != nil {
		return nil, wire.Faultf(wire.CodeBadBox, "issuer key")
	}
	k, err := seal.OpenMeshKeyBox(in.Mesh, in.Box, sh)
	if err != nil {
		return nil, err
	}
	return meshKeyOut{k.Generation, k.Key[:]}, nil
}

func verifyCardBlob(in cardBlobIn) (any, error) {
	card, err := seal.OpenCard(seal.MeshKey{Generation: 2, Key: [32]byte(in.Key)}, in.Blob)
	if err != nil {
		return nil, err
	}
	return cardBlobOut{card}, nil
}

func boxCases() (out []vectors.Case) {
	k, blobKey, bob := seed("mesh key 2"), secret("open").BlobKey(), seed("bob")
	id, g := mesh[:], trust.U64(2)
	yields := meshKeyOut{2, k[:]}
	under := func(name, class string, key [32]byte, blob wire.Blob, yields any) {
		out = append(out, newCase("mesh_key", "mesh key: "+name, class, meshKeySealed{mesh, key[:], blob}, yields))
	}
	boxed := func(name, class string, issuer wire.Key, box wire.Blob, yields any) {
		out = append(out, newCase("mesh_key_box", "mesh key box: "+name, class, meshKeyBoxed{mesh, bob[:], issuer, box}, yields))
	}
	const badBox, badEnvelope = string(wire.CodeBadBox), string(wire.CodeBadEnvelope)
	for _, tt := range []struct {
		name, class string
		plain       []byte
	}{
		{"valid", "", trust.T("mesh-key", id, g, k[:])},
		{"another mesh", string(wire.CodeWrongMesh), trust.T("mesh-key", make([]byte, 16), g, k[:])},
		{"a mesh id cut short", badEnvelope, trust.T("mesh-key", id[1:], g, k[:])},
		{"a mesh id too long", badEnvelope, trust.T("mesh-key", append(mesh[:], 0), g, k[:])},
		{"no mesh id", badEnvelope, trust.T("mesh-key", nil, g, k[:])},
		{"a short generation", badEnvelope, trust.T("mesh-key", id, g[1:], k[:])},
		{"a short key", badEnvelope, trust.T("mesh-key", id, g, k[1:])},
		{"a field more", badEnvelope, trust.T("mesh-key", id, g, k[:], nil)},
		{"a field less", badEnvelope, trust.T("mesh-key", id, g)},
		{"another domain", badEnvelope, trust.T("mesh-kee", id, g, k[:])},
		{"nothing", badEnvelope, nil},
	} {
		var y any
		if tt.class == "" {
			y = yields
		}
		under(tt.name, tt.class, blobKey, sealSecret("mesh key "+tt.name, tt.plain, blobKey), y)
		boxed(tt.name, tt.class, pub("alice"), sealBox("mesh key "+tt.name, tt.plain, "alice", "bob"), y)
	}
	plain := trust.T("mesh-key", id, g, k[:])
	sealed, box := sealSecret("mesh key", plain, blobKey), sealBox("mesh key", plain, "alice", "bob")
	under("flipped", badBox, blobKey, flip(sealed, 30), nil)
	under("cut to a nonce", badBox, blobKey, sealed[:24], nil)
	under("another invite's blob key", badBox, secret("side").BlobKey(), sealed, nil)
	boxed("flipped", badBox, pub("alice"), flip(box, 30), nil)
	boxed("empty", badBox, pub("alice"), wire.Blob{}, nil)
	boxed("of another issuer", badBox, pub("carol"), box, nil)
	boxed("an issuer of small order", badBox, weak, box, nil)

	// A generation seals the one before it, as previous of a removal.
	next := trust.PreviousKey(seed("mesh key 3"))
	previous := sealSecret("previous", plain, next)
	under("previous", "", next, previous, yields)
	under("previous under the next key itself", badBox, seed("mesh key 3"), previous, nil)
	return append(out, cardCases()...)
}

func cardCases() (out []vectors.Case) {
	k := seed("mesh key 2")
	card := func(name, class string, key [32]byte, blob wire.Blob, content string) {
		var y any
		if class == "" {
			y = cardBlobOut{json.RawMessage(content)}
		}
		out = append(out, newCase("card_blob", "card blob: "+name, class, cardBlobIn{key[:], blob}, y))
	}
	const badBox, badPadding = string(wire.CodeBadBox), string(wire.CodeBadPadding)
	content := `{"label":"checkout","groups":[{"name":"backend","role":"lead"}],"status":"idle"}`
	plain := pad(trust.AppendLP(nil, []byte(content)))
	low := flip(plain, 3)
	low[3] = plain[3] - 1
	good := sealSecret("card", plain, k)
	card("valid", "", k, good, content)
	card("another mesh key", badBox, seed("mesh key 3"), good, "")
	card("flipped", badBox, k, flip(good, 30), "")
	card("empty", badBox, k, wire.Blob{}, "")
	for name, bad := range map[string][]byte{
		"nothing in it": nil, "cut within the length": {0, 0}, "the last pad byte is not zero": flip(plain, -1), "the first pad byte is not zero": flip(plain, 4+len(content)), "a length too low": low,
		"cut": plain[:100], "a padding step too many": append(append([]byte(nil), plain...), make([]byte, 256)...), "a length beyond the end": {255, 255, 255, 255},
	} {
		card(name, badPadding, k, sealSecret("card "+name, bad, k), "")
	}
	return sorted(out)
}
