package safety_test

import (
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/claudemesh/claudemesh/internal/safety"
	"github.com/claudemesh/claudemesh/internal/wire"
	"github.com/claudemesh/claudemesh/internal/words"
)

// The vectors are what this prints for them (Python, hashlib and struct alone):
//
//	def T(ds, *f): return b"claudemesh/v2/" + ds.encode() + b"\0" + b"".join(struct.pack(">I", len(x)) + x for x in f)
//	def side(mesh, pk):
//	    h = T("safety", mesh, pk)
//	    for _ in range(5200): h = hashlib.sha512(h + pk).digest()
//	    return "".join("%05d" % (int.from_bytes(h[5*i:5*i+5], "big") % 100000) for i in range(6))
//	def number(mesh, a, b): return "".join(sorted([side(mesh, a), side(mesh, b)]))
//	def indices(n):
//	    x = int.from_bytes(hashlib.sha256(n.encode()).digest(), "big") >> (256 - 66)
//	    return [x >> (11 * (5 - i)) & 2047 for i in range(6)]
var vectors = []struct {
	mesh, a, b, number string
	indices            []int
}{
	{
		strings.Repeat("00", 16), strings.Repeat("00", 32), strings.Repeat("01", 32),
		"070121506500012665251487667829298148319272391110704156299556", []int{1923, 1381, 245, 135, 1157, 1520},
	},
	{
		"000102030405060708090a0b0c0d0e0f", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
		"fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0efeeedecebeae9e8e7e6e5e4e3e2e1e0",
		"145250611309413552706874509838896645944812480897445744795401", []int{1997, 114, 151, 1396, 1061, 947},
	},
	{ // of a member with itself
		strings.Repeat("ff", 16), "80" + strings.Repeat("00", 31), "80" + strings.Repeat("00", 31),
		"020477277838244850513542678667020477277838244850513542678667", []int{1767, 1296, 319, 796, 1958, 453},
	},
}

func TestVectors(t *testing.T) {
	t.Parallel()
	for _, v := range vectors {
		mesh, a, b := wire.ID(unhex(t, v.mesh)), wire.Key(unhex(t, v.a)), wire.Key(unhex(t, v.b))
		if got := safety.Number(mesh, a, b); got != v.number {
			t.Errorf("%s, want %s", got, v.number)
		}
		if got := safety.Number(mesh, b, a); got != v.number {
			t.Errorf("from the other side %s, want %s", got, v.number)
		}
		if a[31]++; safety.Number(mesh, a, b) == v.number {
			t.Error("another key has the same number")
		}
		a[31]--
		if mesh[15]++; safety.Number(mesh, a, b) == v.number {
			t.Error("another mesh has the same number")
		}
		if got := safety.Words(v.number); !slices.Equal(got, spelled(v.indices)) {
			t.Errorf("words %s, want %v", got, v.indices)
		}
		groups := safety.Groups(v.number)
		if len(groups) != 12 || strings.Join(groups, "") != v.number || slices.ContainsFunc(groups, func(g string) bool { return len(g) != 5 }) {
			t.Errorf("groups %q", groups)
		}
	}
}

// spelled is the words of indices of 11 bits.
func spelled(indices []int) (out []string) {
	for _, i := range indices {
		out = append(out, words.From([]byte{byte(i >> 3), byte(i << 5)}, 1)...)
	}
	return out
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
