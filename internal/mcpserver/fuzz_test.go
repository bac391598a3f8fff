package mcpserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"unicode"
)

// FuzzLines: the lines are those of the text that are not blank, however it arrives.
func FuzzLines(f *testing.F) {
	for _, s := range []string{"", "\n\n", "{}\n{}", " a \r\n\tb\n", strings.Repeat("x", 70<<10) + "\ny"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var want [][]byte
		for line := range bytes.SplitSeq(data, []byte("\n")) {
			if line = bytes.TrimSpace(line); len(line) > 0 {
				want = append(want, line)
			}
		}
		for _, in := range []io.Reader{bytes.NewReader(data), iotest.HalfReader(bytes.NewReader(data)), iotest.DataErrReader(bytes.NewReader(data))} {
			r, n := newLineReader(in), 0
			for ; ; n++ {
				line, err := r.next()
				if err == io.EOF {
					break
				}
				if err != nil || n >= len(want) || !bytes.Equal(line, want[n]) {
					t.Fatalf("line %d of %q is %q: %v", n, data, line, err)
				}
			}
			if n != len(want) {
				t.Fatalf("%d lines of %q, not %d", n, data, len(want))
			}
		}
	})
}

// FuzzArguments: what a model gives as arguments is taken, or refused by a
// sentence that can be shown to it.
func FuzzArguments(f *testing.F) {
	for _, s := range []string{
		``, `{}`, `null`, `[1]`, `{"to":"a, b","message":"x"}`, `{"to":["a",",b"],"message":"x","wait_seconds":5}`, `{"to":{},"message":1}`,
		`{"limit":null,"wait_seconds":1.5}`, `{"id":"x","unknown\u202e\u001b[31m":1}`, `{"to":"a","to":["b"]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > 0 && !json.Valid(raw) {
			return // the engine has parsed what comes here
		}
		var send sendArgs
		for _, v := range []any{&send, new(checkArgs), &struct{}{}} {
			if err := decodeStrict(raw, v); err != nil && (!errors.Is(err, errArguments) || !shows(err.Error())) {
				t.Fatalf("%q as %v: %q", raw, reflect.TypeOf(v), err)
			}
		}
		for _, to := range send.To {
			if to == "" || strings.Contains(to, ",") || to != strings.TrimSpace(to) {
				t.Fatalf("%q is to %q", raw, to)
			}
		}
	})
}

// shows reports whether a text has nothing in it that does not show.
func shows(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) })
}
