package vectors_test

import (
	"strings"
	"unicode/utf8"

	"github.com/claudemesh/claudemesh/internal/vectors"
	"github.com/claudemesh/claudemesh/internal/wire"
)

func textOrBytes(raw string) frameIn {
	if utf8.ValidString(raw) {
		return frameIn{Text: raw}
	}
	return frameIn{Bytes: wire.Blob(raw)}
}

func frameCases() (out []vectors.Case) {
	k := strings.Repeat("0a", 32)
	long := strings.Repeat("x", 63) + "éé"
	for _, tt := range []struct {
		name, raw string
		code      wire.Code
		req       string
	}{
		{"an unknown type", `{"type":"shout","_reqId":"r1"}`, wire.CodeUnknownType, "r1"},
		{"an unknown type, last", `{"_reqId":"r1","a":[1,{}],"type":"shout"}`, wire.CodeUnknownType, "r1"},
		{"an unknown type without request", `{"type":"shout"}`, wire.CodeUnknownType, ""},
		{"a type in capitals", `{"type":"OK"}`, wire.CodeUnknownType, ""},
		{"a long type", `{"type":"` + strings.Repeat("é", 99) + `"}`, wire.CodeUnknownType, ""},
		{"no type", `{"_reqId":"r1"}`, wire.CodeBadFrame, ""},
		{"an empty type", `{"type":"","_reqId":"r1"}`, wire.CodeBadFrame, ""},
		{"a number as type", `{"type":7}`, wire.CodeBadFrame, ""},
		{"a key in capitals is no type", `{"Type":"ok"}`, wire.CodeBadFrame, ""},
		{"null", `null`, wire.CodeBadFrame, ""},
		{"an array", `[]`, wire.CodeBadFrame, ""},
		{"a string", `"ok"`, wire.CodeBadFrame, ""},
		{"nothing", ``, wire.CodeBadFrame, ""},
		{"half a frame", `{"type":"ok","_reqId":"r1"`, wire.CodeBadFrame, ""},
		{"trailing garbage", `{"type":"ok","_reqId":"r1"}x`, wire.CodeBadFrame, ""},
		{"two frames", `{"type":"ok"}{"type":"ok"}`, wire.CodeBadFrame, ""},
		{"the type twice", `{"type":"ok","_reqId":"r1","type":"ok"}`, wire.CodeBadFrame, "r1"},
		{"two types", `{"type":"ok","_reqId":"r1","type":"error"}`, wire.CodeBadFrame, "r1"},
		{"a key twice", `{"type":"members","_reqId":"r1","since":1,"since":2}`, wire.CodeBadFrame, "r1"},
		{"an unknown key twice", `{"type":"members","_reqId":"r1","x":1,"x":2}`, wire.CodeBadFrame, "r1"},
		{"a key twice within", `{"type":"set_card","_reqId":"r1","card":{"seq":1,"seq":2}}`, wire.CodeBadFrame, "r1"},
		{"a key twice, once escaped", `{"type":"members","_reqId":"r1","since":1,"\u0073ince":2}`, wire.CodeBadFrame, "r1"},
		{"uppercase hex", `{"type":"send","_reqId":"r1","to":"` + strings.ToUpper(k) + `"}`, wire.CodeBadFrame, "r1"},
		{"short hex", `{"type":"send","_reqId":"r1","to":"` + k[2:] + `"}`, wire.CodeBadFrame, "r1"},
		{"long hex", `{"type":"send","_reqId":"r1","to":"` + k + `00"}`, wire.CodeBadFrame, "r1"},
		{"odd hex", `{"type":"send","_reqId":"r1","to":"` + k[1:] + `"}`, wire.CodeBadFrame, "r1"},
		{"empty hex", `{"type":"send","_reqId":"r1","to":""}`, wire.CodeBadFrame, "r1"},
		{"no hex", `{"type":"send","_reqId":"r1","to":"` + k[1:] + `g"}`, wire.CodeBadFrame, "r1"},
		{"hex as a number", `{"type":"send","_reqId":"r1","id":7}`, wire.CodeBadFrame, "r1"},
		{"hex as an array", `{"type":"send","_reqId":"r1","id":[1,2]}`, wire.CodeBadFrame, "r1"},
		{"a short signature", `{"type":"hello","_reqId":"r1","sig":"00"}`, wire.CodeBadFrame, "r1"},
		{"a short nonce", `{"type":"hello","_reqId":"r1","nonce":"00"}`, wire.CodeBadFrame, "r1"},
		{"base64 without padding", `{"type":"send","_reqId":"r1","nonce":"AAA"}`, wire.CodeBadFrame, "r1"},
		{"base64 of URLs", `{"type":"send","_reqId":"r1","nonce":"-_-_"}`, wire.CodeBadFrame, "r1"},
		{"base64 with loose bits", `{"type":"send","_reqId":"r1","nonce":"AB=="}`, wire.CodeBadFrame, "r1"},
		{"base64 with a line break", `{"type":"send","_reqId":"r1","nonce":"AAAA\nAAAA"}`, wire.CodeBadFrame, "r1"},
		{"base64 with a return", `{"type":"send","_reqId":"r1","nonce":"AAAA\rAAAA"}`, wire.CodeBadFrame, "r1"},
		{"base64 with a space", `{"type":"send","_reqId":"r1","nonce":"AAAA AAAA"}`, wire.CodeBadFrame, "r1"},
		{"base64 and more", `{"type":"send","_reqId":"r1","nonce":"AA==AA=="}`, wire.CodeBadFrame, "r1"},
		{"a blob as an array", `{"type":"send","_reqId":"r1","nonce":[1,2]}`, wire.CodeBadFrame, "r1"},
		{"a fraction", `{"type":"members","_reqId":"r1","since":1.5}`, wire.CodeBadFrame, "r1"},
		{"an exponent", `{"type":"members","_reqId":"r1","since":1e3}`, wire.CodeBadFrame, "r1"},
		{"a number as text", `{"type":"members","_reqId":"r1","since":"1"}`, wire.CodeBadFrame, "r1"},
		{"a number too large", `{"type":"members","_reqId":"r1","since":9223372036854775808}`, wire.CodeBadFrame, "r1"},
		{"a negative generation", `{"type":"invite_put","_reqId":"r1","generation":-1}`, wire.CodeBadFrame, "r1"},
		{"invalid UTF-8", "{\"type\":\"send\",\"_reqId\":\"r1\",\"mode\":\"\xff\"}", wire.CodeBadFrame, ""},
		{"invalid UTF-8 as type", "{\"type\":\"\xff\"}", wire.CodeUnknownType, ""},
		{"half a surrogate", `{"type":"send","_reqId":"r1","mode":"\ud800"}`, wire.CodeBadFrame, ""},
		{"a request id as number", `{"type":"members","_reqId":7}`, wire.CodeBadFrame, ""},
		{"a long request id is cut at a rune", `{"type":"shout","_reqId":"` + long + `"}`, wire.CodeUnknownType, long[:63]},
	} {
		out = append(out, newCase("frame", "frame: "+tt.name, string(tt.code), textOrBytes(tt.raw), reqOut{ReqID: tt.req}))
	}
	for _, tt := range []struct{ name, raw string }{
		{"the type first", `{"type":"members","since":3}`},
		{"the type last", `{"since":3,"type":"members"}`},
		{"white space", ` { "type" : "members" , "since":3 } `},
		{"an escape in the type", `{"type":"member\u0073","since":3}`},
		{"an unknown field", `{"type":"members","since":3,"later":{"a":[1]}}`},
		{"another case is another field", `{"type":"members","since":3,"Since":4}`},
	} {
		out = append(out, newCase("frame", "frame: "+tt.name, "", textOrBytes(tt.raw), reqOut{Type: wire.TypeMembers}))
	}
	out = append(out, newCase("frame", "frame: null is absence", "",
		textOrBytes(`{"type":"send","_reqId":"r1","to":null,"nonce":null,"wraps":null}`), reqOut{Type: wire.TypeSend, ReqID: "r1"}))
	return append(out, messageCases()...)
}

func messageCases() (out []vectors.Case) {
	a, b := `{"type":"ok"}`, `{"type":"members","since":1}`
	for _, tt := range []struct {
		name, raw string
		frames    int // 0 for a refusal
	}{
		{"a frame", a, 1}, {"white space around it", " \n" + a + "\t ", 1}, {"an array of one", "[" + a + "]", 1},
		{"an array of two", " [ " + a + " , " + b + " ] ", 2}, {"what is no frame is found later", `[{},{}]`, 2},
		{"nothing", "", 0}, {"white space alone", "  ", 0}, {"an empty array", "[]", 0}, {"an empty array with a space", "[ ]", 0},
		{"an array in an array", "[[" + a + "]]", 0}, {"an array beside a frame", "[" + a + ",[" + a + "]]", 0}, {"a number in an array", "[1]", 0},
		{"a string in an array", `["x"]`, 0}, {"null in an array", "[null]", 0}, {"null", "null", 0}, {"a number", "7", 0}, {"a string", `"x"`, 0},
		{"an open array", "[" + a, 0}, {"bytes after the array", "[" + a + "]x", 0}, {"a comma too many", "[" + a + ",]", 0},
		{"two arrays", "[" + a + "][" + a + "]", 0}, {"invalid UTF-8", "[{\"a\":\"\xff\"}]", 0}, {"a key twice", `[{"a":1,"a":2}]`, 0},
		{"a letter", "x", 0}, {"a byte", "\xff", 0},
	} {
		if tt.frames == 0 {
			out = append(out, newCase("message", "message: "+tt.name, string(wire.CodeBadFrame), textOrBytes(tt.raw), nil))
		} else {
			out = append(out, newCase("message", "message: "+tt.name, "", textOrBytes(tt.raw), messageOut{tt.frames}))
		}
	}
	return out
}
