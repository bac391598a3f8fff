// Package vectors is the published set of protocol vectors: cases for whoever
// implements docs/protocol.md, in testdata, with what each must come to. Its
// tests make the set, hold this implementation against it and hold it against
// libsodium; the tests of trust, seal and wire read their cases from it.
// docs/protocol.md, section 12, says how to read it.
package vectors

import (
	"bytes"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

//go:embed testdata/*.json
var files embed.FS

// Format names the form of the files. A change that breaks readers gets another number.
const Format = "claudemesh-vectors/1"

// Files are the parts of the set, in the order of the protocol's sections. Mesh
// stands beside them: it has no cases.
var Files = []string{"encoding", "libsodium", "statements", "rosters", "links", "connect", "envelopes", "boxes", "safety", "frames"}

// File is one part of the set.
type File struct {
	Format string            `json:"format"`
	About  string            `json:"about"`
	Kinds  map[string]string `json:"kinds"` // what stands in In and Out, and what is to be done
	Cases  []Case            `json:"cases"`
}

// Case is one input and what must become of it.
type Case struct {
	Name  string          `json:"name"` // unique in the set
	Kind  string          `json:"kind"`
	Class string          `json:"class,omitempty"` // how it must fail; "" when it is valid
	In    json.RawMessage `json:"in"`
	Out   json.RawMessage `json:"out,omitempty"` // what a valid one yields
}

// Mesh is the mesh that the cases play in.
type Mesh struct {
	Format       string            `json:"format"`
	About        string            `json:"about"`
	Now          int64             `json:"now"` // Unix ms
	MeshID       Hex               `json:"meshId"`
	Seeds        map[string]Hex    `json:"seeds"`   // ed25519 seeds, by name
	Public       map[string]Hex    `json:"public"`  // their public keys
	Secrets      map[string]Hex    `json:"secrets"` // of invites, and mesh keys
	Genesis      json.RawMessage   `json:"genesis"`
	Certificates []json.RawMessage `json:"certificates"` // in the order in which the mesh heard them
}

// Hex is bytes that stand in JSON as lowercase hex.
type Hex []byte

// MarshalText returns the bytes in hex.
func (h Hex) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }

// UnmarshalText reads hex.
func (h *Hex) UnmarshalText(t []byte) (err error) {
	*h, err = hex.DecodeString(string(t))
	return err
}

// Read returns one part of the set.
func Read(name string) (File, error) {
	var f File
	err := read(name, &f)
	if err == nil && f.Format != Format {
		err = fmt.Errorf("vectors %s: format %q, want %q", name, f.Format, Format)
	}
	return f, err
}

// ReadMesh returns the mesh that the cases play in.
func ReadMesh() (Mesh, error) {
	var m Mesh
	return m, read("mesh", &m)
}

func read(name string, v any) error {
	b, err := files.ReadFile("testdata/" + name + ".json")
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("vectors %s: %w", name, err)
	}
	return nil
}

// All returns the cases of every part.
func All() ([]Case, error) {
	var all []Case
	for _, name := range Files {
		f, err := Read(name)
		if err != nil {
			return nil, err
		}
		all = append(all, f.Cases...)
	}
	return all, nil
}
