// Package words turns bits into English words that can be read aloud and typed:
// those of BIP-39, 2048 of 3 to 8 letters, no two of which begin with the same
// four. A word is 11 bits; six are 66.
package words

import (
	"crypto/rand"
	_ "embed"
	"strings"
)

// Bits is how many bits a word stands for.
const Bits = 11

//go:embed english.txt
var english string

var list = strings.Fields(english)

// From spells the first n*11 bits of bits, most significant first, as n words.
// It panics where there are fewer.
func From(bits []byte, n int) []string {
	out := make([]string, 0, n)
	for i := range n {
		index := 0
		for at := i * Bits; at < (i+1)*Bits; at++ {
			index = index<<1 | int(bits[at/8]>>(7-at%8)&1)
		}
		out = append(out, list[index])
	}
	return out
}

// Random draws n words, 11 bits of chance each.
func Random(n int) []string {
	bits := make([]byte, (n*Bits+7)/8)
	_, _ = rand.Read(bits) // never fails
	return From(bits, n)
}
