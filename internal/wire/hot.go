package wire

import (
	"slices"
	"strconv"
)

// appendHot encodes the frames of the hot path without reflection or escaping:
// each value's alphabet is known to be safe in JSON. ok is false for any other
// frame, and for one whose text fields are not of that alphabet; the general
// encoder, which a test holds this one against, takes those.
func appendHot(dst []byte, f Frame) (out []byte, ok bool) {
	e := encoder{dst}
	switch f := f.(type) {
	case *Push:
		if !f.Mode.Valid() || f.Priority.Rank() < 0 {
			return dst, false
		}
		e.push(f)
	case *Send:
		if !f.Mode.Valid() || f.Priority.Rank() < 0 || !plain(f.ReqID) {
			return dst, false
		}
		e.send(f)
	case *Ack:
		if !plain(f.ReqID) || f.Recipients == nil || !e.ack(f) {
			return dst, false
		}
	case *Receipt:
		if !plain(string(f.State)) || !plain(string(f.Code)) {
			return dst, false
		}
		e.open(TypeReceipt)
		e.receipt(f)
	case *ClientAck:
		if f.Deliveries == nil {
			return dst, false
		}
		e.clientAck(f)
	default:
		return dst, false
	}
	return append(e.b, '}'), true
}

// plain reports whether s needs no escaping.
func plain(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && (c < 'A' || c > 'Z') && c != '-' {
			return false
		}
	}
	return true
}

// encoder appends members to an object that open has begun.
type encoder struct{ b []byte }

func (e *encoder) open(t Type) {
	e.b = append(e.b, `{"type":"`...)
	e.b = append(e.b, t...)
	e.b = append(e.b, '"')
}

func (e *encoder) name(n string) {
	if e.b[len(e.b)-1] != '{' {
		e.b = append(e.b, ',')
	}
	e.b = append(e.b, '"')
	e.b = append(e.b, n...)
	e.b = append(e.b, '"', ':')
}

func (e *encoder) text(n, v string) {
	e.name(n)
	e.b = append(append(append(e.b, '"'), v...), '"')
}

func (e *encoder) hex(n string, v []byte) {
	e.name(n)
	e.b = append(appendHex(append(e.b, '"'), v), '"')
}

func (e *encoder) blob(n string, v []byte) {
	e.name(n)
	e.b = append(strictBase64.AppendEncode(append(e.b, '"'), v), '"')
}

func (e *encoder) int(n string, v int64) {
	e.name(n)
	e.b = strconv.AppendInt(e.b, v, 10)
}

func (e *encoder) yes(n string, v bool) {
	e.name(n)
	e.b = strconv.AppendBool(e.b, v)
}

func (e *encoder) req(id string) {
	if id != "" {
		e.text("_reqId", id)
	}
}

// room makes room for a frame with blobs of n bytes in all, at once.
func (e *encoder) room(n int) { e.b = slices.Grow(e.b, 600+strictBase64.EncodedLen(n)) }

func (e *encoder) push(p *Push) {
	e.room(len(p.Nonce) + len(p.Ciphertext) + len(p.Wrap))
	e.open(TypePush)
	e.int("delivery", p.Delivery)
	e.hex("id", p.ID[:])
	e.text("mode", string(p.Mode))
	e.hex("to", p.To[:])
	e.hex("senderPubkey", p.SenderPubkey[:])
	e.hex("senderMember", p.SenderMember[:])
	e.text("priority", string(p.Priority))
	e.int("expires", p.Expires)
	e.blob("nonce", p.Nonce)
	e.blob("ciphertext", p.Ciphertext)
	if len(p.Wrap) > 0 {
		e.blob("wrap", p.Wrap)
	}
	e.int("createdAt", p.CreatedAt)
	e.int("membersVersion", p.MembersVersion)
}

func (e *encoder) send(s *Send) {
	e.room(len(s.Nonce) + len(s.Ciphertext))
	e.open(TypeSend)
	e.req(s.ReqID)
	e.hex("id", s.ID[:])
	e.text("mode", string(s.Mode))
	if !s.From.IsZero() {
		e.hex("from", s.From[:])
	}
	if !s.To.IsZero() {
		e.hex("to", s.To[:])
	}
	e.text("priority", string(s.Priority))
	e.int("expires", s.Expires)
	e.blob("nonce", s.Nonce)
	e.blob("ciphertext", s.Ciphertext)
	if len(s.Wraps) == 0 {
		return
	}
	e.name("wraps")
	e.b = append(e.b, '[')
	for i := range s.Wraps {
		if i > 0 {
			e.b = append(e.b, ',')
		}
		e.b = append(e.b, '{')
		e.hex("to", s.Wraps[i].To[:])
		e.blob("box", s.Wraps[i].Box)
		e.b = append(e.b, '}')
	}
	e.b = append(e.b, ']')
}

// ack reports false for a frame with text that is not plain.
func (e *encoder) ack(a *Ack) bool {
	e.open(TypeAck)
	e.req(a.ReqID)
	e.hex("id", a.ID[:])
	e.yes("queued", a.Queued)
	if a.Duplicate {
		e.yes("duplicate", true)
	}
	e.name("recipients")
	e.b = append(e.b, '[')
	for i := range a.Recipients {
		r := &a.Recipients[i]
		if !plain(string(r.State)) || !plain(string(r.Code)) {
			return false
		}
		if i > 0 {
			e.b = append(e.b, ',')
		}
		e.b = append(e.b, '{')
		e.hex("key", r.Key[:])
		e.yes("online", r.Online)
		if r.State != "" {
			e.text("state", string(r.State))
		}
		if r.Code != "" {
			e.text("code", string(r.Code))
		}
		e.b = append(e.b, '}')
	}
	e.b = append(e.b, ']')
	return len(a.Skipped) == 0 // rare: the general encoder's
}

func (e *encoder) receipt(r *Receipt) {
	e.hex("id", r.ID[:])
	e.hex("recipient", r.Recipient[:])
	e.text("state", string(r.State))
	if r.Code != "" {
		e.text("code", string(r.Code))
	}
	e.int("at", r.At)
}

func (e *encoder) clientAck(a *ClientAck) {
	e.open(TypeClientAck)
	e.name("deliveries")
	e.b = append(e.b, '[')
	for i, d := range a.Deliveries {
		if i > 0 {
			e.b = append(e.b, ',')
		}
		e.b = strconv.AppendInt(e.b, d, 10)
	}
	e.b = append(e.b, ']')
}
