package seal

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"golang.org/x/crypto/nacl/box"
	"golang.org/x/crypto/nacl/secretbox"

	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

type sodiumBox struct {
	Why        string   `json:"why"`
	Sender     string   `json:"sender"`
	Recipient  string   `json:"recipient"`
	Nonce      hexBytes `json:"nonce"`
	Plaintext  hexBytes `json:"plaintext"`
	Ciphertext hexBytes `json:"ciphertext"`
	Shared     hexBytes `json:"precomputed_shared_key"`
}

type sodium struct {
	Identities []struct {
		Name string   `json:"name"`
		Seed hexBytes `json:"ed25519_seed"`
	} `json:"identities"`
	Edges []struct {
		Name    string   `json:"name"`
		Public  hexBytes `json:"ed25519_public"`
		Accepts bool     `json:"libsodium_accepts"`
	} `json:"ed25519_pk_to_curve25519_edge"`
	Box         []sodiumBox `json:"box"`
	BoxMustFail []sodiumBox `json:"box_must_fail"`
	Secretbox   []struct {
		Key        hexBytes  `json:"key"`
		Nonce      hexBytes  `json:"nonce"`
		Plaintext  *hexBytes `json:"plaintext"` // nil: det("file", 70000)
		PlainSum   hexBytes  `json:"plaintext_sha256"`
		Ciphertext *hexBytes `json:"ciphertext"`
		Sum        hexBytes  `json:"ciphertext_sha256"`
	} `json:"secretbox"`
}

func loadSodium(t *testing.T) (v sodium, ids map[string]trust.SecretKey) {
	t.Helper()
	b, err := os.ReadFile("../trust/testdata/libsodium.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Identities) == 0 || len(v.Edges) == 0 || len(v.Box) == 0 || len(v.BoxMustFail) == 0 || len(v.Secretbox) == 0 {
		t.Fatal("the vectors are incomplete")
	}
	ids = map[string]trust.SecretKey{}
	for _, id := range v.Identities {
		ids[id.Name] = trust.SecretKeyFromSeed([32]byte(id.Seed))
	}
	return v, ids
}

// det is the generator's deterministic stream.
func det(label string, n int) (out []byte) {
	for i := 0; len(out) < n; i++ {
		h := sha512.Sum512(fmt.Appendf(nil, "claudemesh-vectors|%s|%d", label, i))
		out = append(out, h[:]...)
	}
	return out[:n]
}

func TestSodiumBoxes(t *testing.T) {
	t.Parallel()
	v, ids := loadSodium(t)
	for i, b := range v.Box {
		s, r := ids[b.Sender], ids[b.Recipient]
		to, err := NewShared(s, r.Public())
		if err != nil {
			t.Fatal(err)
		}
		from, err := NewShared(r, s.Public())
		if err != nil {
			t.Fatal(err)
		}
		if *to != *from || !bytes.Equal(to[:], b.Shared) {
			t.Errorf("box %d: shared key %x or %x", i, *to, *from)
		}
		n := [24]byte(b.Nonce)
		if c := box.SealAfterPrecomputation(nil, b.Plaintext, &n, (*[32]byte)(to)); !bytes.Equal(c, b.Ciphertext) {
			t.Errorf("box %d: ciphertext %x", i, c)
		}
		plain, ok := openBox(append(n[:], b.Ciphertext...), from)
		if !ok || !bytes.Equal(plain, b.Plaintext) {
			t.Errorf("box %d does not open", i)
		}
	}
	for _, b := range v.BoxMustFail {
		k, err := NewShared(ids[b.Recipient], ids[b.Sender].Public())
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := openBox(append(bytes.Clone(b.Nonce), b.Ciphertext...), k); ok {
			t.Errorf("opened: %s", b.Why)
		}
		p := &wire.Push{Mode: wire.ModeDM, Nonce: wire.Blob(b.Nonce), Ciphertext: wire.Blob(b.Ciphertext)}
		_, err = Open(p, ids[b.Recipient].Public(), mesh, k)
		wantCode(t, err, wire.CodeBadBox)
	}
	for _, e := range v.Edges {
		if _, err := NewShared(ids["id0"], wire.Key(e.Public)); (err == nil) != e.Accepts {
			t.Errorf("shared with %s: %v", e.Name, err)
		}
	}
}

func TestSodiumSecretboxes(t *testing.T) {
	t.Parallel()
	v, _ := loadSodium(t)
	for i, b := range v.Secretbox {
		plain := det("file", 70000)
		if b.Plaintext != nil {
			plain = *b.Plaintext
		}
		if h := sha256.Sum256(plain); !bytes.Equal(h[:], b.PlainSum) {
			t.Fatalf("secretbox %d: not the plaintext", i)
		}
		n, k := [24]byte(b.Nonce), [32]byte(b.Key)
		c := secretbox.Seal(nil, plain, &n, &k)
		if h := sha256.Sum256(c); !bytes.Equal(h[:], b.Sum) || (b.Ciphertext != nil && !bytes.Equal(c, *b.Ciphertext)) {
			t.Errorf("secretbox %d: ciphertext differs", i)
		}
		if got, ok := openSecret(append(n[:], c...), &k); !ok || !bytes.Equal(got, plain) {
			t.Errorf("secretbox %d does not open", i)
		}
	}
}
