package vectors_test

import (
	"crypto/sha512"
	"fmt"
	"slices"
	"strings"

	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/vectors"
	"github.com/claudemesh/claudemesh/internal/wire"
)

type (
	safetyIn struct {
		Mesh wire.ID    `json:"mesh"`
		Keys []wire.Key `json:"keys"` // of the two members
	}
	safetyOut struct {
		Number string `json:"safetyNumber"`
	}
)

// verifySafety is the number that two members compare.
func verifySafety(in safetyIn) (any, error) {
	var sides []string
	for _, k := range in.Keys {
		sides = append(sides, safetySide(in.Mesh, k))
	}
	slices.Sort(sides)
	return safetyOut{strings.Join(sides, "")}, nil
}

func safetySide(mesh wire.ID, member wire.Key) string {
	h := trust.T("safety", mesh[:], member[:])
	for range 5200 {
		next := sha512.Sum512(append(h, member[:]...))
		h = next[:]
	}
	var out strings.Builder
	for i := range 6 {
		var v uint64
		for _, c := range h[i*5 : i*5+5] {
			v = v<<8 | uint64(c)
		}
		fmt.Fprintf(&out, "%05d", v%100_000)
	}
	return out.String()
}

func safetyCases() (out []vectors.Case) {
	add := func(name string, mesh wire.ID, a, b wire.Key) {
		in := safetyIn{mesh, []wire.Key{a, b}}
		number, _ := verifySafety(in)
		out = append(out, newCase("safety", "safety: "+name, "", in, number))
	}
	add("alice and bob", mesh, pub("alice"), pub("bob"))
	add("bob and alice", mesh, pub("bob"), pub("alice"))
	add("alice and carol", mesh, pub("alice"), pub("carol"))
	add("alice and herself", mesh, pub("alice"), pub("alice"))
	add("alice and bob in another mesh", trust.MeshID(pub("other owner")), pub("alice"), pub("bob"))
	return out
}
