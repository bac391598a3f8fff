package vectors_test

import (
	"bytes"
	"cmp"
	"slices"
	"strings"

	"github.com/claudemesh/claudemesh/internal/seal"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/vectors"
)

func sorted(c []vectors.Case) []vectors.Case {
	slices.SortFunc(c, func(a, b vectors.Case) int { return cmp.Compare(a.Name, b.Name) })
	return c
}

func encodingCases() (out []vectors.Case) {
	for _, in := range []struct {
		name string
		tIn
	}{
		{"no fields", tIn{"ds", []vectors.Hex{}}},
		{"an empty field", tIn{"ds", []vectors.Hex{{}}}},
		{"fields", tIn{"ds", []vectors.Hex{[]byte("ab"), {}, trust.U64(258)}}},
		{"a field of 300 bytes", tIn{"content", []vectors.Hex{bytes.Repeat([]byte("x"), 300)}}},
	} {
		y, _ := verifyT(in.tIn)
		out = append(out, newCase("T", "T: "+in.name, "", in.tIn, y))
	}
	fields := func(name, class string, body []byte) {
		in := fieldsIn{"ds", body}
		var y any
		if class == "" {
			y, _ = verifyFields(in)
		}
		out = append(out, newCase("fields", "fields: "+name, class, in, y))
	}
	t := trust.T("ds", []byte("ab"), nil, trust.U64(258))
	fields("valid", "", t)
	fields("none", "", trust.T("ds"))
	fields("nothing", badCertificate, nil)
	fields("another domain", badCertificate, trust.T("dx", []byte("ab")))
	fields("a longer domain", badCertificate, trust.T("ds2", []byte("ab")))
	fields("no zero after the domain", badCertificate, []byte("claudemesh/v2/ds"))
	fields("another version", badCertificate, bytes.Replace(t, []byte("v2"), []byte("v1"), 1))
	fields("the domain in capitals", badCertificate, bytes.Replace(t, []byte("claude"), []byte("Claude"), 1))
	fields("cut within a length", badCertificate, append(trust.T("ds"), 0, 0, 0))
	fields("cut within a field", badCertificate, t[:len(t)-1])
	fields("a byte left over", badCertificate, append(bytes.Clone(t), 0))
	fields("a length in little endian", badCertificate, append(trust.T("ds"), 2, 0, 0, 0, 'a', 'b'))
	fields("a length of 4 GiB", badCertificate, append(trust.T("ds"), 255, 255, 255, 255))
	fields("10,001 fields", badCertificate, append(trust.T("ds"), make([]byte, 4*10_001)...))
	for _, n := range []int{0, 1, 256, 257, 512, 513, 576, 577, 1024, 1025, 2048, 2049, 32768, 32769} {
		out = append(out, newCase("padding", "padding: of "+strings.TrimSpace(string(marshal(n)))+" bytes", "", paddingIn{n}, paddingOut{seal.Padded(n)}))
	}
	return append(out, derivedCases()...)
}

// derivedCases are what follows from a key or a secret.
func derivedCases() (out []vectors.Case) {
	for _, n := range []string{"owner", "other owner"} {
		out = append(out, newCase("mesh_id", "mesh id: of "+n, "", keyIn{pub(n)}, idOut{trust.MeshID(pub(n))}))
	}
	for _, n := range []string{"admins", "open", "side", "new"} {
		s, k := secret(n), inviteOf(n).Public()
		y, _ := verifyInviteKeys(secretIn{s[:]})
		out = append(out, newCase("invite_keys", "invite keys: "+n, "", secretIn{s[:]}, y),
			newCase("invite_id", "invite id: "+n, "", keyIn{k}, idOut{trust.InviteID(k)}))
	}
	for g, n := range map[uint64]string{1: "mesh key 1", 2: "mesh key 2", 1 << 40: "mesh key 2"} {
		k := seed(n)
		in := meshKeyIn{mesh, g, k[:]}
		y, _ := verifyKeyHash(in)
		out = append(out, newCase("key_hash", "key hash: generation "+string(marshal(g)), "", in, y))
	}
	k := seed("mesh key 2")
	y, _ := verifyPreviousKey(keyOut{k[:]})
	out = append(out, newCase("previous_key", "previous key: of generation 2", "", keyOut{k[:]}, y))
	return sorted(out)
}
