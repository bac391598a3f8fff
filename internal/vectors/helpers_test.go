package vectors_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"slices"
	"testing"

	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/vectors"
	"github.com/claudemesh/claudemesh/internal/wire"
)

var update = flag.Bool("update", false, "rewrite the set; what is signed is forever, so only additions should show in git diff")

// now is the fixed time of every case, Unix ms.
const now = 1_760_000_000_000

// Seeds follow from names, so that the whole set can be made anew.
func sum(s string) [32]byte                { return sha256.Sum256([]byte(s)) }
func seed(name string) [32]byte            { return sum("claudemesh test " + name) }
func key(name string) trust.SecretKey      { return trust.SecretKeyFromSeed(seed(name)) }
func pub(name string) wire.Key             { return key(name).Public() }
func secret(name string) trust.Secret      { return trust.Secret(seed("invite " + name)) }
func inviteOf(name string) trust.SecretKey { return secret(name).InviteKey() }
func inviteID(name string) wire.ID         { return trust.InviteID(inviteOf(name).Public()) }

func keys(names ...string) (out []wire.Key) {
	for _, n := range names {
		out = append(out, pub(n))
	}
	return out
}

// weak is a key of small order.
var weak = wire.Key{1}

var mesh = trust.MeshID(pub("owner"))

func sign(k trust.SecretKey, body []byte) wire.Signed {
	return wire.Signed{Body: body, Sig: k.Sign(body)}
}

func codeOf(err error) string {
	var f *wire.Fault
	var c class
	var d *wire.DecodeError
	switch {
	case errors.As(err, &f):
		return string(f.Code)
	case errors.As(err, &c):
		return string(c)
	case errors.As(err, &d):
		return string(d.Code)
	case err != nil:
		return "no class: " + err.Error()
	}
	return ""
}

// class is the failure of what has no code on the wire.
type class string

func (c class) Error() string { return string(c) }

// classes that are no codes: of keys, and of links, whose refusals are sentences.
const (
	badKey = class("bad_key")
)

func flip[B ~[]byte](b B, i int) B {
	c := slices.Clone(b)
	c[(i+len(c))%len(c)] ^= 1
	return c
}

// marshal is JSON as it stands in the files.
func marshal(v any) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // no type of the set can fail
	}
	return bytes.TrimSpace(b.Bytes())
}

func frame(f wire.Frame) json.RawMessage {
	b, err := wire.Append(nil, f)
	if err != nil {
		panic(err)
	}
	return b
}

func newCase(kind, name, class string, in, out any) vectors.Case {
	c := vectors.Case{Kind: kind, Name: name, Class: class, In: marshal(in)}
	if out != nil {
		c.Out = marshal(out)
	}
	return c
}

func must[T any](v T, err error) func(t testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
