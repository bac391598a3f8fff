package words_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/claudemesh/claudemesh/internal/words"
)

// The list is that of BIP-39, to the byte.
func TestList(t *testing.T) {
	raw, err := os.ReadFile("english.txt")
	if err != nil {
		t.Fatal(err)
	}
	const want = "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda"
	if sum := sha256.Sum256(raw); hex.EncodeToString(sum[:]) != want {
		t.Errorf("english.txt has SHA-256 %x, want %s", sum, want)
	}
	starts := map[string]bool{}
	for _, w := range strings.Fields(string(raw)) {
		starts[w[:min(len(w), 4)]] = true
	}
	if len(starts) != 1<<words.Bits {
		t.Errorf("%d words differ in their first four letters, want 2048", len(starts))
	}
}

// The words of BIP-39's own test vectors: entropy and checksum are its bits.
func TestFrom(t *testing.T) {
	for _, c := range []struct{ bits, want string }{
		{"000000000000000000", "abandon abandon abandon abandon abandon abandon"},
		{"ffffffffffffffffff", "zoo zoo zoo zoo zoo zoo"},
		{"7f7f7f7f7f7f7f7f7f", "legal winner thank year wave sausage"},
		{"808080808080808080", "letter advice cage absurd amount doctor"},
	} {
		bits, err := hex.DecodeString(c.bits)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(words.From(bits, 6), " "); got != c.want {
			t.Errorf("%s is %q, want %q", c.bits, got, c.want)
		}
	}
}

func TestRandom(t *testing.T) {
	a, b := words.Random(6), words.Random(6)
	if len(a) != 6 || slices.Equal(a, b) {
		t.Errorf("%v and %v", a, b)
	}
}
