package broker

import (
	"slices"
	"time"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// lane is what keeps its order: what one sender has for one recipient, of one
// priority. The zero lane is everything of that sender.
type lane struct {
	to   PeerID
	rank int
}

// putOff is what was refused of a lane for now, in order. A client has more on its
// way before it hears of a refusal: until the first comes again, nothing else of
// the lane may pass.
type putOff struct {
	ids   []wire.ID
	code  wire.Code
	until time.Time
}

const (
	// overdue is well beyond the pause that clients make before they send again.
	overdue = 90 * time.Second
	// maxPutOff is more than a client has on its way.
	maxPutOff = 256
	maxLanes  = 1000
)

// putOff notes a message that is refused for now. mesh.mu is held.
func (p *peer) putOff(l lane, id wire.ID, code wire.Code, now time.Time) error {
	o := p.putOffs[l]
	if o == nil || !now.Before(o.until) {
		if p.putOffs == nil || len(p.putOffs) >= maxLanes {
			p.putOffs = map[lane]*putOff{}
		}
		o = &putOff{code: code, until: now.Add(overdue)}
		p.putOffs[l] = o
	}
	switch i := slices.Index(o.ids, id); {
	case i == 0:
		o.code, o.until = code, now.Add(overdue)
	case i < 0 && len(o.ids) < maxPutOff:
		o.ids = append(o.ids, id)
	}
	return wire.Faultf(code, "")
}

// heldUp returns why a message of a lane may not pass: one before it was put off.
// mesh.mu is held.
func (p *peer) heldUp(l lane, id wire.ID, now time.Time) wire.Code {
	if o := p.putOffs[l]; o != nil && o.ids[0] != id && now.Before(o.until) {
		return o.code
	}
	return ""
}

// letGo ends what a message that passes has held up. mesh.mu is held.
func (p *peer) letGo(id wire.ID) {
	for l, o := range p.putOffs {
		if i := slices.Index(o.ids, id); i >= 0 {
			o.ids = slices.Delete(o.ids, i, i+1)
		}
		if len(o.ids) == 0 {
			delete(p.putOffs, l)
		}
	}
}
