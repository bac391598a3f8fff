// Package safety makes the numbers by which two members see that nobody stands
// between them: both compute the same one, of the keys that each holds.
package safety

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"

	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
	"github.com/claudemesh/claudemesh/internal/words"
)

const (
	rounds = 5200 // a search for keys with a number like another's pays for each
	groups = 6    // of five digits, for each side

	wordCount = 6 // of 11 bits
)

// Number is the safety number of two members of a mesh: 60 digits, the same
// whichever is named first.
func Number(mesh wire.ID, a, b wire.Key) string {
	one, two := side(mesh, a), side(mesh, b)
	return min(one, two) + max(one, two)
}

// side is a member's half of its safety numbers: 30 digits.
func side(mesh wire.ID, member wire.Key) string {
	h := trust.T("safety", mesh[:], member[:])
	for range rounds {
		sum := sha512.Sum512(append(h, member[:]...))
		h = sum[:]
	}
	var digits bytes.Buffer
	for i := range groups {
		n := uint64(0)
		for _, c := range h[5*i : 5*i+5] {
			n = n<<8 | uint64(c)
		}
		fmt.Fprintf(&digits, "%05d", n%100_000)
	}
	return digits.String()
}

// Groups cuts a number into groups of five digits, as it is shown.
func Groups(number string) (cut []string) {
	for ; len(number) > 5; number = number[5:] {
		cut = append(cut, number[:5])
	}
	return append(cut, number)
}

// Words are six words for a number, to read aloud: the first 66 bits of its SHA-256.
func Words(number string) []string {
	sum := sha256.Sum256([]byte(number))
	return words.From(sum[:], wordCount)
}
