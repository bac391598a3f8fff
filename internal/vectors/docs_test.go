package vectors_test

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/claudemesh/claudemesh/internal/vectors"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// TestDocs: what docs/protocol.md, section 12, takes apart are cases of the set,
// and it names every part and class.
func TestDocs(t *testing.T) {
	t.Parallel()
	page := string(must(os.ReadFile("../../docs/protocol.md"))(t))
	_, section, _ := strings.Cut(page, "## 12. Vectors")
	for _, name := range vectors.Files {
		if !strings.Contains(section, "`"+name+".json`") {
			t.Errorf("%s.json is not named", name)
		}
	}
	for c := range linkClasses {
		if !strings.Contains(section, "`"+string(c)+"`") {
			t.Errorf("class %s is not named", c)
		}
	}
	// Long values are broken into lines, and T by what stands beside it.
	plain := strings.Join(strings.Fields(section), "")
	shows := func(what string, value []byte) {
		if !strings.Contains(plain, hex.EncodeToString(value)) {
			t.Errorf("%s is another in the set: %x", what, value)
		}
	}
	byName := map[string]vectors.Case{}
	for _, c := range all(t) {
		byName[c.Name] = c
	}
	into := func(name string, raw json.RawMessage, v any) {
		if err := json.Unmarshal(raw, v); err != nil {
			t.Fatal(name, err)
		}
	}
	var genesis statementsIn
	into("genesis", byName["genesis: valid"].In, &genesis)
	shows("the genesis' signature", genesis.Statements[0].Sig[:])
	var c wire.Challenge
	var in challengeIn
	into("challenge", byName["challenge: valid"].In, &in)
	into("challenge", in.Frame, &c)
	shows("the challenge's signature", c.Sig[:])
	var a attestationIn
	into("attestation", byName["attestation: valid"].In, &a)
	shows("the attestation's signature", a.Attestation.Sig[:])
	var h helloIn
	into("hello", byName["hello: of an observer"].In, &h)
	if !strings.Contains(plain, string(h.Frame)) {
		t.Errorf("the hello is another in the set: %s", h.Frame)
	}
	var push pushOut
	into("dm", byName["envelope: dm"].Out, &push)
	shows("the header", push.Header)
	shows("what is signed", push.Signed)
	var open inviteOut
	into("invite", byName["invite keys: open"].Out, &open)
	shows("the blob key", open.BlobKey)
	alice, _ := sender("alice/1")
	shows("the content", inner(kindDirect, push.Header, text, alice))
}
