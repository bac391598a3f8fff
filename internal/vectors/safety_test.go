package vectors_test

import (
	"github.com/claudemesh/claudemesh/internal/safety"
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
	return safetyOut{safety.Number(in.Mesh, in.Keys[0], in.Keys[1])}, nil
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
