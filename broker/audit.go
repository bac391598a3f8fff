package broker

import (
	"sync"
	"time"

	"github.com/claudemesh/claudemesh/internal/audit"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// record notes what happened, for Config.Audit. No lock may be held: it writes a file.
func (b *Broker) record(e audit.Entry) {
	if b.cfg.Audit != nil {
		e.At = b.cfg.Now().UnixMilli()
		b.cfg.Audit(e)
	}
}

// record notes what this connection's member did to another, or to itself.
func (c *conn) record(event audit.Event, member wire.Key, code string) {
	e := audit.Entry{Event: event, Mesh: c.mesh.id, Member: member, Code: code}
	if member != c.member {
		e.Note = "by " + c.member.Short()
	}
	c.b.record(e)
}

// recordRefused notes that a message was refused.
func (c *conn) recordRefused(id wire.ID, code wire.Code) {
	if c.b.refusals.first(c.mesh.id, c.member, code, c.b.cfg.Now()) {
		c.b.record(audit.Entry{Event: audit.Refused, Mesh: c.mesh.id, Member: c.member, Session: c.key, Message: id, Code: string(code)})
	}
}

// recordHello notes that a hello was refused. Only a member is named, that has
// signed it: whoever comes may say many names.
func (c *conn) recordHello(code wire.Code) {
	e := audit.Entry{Event: audit.Refused, Code: string(code), Note: "hello"}
	if h := c.hello; h != nil {
		if m := c.b.loadedMesh(h.MeshID); m != nil {
			e.Mesh = m.id
			m.mu.Lock()
			if _, known := m.roster.Known(h.Pubkey); known {
				e.Member, e.Session = h.Pubkey, h.SessionPubkey
			}
			m.mu.Unlock()
		}
	}
	if c.b.refusals.first(e.Mesh, e.Member, code, c.b.cfg.Now()) {
		c.b.record(e)
	}
}

// refusals thins out what is noted of refusals: one of a member and a code in a minute.
type refusals struct {
	mu     sync.Mutex
	minute int64
	seen   map[refusal]struct{}
}

type refusal struct {
	mesh   wire.ID
	member wire.Key
	code   wire.Code
}

// first reports whether it is the first of its kind in this minute.
func (r *refusals) first(mesh wire.ID, member wire.Key, code wire.Code, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if minute := now.Unix() / 60; r.seen == nil || minute != r.minute {
		r.minute, r.seen = minute, map[refusal]struct{}{}
	}
	k := refusal{mesh, member, code}
	_, seen := r.seen[k]
	r.seen[k] = struct{}{}
	return !seen
}
