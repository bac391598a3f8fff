package wire

import "bytes"

// decodeHot decodes a message that holds nothing but hot frames exactly as
// appendHot writes them: the same members in the same order, without spaces or
// escapes. ok is false for any other message, which the general decoder takes;
// a test holds the two against each other. Nothing of msg is kept but Raw.
func decodeHot(dst []Incoming, msg []byte) (in []Incoming, ok bool) {
	d := decoder{b: msg}
	list := d.has('[')
	in = dst
	for {
		start := d.b
		f := d.frame()
		if f == nil || d.bad {
			return dst, false
		}
		in = append(in, Incoming{Raw: start[:len(start)-len(d.b)], Frame: f})
		if !list || !d.has(',') {
			break
		}
	}
	if list {
		d.want("]")
	}
	return in, !d.bad && len(d.b) == 0
}

// decoder reads members from the front of b. What does not fit sets bad.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) has(c byte) bool {
	if len(d.b) == 0 || d.b[0] != c {
		return false
	}
	d.b = d.b[1:]
	return true
}

func (d *decoder) try(s string) bool {
	if len(d.b) < len(s) || string(d.b[:len(s)]) != s {
		return false
	}
	d.b = d.b[len(s):]
	return true
}

func (d *decoder) want(s string) {
	if !d.try(s) {
		d.bad = true
	}
}

// raw returns the text before the next quote and passes it.
func (d *decoder) raw() []byte {
	i := bytes.IndexByte(d.b, '"')
	if i < 0 {
		d.bad = true
		return nil
	}
	s := d.b[:i]
	d.b = d.b[i+1:]
	return s
}

// text returns a string that needs no escaping.
func (d *decoder) text() string {
	s := string(d.raw())
	if !plain(s) {
		d.bad = true
	}
	return s
}

func (d *decoder) hex(dst []byte) {
	if decodeHex(dst, d.raw()) != nil {
		d.bad = true
	}
}

func (d *decoder) blob() (b Blob) {
	if b.UnmarshalText(d.raw()) != nil {
		d.bad = true
	}
	return b
}

func (d *decoder) int() (n int64) {
	neg, digits := d.has('-'), 0
	for ; len(d.b) > 0 && d.b[0] >= '0' && d.b[0] <= '9' && digits < 18; digits++ {
		if digits == 1 && n == 0 {
			d.bad = true // a leading zero
		}
		n = n*10 + int64(d.b[0]-'0')
		d.b = d.b[1:]
	}
	if digits == 0 || neg && n == 0 {
		d.bad = true
	}
	if neg {
		return -n
	}
	return n
}

func (d *decoder) bool() bool {
	if d.try("true") {
		return true
	}
	d.want("false")
	return false
}

func (d *decoder) mode() (m Mode) {
	raw := d.raw()
	for _, known := range [...]Mode{ModeDM, ModeGroup, ModeBroadcast, ModeReceipt} {
		if string(raw) == string(known) {
			return known
		}
	}
	d.bad = true
	return ""
}

func (d *decoder) priority() Priority {
	raw := d.raw()
	for _, known := range Priorities {
		if string(raw) == string(known) {
			return known
		}
	}
	d.bad = true
	return ""
}

// frame decodes one hot frame; nil is another type.
func (d *decoder) frame() Frame {
	d.want(`{"type":"`)
	switch {
	case d.try(`send"`):
		return d.send()
	case d.try(`client_ack"`):
		return d.clientAck()
	case d.try(`push"`):
		return d.push()
	case d.try(`ack"`):
		return d.ack()
	case d.try(`receipt"`):
		return d.receipt()
	}
	return nil
}

func (d *decoder) req() (r Req) {
	if d.try(`,"_reqId":"`) {
		r.ReqID = d.text()
		d.bad = d.bad || r.ReqID == ""
	}
	return r
}

// sealed reads what a message is to the broker, which send and push share.
func (d *decoder) sealed() (p Priority, expires int64, nonce, ciphertext Blob) {
	d.want(`,"priority":"`)
	p = d.priority()
	d.want(`,"expires":`)
	expires = d.int()
	d.want(`,"nonce":"`)
	nonce = d.blob()
	d.want(`,"ciphertext":"`)
	return p, expires, nonce, d.blob()
}

func (d *decoder) send() *Send {
	f := &Send{Req: d.req()}
	d.want(`,"id":"`)
	d.hex(f.ID[:])
	d.want(`,"mode":"`)
	f.Mode = d.mode()
	if d.try(`,"from":"`) {
		d.hex(f.From[:])
	}
	if d.try(`,"to":"`) {
		d.hex(f.To[:])
	}
	f.Priority, f.Expires, f.Nonce, f.Ciphertext = d.sealed()
	if d.try(`,"wraps":[`) {
		for first := true; first || d.has(','); first = false {
			var w Wrap
			d.want(`{"to":"`)
			d.hex(w.To[:])
			d.want(`,"box":"`)
			w.Box = d.blob()
			d.want("}")
			if d.bad {
				return f
			}
			f.Wraps = append(f.Wraps, w)
		}
		d.want("]")
	}
	d.want("}")
	return f
}

func (d *decoder) clientAck() *ClientAck {
	f := &ClientAck{Deliveries: []int64{}}
	d.want(`,"deliveries":[`)
	for !d.bad && !d.has(']') {
		if len(f.Deliveries) > 0 {
			d.want(",")
		}
		f.Deliveries = append(f.Deliveries, d.int())
	}
	d.want("}")
	return f
}

func (d *decoder) push() *Push {
	f := new(Push)
	d.want(`,"delivery":`)
	f.Delivery = d.int()
	d.want(`,"id":"`)
	d.hex(f.ID[:])
	d.want(`,"mode":"`)
	f.Mode = d.mode()
	d.want(`,"to":"`)
	d.hex(f.To[:])
	d.want(`,"senderPubkey":"`)
	d.hex(f.SenderPubkey[:])
	d.want(`,"senderMember":"`)
	d.hex(f.SenderMember[:])
	f.Priority, f.Expires, f.Nonce, f.Ciphertext = d.sealed()
	if d.try(`,"wrap":"`) {
		f.Wrap = d.blob()
	}
	d.want(`,"createdAt":`)
	f.CreatedAt = d.int()
	d.want(`,"membersVersion":`)
	f.MembersVersion = d.int()
	d.want("}")
	return f
}

func (d *decoder) ack() *Ack {
	f := &Ack{Req: d.req(), Recipients: []Recipient{}}
	d.want(`,"id":"`)
	d.hex(f.ID[:])
	d.want(`,"queued":`)
	f.Queued = d.bool()
	if d.try(`,"duplicate":`) {
		f.Duplicate = d.bool()
	}
	d.want(`,"recipients":[`)
	for !d.bad && !d.has(']') {
		if len(f.Recipients) > 0 {
			d.want(",")
		}
		var r Recipient
		d.want(`{"key":"`)
		d.hex(r.Key[:])
		d.want(`,"online":`)
		r.Online = d.bool()
		if d.try(`,"state":"`) {
			r.State = State(d.text())
		}
		if d.try(`,"code":"`) {
			r.Code = Code(d.text())
		}
		d.want("}")
		f.Recipients = append(f.Recipients, r)
	}
	d.want("}")
	return f
}

func (d *decoder) receipt() *Receipt {
	f := new(Receipt)
	d.want(`,"id":"`)
	d.hex(f.ID[:])
	d.want(`,"recipient":"`)
	d.hex(f.Recipient[:])
	d.want(`,"state":"`)
	f.State = State(d.text())
	if d.try(`,"code":"`) {
		f.Code = Code(d.text())
	}
	d.want(`,"at":`)
	f.At = d.int()
	d.want("}")
	return f
}
