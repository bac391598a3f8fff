package wire

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	k := strings.Repeat("0a", 32)
	long := strings.Repeat("x", 63) + "éé"
	for _, tt := range []struct {
		name, raw string
		code      Code
		req       string
	}{
		{"an unknown type", `{"type":"shout","_reqId":"r1"}`, CodeUnknownType, "r1"},
		{"an unknown type, last", `{"_reqId":"r1","a":[1,{}],"type":"shout"}`, CodeUnknownType, "r1"},
		{"an unknown type without request", `{"type":"shout"}`, CodeUnknownType, ""},
		{"a type in capitals", `{"type":"OK"}`, CodeUnknownType, ""},
		{"a long type", `{"type":"` + strings.Repeat("é", 99) + `"}`, CodeUnknownType, ""},
		{"no type", `{"_reqId":"r1"}`, CodeBadFrame, ""},
		{"an empty type", `{"type":"","_reqId":"r1"}`, CodeBadFrame, ""},
		{"a number as type", `{"type":7}`, CodeBadFrame, ""},
		{"a key in capitals is no type", `{"Type":"ok"}`, CodeBadFrame, ""},
		{"null", `null`, CodeBadFrame, ""},
		{"an array", `[]`, CodeBadFrame, ""},
		{"a string", `"ok"`, CodeBadFrame, ""},
		{"nothing", ``, CodeBadFrame, ""},
		{"half a frame", `{"type":"ok","_reqId":"r1"`, CodeBadFrame, ""},
		{"trailing garbage", `{"type":"ok","_reqId":"r1"}x`, CodeBadFrame, ""},
		{"two frames", `{"type":"ok"}{"type":"ok"}`, CodeBadFrame, ""},
		{"the type twice", `{"type":"ok","_reqId":"r1","type":"ok"}`, CodeBadFrame, "r1"},
		{"two types", `{"type":"ok","_reqId":"r1","type":"error"}`, CodeBadFrame, "r1"},
		{"a key twice", `{"type":"members","_reqId":"r1","since":1,"since":2}`, CodeBadFrame, "r1"},
		{"an unknown key twice", `{"type":"members","_reqId":"r1","x":1,"x":2}`, CodeBadFrame, "r1"},
		{"a key twice within", `{"type":"set_card","_reqId":"r1","card":{"seq":1,"seq":2}}`, CodeBadFrame, "r1"},
		{"a key twice, once escaped", `{"type":"members","_reqId":"r1","since":1,"\u0073ince":2}`, CodeBadFrame, "r1"},
		{"uppercase hex", `{"type":"send","_reqId":"r1","to":"` + strings.ToUpper(k) + `"}`, CodeBadFrame, "r1"},
		{"short hex", `{"type":"send","_reqId":"r1","to":"` + k[2:] + `"}`, CodeBadFrame, "r1"},
		{"long hex", `{"type":"send","_reqId":"r1","to":"` + k + `00"}`, CodeBadFrame, "r1"},
		{"odd hex", `{"type":"send","_reqId":"r1","to":"` + k[1:] + `"}`, CodeBadFrame, "r1"},
		{"empty hex", `{"type":"send","_reqId":"r1","to":""}`, CodeBadFrame, "r1"},
		{"no hex", `{"type":"send","_reqId":"r1","to":"` + k[1:] + `g"}`, CodeBadFrame, "r1"},
		{"hex as a number", `{"type":"send","_reqId":"r1","id":7}`, CodeBadFrame, "r1"},
		{"hex as an array", `{"type":"send","_reqId":"r1","id":[1,2]}`, CodeBadFrame, "r1"},
		{"a short signature", `{"type":"hello","_reqId":"r1","sig":"00"}`, CodeBadFrame, "r1"},
		{"a short nonce", `{"type":"hello","_reqId":"r1","nonce":"00"}`, CodeBadFrame, "r1"},
		{"base64 without padding", `{"type":"send","_reqId":"r1","nonce":"AAA"}`, CodeBadFrame, "r1"},
		{"base64 of URLs", `{"type":"send","_reqId":"r1","nonce":"-_-_"}`, CodeBadFrame, "r1"},
		{"base64 with loose bits", `{"type":"send","_reqId":"r1","nonce":"AB=="}`, CodeBadFrame, "r1"},
		{"base64 with a line break", `{"type":"send","_reqId":"r1","nonce":"AAAA\nAAAA"}`, CodeBadFrame, "r1"},
		{"base64 with a return", `{"type":"send","_reqId":"r1","nonce":"AAAA\rAAAA"}`, CodeBadFrame, "r1"},
		{"base64 with a space", `{"type":"send","_reqId":"r1","nonce":"AAAA AAAA"}`, CodeBadFrame, "r1"},
		{"base64 and more", `{"type":"send","_reqId":"r1","nonce":"AA==AA=="}`, CodeBadFrame, "r1"},
		{"a blob as an array", `{"type":"send","_reqId":"r1","nonce":[1,2]}`, CodeBadFrame, "r1"},
		{"a fraction", `{"type":"members","_reqId":"r1","since":1.5}`, CodeBadFrame, "r1"},
		{"an exponent", `{"type":"members","_reqId":"r1","since":1e3}`, CodeBadFrame, "r1"},
		{"a number as text", `{"type":"members","_reqId":"r1","since":"1"}`, CodeBadFrame, "r1"},
		{"a number too large", `{"type":"members","_reqId":"r1","since":9223372036854775808}`, CodeBadFrame, "r1"},
		{"a negative generation", `{"type":"invite_put","_reqId":"r1","generation":-1}`, CodeBadFrame, "r1"},
		{"invalid UTF-8", "{\"type\":\"send\",\"_reqId\":\"r1\",\"mode\":\"\xff\"}", CodeBadFrame, ""},
		{"invalid UTF-8 as type", "{\"type\":\"\xff\"}", CodeUnknownType, ""},
		{"half a surrogate", `{"type":"send","_reqId":"r1","mode":"\ud800"}`, CodeBadFrame, ""},
		{"a request id as number", `{"type":"members","_reqId":7}`, CodeBadFrame, ""},
		{"a long request id is cut at a rune", `{"type":"shout","_reqId":"` + long + `"}`, CodeUnknownType, long[:63]},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			wantDecodeError(t, tt.raw, tt.code, tt.req)
		})
	}
	if _, err := Decode([]byte(`{"type":"shout"}`)); !errors.Is(err, ErrUnknownType) {
		t.Error(err)
	}
	if !utf8.ValidString(clip(long)) {
		t.Error("clip cuts a rune")
	}
}

func TestDecodeAccepts(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{
		`{"type":"members","since":3}`,
		`{"since":3,"type":"members"}`,
		` { "type" : "members" , "since":3 } `,
		`{"type":"member\u0073","since":3}`,
		`{"type":"members","since":3,"later":{"a":[1]}}`, // a later version's field
		`{"type":"members","since":3,"Since":4}`,         // names are exact
	} {
		f, err := Decode([]byte(raw))
		if m, ok := f.(*Members); err != nil || !ok || m.Since != 3 {
			t.Errorf("%s: %+v, %v", raw, f, err)
		}
	}
	// null and absence are zero; what needs a value checks it.
	f, err := Decode([]byte(`{"type":"send","to":null,"nonce":null,"wraps":null}`))
	if s, ok := f.(*Send); err != nil || !ok || !s.To.IsZero() || s.Nonce != nil {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestSplit(t *testing.T) {
	t.Parallel()
	a, b := `{"type":"ok"}`, `{"type":"members","since":1}`
	for _, tt := range []struct {
		msg  string
		want int // frames; -1 for a refusal
	}{
		{a, 1}, {" \n" + a + "\t ", 1}, {"[" + a + "]", 1}, {" [ " + a + " , " + b + " ] ", 2}, {`[{},{}]`, 2},
		{"", -1}, {"  ", -1}, {"[]", -1}, {"[ ]", -1}, {"[[" + a + "]]", -1}, {"[" + a + ",[" + a + "]]", -1}, {"[1]", -1}, {`["x"]`, -1},
		{"[null]", -1}, {"null", -1}, {"7", -1}, {`"x"`, -1}, {"[" + a, -1}, {"[" + a + "]x", -1}, {"[" + a + ",]", -1},
		{"[" + a + "][" + a + "]", -1}, {"[{\"a\":\"\xff\"}]", -1}, {`[{"a":1,"a":2}]`, -1}, {"x", -1}, {"\xff", -1},
	} {
		frames, err := Split([]byte(tt.msg))
		if (err != nil) != (tt.want < 0) || (err == nil && len(frames) != tt.want) {
			t.Errorf("%q: %d frames, %v; want %d", tt.msg, len(frames), err, tt.want)
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
