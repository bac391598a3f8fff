package wire

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	jsonv2 "github.com/go-json-experiment/json"
)

func TestGoldenFrames(t *testing.T) {
	want := map[string]json.RawMessage{}
	for _, f := range examples() {
		b, err := Append(nil, f)
		if err != nil {
			t.Fatal(err)
		}
		want[string(f.Type())] = b
		back, err := Decode(b)
		if err != nil || !reflect.DeepEqual(back, f) {
			t.Errorf("%s comes back as %+v, %v", b, back, err)
		}
		if rest := reflect.ValueOf(f).Elem(); f.Type() != TypeInviteList && hasZero(rest) {
			t.Errorf("the example of %s leaves a field empty: the golden file would not show it", f.Type())
		}
	}
	b, err := json.MarshalIndent(want, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	const file = "testdata/frames.json"
	if *update {
		if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil { // testdata
			t.Fatal(err)
		}
	}
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(old) != string(b)+"\n" {
		t.Error("the frames differ from testdata/frames.json; see with -update and git diff")
	}
	var frozen map[string]json.RawMessage
	if err := json.Unmarshal(old, &frozen); err != nil {
		t.Fatal(err)
	}
	for typ, raw := range frozen {
		f, err := Decode(raw)
		if err != nil || f.Type() != Type(typ) {
			t.Errorf("%s: %v, %v", typ, f, err)
		}
	}
}

func hasZero(v reflect.Value) bool {
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			return true
		}
	}
	return false
}

// An optional field that is not set does not stand in the frame.
func TestOmitted(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		f    Frame
		want string
	}{
		{&InviteList{}, `{"type":"invite_list"}`},
		{&ListPeers{}, `{"type":"list_peers"}`},
		{&OK{}, `{"type":"ok"}`},
		{&Error{Code: CodeInternal, Message: "m"}, `{"type":"error","code":"internal","message":"m","retryable":false}`},
		{&ClientAck{}, `{"type":"client_ack","deliveries":[]}`},
		{&Members{Req: Req{`a"b`}}, `{"type":"members","_reqId":"a\"b","since":0}`},
	} {
		if b, err := Append([]byte("x"), tt.f); err != nil || string(b) != "x"+tt.want {
			t.Errorf("%s, %v; want %s", b, err, tt.want)
		}
	}
	if _, err := Append(nil, &Error{Message: "\xff"}); err == nil {
		t.Error("invalid UTF-8 was encoded")
	}
}

func TestTables(t *testing.T) {
	t.Parallel()
	types := constants(t, "frames.go", "Type")
	unique(t, types)
	for _, typ := range types {
		f, ok := blank[Type(typ)]
		if !ok {
			t.Errorf("frame %q has no entry in blank", typ)
		} else if f().Type() != Type(typ) {
			t.Errorf("blank makes a %q of %q", f().Type(), typ)
		}
		if !slices.ContainsFunc(examples(), func(f Frame) bool { return f.Type() == Type(typ) }) {
			t.Errorf("frame %q has no example", typ)
		}
	}
	if len(blank) != len(types) {
		t.Errorf("%d frames in blank, %d constants", len(blank), len(types))
	}

	all := constants(t, "codes.go", "Code")
	unique(t, all)
	for _, c := range all {
		i, ok := codes[Code(c)]
		if !ok || !Code(c).Known() {
			t.Errorf("code %q has no entry", c)
			continue
		}
		if i.HTTP < 400 || i.HTTP > 599 || i.Text == "" || i != Code(c).Info() {
			t.Errorf("code %q: %+v", c, i)
		}
		if strings.ToLower(c) != c || strings.Trim(c, "abcdefghijklmnopqrstuvwxyz_") != "" {
			t.Errorf("code %q is not in snake case", c)
		}
	}
	if len(codes) != len(all) {
		t.Errorf("%d codes in the table, %d constants", len(codes), len(all))
	}
	if Code("x").Known() || Code("x").Info().Retryable || Code("x").Info().HTTP != 500 {
		t.Error("an unknown code is treated as known")
	}

	ends := constants(t, "codes.go", "CloseCode")
	unique(t, ends)
	for _, c := range ends {
		n, err := strconv.Atoi(c)
		if err != nil {
			t.Fatal(err)
		}
		i, ok := closes[CloseCode(n)]
		if !ok || i.Reason == "" || len(i.Reason) > 123 || !i.Code.Known() {
			t.Errorf("close code %s: %+v", c, i)
		}
		if !i.Terminal && !i.Code.Info().Retryable && n != int(CloseFrameTooBig) {
			t.Errorf("close code %s may be retried, its code %q may not", c, i.Code)
		}
	}
	if len(closes) != len(ends) {
		t.Errorf("%d close codes in the table, %d constants", len(closes), len(ends))
	}
	if (CloseCode(4999)).Info().Terminal {
		t.Error("an unknown close code is terminal")
	}
}

func TestFault(t *testing.T) {
	t.Parallel()
	f := &Fault{Code: CodeRateLimited, Detail: "12 a second", RetryAfterMs: 9}
	e := f.Frame("r7")
	if e.ReqID != "r7" || e.Code != CodeRateLimited || !e.Retryable || e.RetryAfterMs != 9 || e.Message != "too many requests; slow down: 12 a second" {
		t.Errorf("%+v", e)
	}
	if !f.Is(Faultf(CodeRateLimited, "other")) || f.Is(Faultf(CodeInternal, "")) || f.Is(os.ErrNotExist) {
		t.Error("Is")
	}
	if Faultf(CodeExpired, "").Error() != CodeExpired.Info().Text {
		t.Error("a fault without detail")
	}
}

// TestHotEncoder holds the hand encoder and decoder against the general ones.
func TestHotEncoder(t *testing.T) {
	t.Parallel()
	var frames []Frame
	for _, m := range []Mode{ModeDM, ModeGroup, ModeBroadcast, ModeReceipt} {
		for _, w := range []Blob{nil, {}, {1}, blob(7)} {
			for _, pr := range Priorities {
				frames = append(frames, &Push{-1, id(1), m, key(1), key(2), key(3), pr, 1 << 62, blob(8), blob(1), w, 0, 3},
					&Send{Req{"a1"}, id(1), m, Key{}, key(4), pr, 7, blob(8), blob(35), nil},
					&Send{Req{}, id(1), m, key(9), Key{}, pr, 7, blob(8), blob(35), []Wrap{{key(1), blob(3)}, {key(2), w}}})
			}
		}
	}
	frames = append(frames,
		&Ack{Req{"x"}, id(1), true, false, []Recipient{{key(1), true, "", ""}, {key(2), false, StateBounced, CodeExpired}}, nil},
		&Ack{Req{}, id(1), true, true, []Recipient{}, nil},
		&Receipt{id(1), key(1), StateDelivered, "", 12}, &Receipt{id(1), key(1), StateBounced, CodeExpired, -1},
		&ClientAck{[]int64{1, 2, 1 << 50}}, &ClientAck{[]int64{}})
	all := []byte{'['}
	for _, f := range frames {
		body, err := jsonv2.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		fast, ok := appendHot(nil, f)
		if slow := `{"type":"` + string(f.Type()) + `",` + string(body[1:]); !ok || string(fast) != slow {
			t.Errorf("fast %v %s\nslow %s", ok, fast, slow)
		}
		all = append(append(all, fast...), ',')
		if simple := !bytes.Contains(fast, []byte("4611686018427387904")); sameAsGeneral(t, fast) != simple {
			t.Errorf("%s was decoded the fast way: %v", fast, !simple)
		}
		for i := range fast { // whatever is changed or cut, both decoders agree
			if len(all) > 20_000 {
				break // enough of it; the fuzz test goes on
			}
			sameAsGeneral(t, fast[:i])
			for _, c := range []byte(`"\\,{}[]0-aAz= `) {
				sameAsGeneral(t, append(append(append([]byte(nil), fast[:i]...), c), fast[i+1:]...))
			}
		}
	}
	all[len(all)-1] = ']'
	sameAsGeneral(t, all)
	// What is not of the safe alphabet is not pasted into the JSON.
	quote := `x","to":"y`
	for _, f := range []Frame{
		&Push{Mode: Mode(quote), Priority: PriorityNow}, &Push{Mode: ModeDM, Priority: Priority(quote)},
		&Send{Req: Req{quote}, Mode: ModeDM, Priority: PriorityNow}, &Ack{Req: Req{quote}, Recipients: []Recipient{}},
		&Ack{Recipients: []Recipient{{Code: Code(quote)}}}, &Receipt{State: State(quote)}, &ClientAck{},
		&Ack{Recipients: []Recipient{}, Skipped: []Skipped{{key(1), CodeExpired}}},
	} {
		if _, ok := appendHot(nil, f); ok {
			t.Errorf("%+v went the fast way", f)
		}
	}
}

func benchSend(b *testing.B) []byte {
	b.Helper()
	out, err := Append(nil, &Send{Req{"r1"}, id(1), ModeDM, Key{}, key(4), PriorityNext, 1760000000004, blob(8), blob(350), nil})
	if err != nil {
		b.Fatal(err)
	}
	return out
}

func BenchmarkDecodeSend(b *testing.B) {
	raw := benchSend(b)
	b.ReportAllocs()
	b.SetBytes(int64(len(raw)))
	var in []Incoming
	for b.Loop() {
		var err error
		if in, err = Frames(in[:0], raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendPush(b *testing.B) {
	p := &Push{17, id(1), ModeDM, key(1), key(2), key(3), PriorityNow, 1760000000005, blob(8), blob(350), nil, 1760000000006, 12}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Append(nil, p); err != nil {
			b.Fatal(err)
		}
	}
}
