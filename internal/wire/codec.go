// Package wire is the protocol between peers and broker as bytes: frames,
// their JSON field names, codes, close codes and limits. It knows neither keys
// nor rules; packages trust and seal do.
//
// A WebSocket text message holds one frame or an array of frames. The source
// is docs/protocol.md, sections 5 and 8.
package wire

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Version is the protocol version of this code.
const Version = 2

// Limits of the protocol itself; a broker may set lower ones.
const (
	MaxHelloBytes   = 16 << 10  // the one frame of an unauthenticated socket
	MaxMessageBytes = 128 << 10 // one WebSocket message after hello
	MaxBodyBytes    = 32 << 10  // plaintext of one message
	MaxWraps        = 256       // recipients of one group message
	MaxHTTPBytes    = 64 << 10  // one HTTP body
	MaxStatusIDs    = 256       // ids in one message_status
	MaxAcks         = 1024      // deliveries in one client_ack
	PageBytes       = 64 << 10  // of a list in one frame, roughly
	MaxInvites      = 128       // invites in one list, the newest
)

// ErrUnknownType is wrapped by Decode for a frame whose type is not in the table.
var ErrUnknownType = errors.New("unknown frame type")

// DecodeError says which frame of a message failed and whose request it was.
type DecodeError struct {
	ReqID string // "" when it could not be read
	Code  Code
	Err   error
}

func (e *DecodeError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *DecodeError) Unwrap() error { return e.Err }

// Marshal encodes any value of this package strictly.
func Marshal(v any) ([]byte, error) { return json.Marshal(v) }

// Unmarshal decodes strictly: duplicate keys, malformed UTF-8 and wrong types
// are errors; unknown members are ignored, so that later versions may add some.
func Unmarshal(b []byte, v any) error { return json.Unmarshal(b, v) }

// Append appends the JSON of one frame to dst, its type first.
func Append(dst []byte, f Frame) ([]byte, error) {
	if out, ok := appendHot(dst, f); ok {
		return out, nil
	}
	body, err := json.Marshal(f)
	if err != nil {
		return dst, fmt.Errorf("encode %s: %w", f.Type(), err)
	}
	dst = append(dst, `{"type":"`...)
	dst = append(dst, f.Type()...)
	dst = append(dst, '"')
	if len(body) > 2 {
		dst = append(dst, ',')
	}
	return append(dst, body[1:]...), nil
}

var errNoFrame = errors.New("want a frame or an array of frames")

// Incoming is one frame of a message: decoded, or Err, a *DecodeError, says why not.
type Incoming struct {
	Raw   []byte // a part of the message
	Frame Frame
	Err   error
}

// Frames cuts a WebSocket message into its frames, decodes each, and appends
// them to dst. It refuses anything but one object or one non-empty array of objects.
func Frames(dst []Incoming, msg []byte) ([]Incoming, error) {
	if in, ok := decodeHot(dst, msg); ok {
		return in, nil
	}
	raws, err := Split(msg)
	if err != nil {
		return dst, err
	}
	for _, raw := range raws {
		f, err := Decode(raw)
		dst = append(dst, Incoming{raw, f, err})
	}
	return dst, nil
}

// Split cuts a WebSocket message into its frames without decoding them.
// It refuses anything but one object or one non-empty array of objects.
func Split(msg []byte) ([]jsontext.Value, error) {
	msg = bytes.TrimSpace(msg)
	if len(msg) == 0 {
		return nil, errors.New("empty message")
	}
	switch msg[0] {
	case '{':
		return []jsontext.Value{msg}, nil
	case '[':
	default:
		return nil, errNoFrame
	}
	var frames []jsontext.Value
	if err := json.Unmarshal(msg, &frames); err != nil {
		return nil, err
	}
	for _, f := range frames {
		if f.Kind() != '{' {
			return nil, errNoFrame
		}
	}
	if len(frames) == 0 {
		return nil, errNoFrame
	}
	return frames, nil
}

// Decode decodes one frame. A failure is a *DecodeError.
func Decode(raw []byte) (Frame, error) {
	t, err := peekType(raw)
	if err != nil {
		return nil, &DecodeError{Code: CodeBadFrame, Err: err}
	}
	make, ok := blank[t]
	if !ok {
		return nil, &DecodeError{ReqID: peekReqID(raw), Code: CodeUnknownType, Err: fmt.Errorf("%w %q", ErrUnknownType, clip(string(t)))}
	}
	f := make()
	if err := json.Unmarshal(raw, f); err != nil {
		return nil, &DecodeError{ReqID: peekReqID(raw), Code: CodeBadFrame, Err: fmt.Errorf("%s: %w", t, err)}
	}
	return f, nil
}

var typePrefix = []byte(`{"type":"`)

// peekType reads the type: at once when it stands first, as our encoder writes
// it, else by a full scan.
func peekType(raw []byte) (Type, error) {
	if rest, ok := bytes.CutPrefix(raw, typePrefix); ok {
		if i := bytes.IndexByte(rest, '"'); i > 0 && i < 32 && bytes.IndexByte(rest[:i], '\\') < 0 {
			return Type(rest[:i]), nil
		}
	}
	var head struct {
		Type Type `json:"type"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return "", err
	}
	if head.Type == "" {
		return "", errors.New("a frame needs a type")
	}
	return head.Type, nil
}

func peekReqID(raw []byte) string {
	var head struct {
		ReqID string `json:"_reqId"`
	}
	if json.Unmarshal(raw, &head, jsontext.AllowDuplicateNames(true)) != nil {
		return ""
	}
	return clip(head.ReqID)
}

func clip(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") // half a rune could not be sent back
	}
	return s
}
