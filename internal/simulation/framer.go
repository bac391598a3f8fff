package simulation

import (
	"bytes"
	"encoding/binary"
)

// framer finds the WebSocket frames in the bytes of one direction and repeats
// some: a frame is complete in itself, so that its bytes again are the frame again.
type framer struct {
	skip     int // text frames at the start that are never repeated: the handshake
	upgraded bool
	buf      []byte // of the HTTP head, then of the frame under way
	repeat   int    // text frames to repeat
	late     bool   // and not at once, but after the next one
	held     []byte
	repeated int
}

var headEnd = []byte("\r\n\r\n")

// pass returns what goes on for b: b, and what is repeated.
func (f *framer) pass(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		n := min(f.need(), len(b))
		f.buf = append(f.buf, b[:n]...)
		out = append(out, b[:n]...)
		b = b[n:]
		if !f.upgraded {
			if bytes.HasSuffix(f.buf, headEnd) {
				f.upgraded, f.buf = true, nil
			}
			continue
		}
		if f.need() == 0 {
			out = f.over(out)
		}
	}
	return out
}

// over handles the end of a frame.
func (f *framer) over(out []byte) []byte {
	frame := f.buf
	f.buf = nil
	if f.held != nil {
		out, f.held = append(out, f.held...), nil
		f.repeated++
	}
	if frame[0] != 0x81 { // a whole text message
		return out
	}
	if f.skip > 0 {
		f.skip--
		return out
	}
	if f.repeat > 0 {
		f.repeat--
		if f.late {
			f.held = frame
		} else {
			out = append(out, frame...)
			f.repeated++
		}
	}
	return out
}

// need is how many bytes are missing of what is under way, as far as is known.
func (f *framer) need() int {
	if !f.upgraded {
		return 1
	}
	if len(f.buf) < 2 {
		return 2 - len(f.buf)
	}
	head, body := 2, int(f.buf[1]&0x7f)
	switch body {
	case 126:
		head += 2
	case 127:
		head += 8
	}
	if len(f.buf) < head {
		return head - len(f.buf)
	}
	switch body {
	case 126:
		body = int(binary.BigEndian.Uint16(f.buf[2:]))
	case 127:
		body = int(binary.BigEndian.Uint64(f.buf[2:]))
	}
	if f.buf[1]&0x80 != 0 {
		head += 4
	}
	return head + body - len(f.buf)
}
