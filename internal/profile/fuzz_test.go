package profile

import (
	"reflect"
	"testing"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// FuzzConfig holds that no file makes the parsers panic and that what they
// accept is written back as it was understood.
func FuzzConfig(f *testing.F) {
	for _, seed := range []string{
		"", "null", "[]", `{"version":1}`, `{"version":2}`, `{"version":-1,"meshes":null}`,
		`{"version":1,"meshes":[{"mesh":"a","meshId":"01010101010101010101010101010101",` +
			`"memberSeed":"0101010101010101010101010101010101010101010101010101010101010101","genesis":{"body":"AA==","sig":""}}]}`,
		`{"version":1,"meshes":[{},{}]}`,
		`{"version":1,"meshes":[{"mesh":"a","meshId":"01010101010101010101010101010101","keyring":{"account":"a@a/x","owner":true,` +
			`"member":"0101010101010101010101010101010101010101010101010101010101010101"}}]}`,
		`{"version":1,"dir":"/x","seat":1,"label":"x","seed":"0101010101010101010101010101010101010101010101010101010101010101"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = parseSeat(data)
		c, err := parseConfig(data)
		if err != nil {
			return
		}
		out, err := wire.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseConfig(out)
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		out2, err := wire.Marshal(again)
		if err != nil || !reflect.DeepEqual(out, out2) {
			t.Fatalf("%v: %s became %s", err, out, out2)
		}
	})
}

func TestBaseLabel(t *testing.T) {
	for dir, want := range map[string]string{
		"/work/api": "api", "/w/My App (2)": "my-app-2", "/w/.dotted": "dotted", "/w/_-x": "x", "/": "session",
		"/w/日本": "session", "/w/naïve": "na-ve", "/w/a_b.c-d": "a_b.c-d", "/w/42": "42",
		"/w/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	} {
		if got := baseLabel(dir); got != want {
			t.Errorf("%s: %q, want %q", dir, got, want)
		}
	}
	if got, want := numbered("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 12), "aaaaaaaaaaaaaaaaaaaaaaaaaaaaa-12"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
