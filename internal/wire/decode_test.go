package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/claudemesh/claudemesh/internal/vectors"
)

// published returns the cases of a kind from the published set of vectors, with
// their input.
func published(t testing.TB, kind string) (cases []vectors.Case, raws []string) {
	t.Helper()
	f, err := vectors.Read("frames")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range f.Cases {
		var in struct {
			Text  string
			Bytes Blob
		}
		if err := json.Unmarshal(c.In, &in); err != nil {
			t.Fatal(c.Name, err)
		}
		if c.Kind == kind {
			cases, raws = append(cases, c), append(raws, in.Text+string(in.Bytes))
		}
	}
	if len(cases) == 0 {
		t.Fatalf("no case is a %q", kind)
	}
	return cases, raws
}

func TestDecode(t *testing.T) {
	t.Parallel()
	cases, raws := published(t, "frame")
	for i, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			var out struct {
				Type  Type   `json:"type"`
				ReqID string `json:"reqId"`
			}
			if err := json.Unmarshal(c.Out, &out); err != nil {
				t.Fatal(err)
			}
			if c.Class != "" {
				wantDecodeError(t, raws[i], Code(c.Class), out.ReqID)
			} else if f, err := Decode([]byte(raws[i])); err != nil || f.Type() != out.Type {
				t.Errorf("%T, %v", f, err)
			} else if m, ok := f.(*Members); ok && m.Since != 3 {
				t.Errorf("%+v", m)
			}
		})
	}
	long := strings.Repeat("x", 63) + "éé"
	if _, err := Decode([]byte(`{"type":"shout"}`)); !errors.Is(err, ErrUnknownType) {
		t.Error(err)
	}
	if !utf8.ValidString(clip(long)) {
		t.Error("clip cuts a rune")
	}
}

func TestNull(t *testing.T) {
	t.Parallel()
	// null and absence are zero; what needs a value checks it.
	f, err := Decode([]byte(`{"type":"send","to":null,"nonce":null,"wraps":null}`))
	if s, ok := f.(*Send); err != nil || !ok || !s.To.IsZero() || s.Nonce != nil {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestSplit(t *testing.T) {
	t.Parallel()
	a, b := `{"type":"ok"}`, `{"type":"members","since":1}`
	cases, raws := published(t, "message")
	for i, c := range cases {
		want := struct{ Frames int }{-1}
		if c.Out != nil {
			if err := json.Unmarshal(c.Out, &want); err != nil {
				t.Fatal(err)
			}
		}
		got, err := Split([]byte(raws[i]))
		if (err != nil) != (want.Frames < 0) || (err == nil && len(got) != want.Frames) {
			t.Errorf("%s: %d frames, %v; want %d", c.Name, len(got), err, want.Frames)
		}
	}
	frames, err := Split([]byte("[" + a + " , " + b + "]"))
	if err != nil || string(frames[0]) != a || string(frames[1]) != b {
		t.Errorf("%q, %v", frames, err)
	}
}

func TestScalars(t *testing.T) {
	t.Parallel()
	k := key(0xab)
	if got := (Key{}); got.UnmarshalText([]byte(k.String())) != nil || got != k {
		t.Error(got)
	}
	if got, err := ParseID(id(0xcd).String()); err != nil || got != id(0xcd) {
		t.Error(got, err)
	}
	for _, bad := range []string{"", "ab", strings.ToUpper(k.String()), k.String() + "00", " " + k.String()[1:]} {
		if new(Key).UnmarshalText([]byte(bad)) == nil {
			t.Errorf("%q is a key", bad)
		}
		if _, err := ParseID(bad); err == nil {
			t.Errorf("%q is an id", bad)
		}
	}
	if k.Short() != "abababab" || k.IsZero() || !(Key{}).IsZero() || !(ID{}).IsZero() || !(Signed{}).IsZero() {
		t.Error("Short or IsZero")
	}
	for i, p := range Priorities {
		if p.Rank() != i {
			t.Errorf("rank of %s is %d", p, p.Rank())
		}
	}
	if Priority("").Rank() != -1 || Mode("x").Valid() || Role("x").Valid() || Mode("").Direct() || !ModeReceipt.Direct() || ModeBroadcast.Direct() {
		t.Error("enums")
	}
}

// sameAsGeneral holds the hand decoder against the general one.
func sameAsGeneral(t *testing.T, msg []byte) (fast bool) {
	t.Helper()
	hot, ok := decodeHot(nil, msg)
	if !ok {
		return false
	}
	raws, err := Split(msg)
	if err != nil || len(raws) != len(hot) {
		t.Fatalf("%q: %d frames the fast way, %d else, %v", msg, len(hot), len(raws), err)
	}
	for i, raw := range raws {
		f, err := Decode(raw)
		if err != nil || !bytes.Equal(hot[i].Raw, raw) || !reflect.DeepEqual(hot[i].Frame, f) {
			t.Fatalf("%q: the fast way %+v of %q, else %+v, %v", raw, hot[i].Frame, hot[i].Raw, f, err)
		}
	}
	return true
}

// FuzzDecodeFrame: whatever decodes, is encoded to the same frame again and
// again; whatever does not, fails with a code and an answer that can be sent.
func FuzzDecodeFrame(f *testing.F) {
	for _, x := range examples() {
		b, err := Append(nil, x)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`[{"type":"ok"},{"type":"members","since":1}]`))
	f.Add([]byte(`{"type":"push","mode":"\"","priority":"\u2028"}`))
	f.Fuzz(func(t *testing.T, msg []byte) {
		sameAsGeneral(t, msg)
		frames, err := Split(msg)
		if err != nil {
			return
		}
		for _, raw := range frames {
			fr, err := Decode(raw)
			if err != nil {
				var d *DecodeError
				if !errors.As(err, &d) || !d.Code.Known() {
					t.Fatalf("%q: %v", raw, err)
				}
				if _, err := Append(nil, Faultf(d.Code, "").Frame(d.ReqID)); err != nil {
					t.Fatalf("%q: the answer cannot be encoded: %v", raw, err)
				}
				continue
			}
			one, err := Append(nil, fr)
			if err != nil {
				t.Fatalf("%q: %v", raw, err)
			}
			again, err := Decode(one)
			if err != nil {
				t.Fatalf("%q became %q: %v", raw, one, err)
			}
			two, err := Append(nil, again)
			if err != nil || string(one) != string(two) {
				t.Fatalf("%q, then %q: %v", one, two, err)
			}
		}
	})
}
