package client

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Recipient is a key that a target resolved to.
type Recipient struct {
	Key      Key
	Member   Key
	Name     string
	Online   bool
	LastSeen time.Time // zero when online or never seen
	Wakeability
	person bool // the target named a member: its own key will do when the session is gone
}

// Wakeability is what a session that is online says of when it sees a message.
type Wakeability struct {
	Wake  Path      // by which path one gets in; "" unknown
	Woken time.Time // when one last did; zero: never
	DND   bool      // it is not to be disturbed
}

// Wakeability of a session that is online; zero for others.
func (p *Peer) Wakeability() (w Wakeability) {
	if p.Online && p.Role == Session {
		w = Wakeability{p.Card.Wake, p.Woken, p.Card.Status == StatusDND}
	}
	return w
}

// Reason says why a target did not resolve, in one word.
type Reason string

// The reasons.
const (
	ReasonNotFound  Reason = "not_found"
	ReasonAmbiguous Reason = "ambiguous"
	ReasonSelf      Reason = "self"
	ReasonEmpty     Reason = "empty"
	ReasonInvalid   Reason = "invalid"
)

// TargetError is a target that does not resolve. Candidates are those it could mean, or the nearest
// names; each one's Key or FullName is valid input.
type TargetError struct {
	Target     string
	Reason     Reason
	Candidates []Peer
}

func (e *TargetError) Error() string {
	switch e.Reason {
	case ReasonAmbiguous:
		return fmt.Sprintf("%q could be any of %d", e.Target, len(e.Candidates))
	case ReasonSelf:
		return fmt.Sprintf("%q is you", e.Target)
	case ReasonEmpty:
		return fmt.Sprintf("nobody but you is in %q", e.Target)
	case ReasonInvalid:
		return fmt.Sprintf("%q is no name, @group, * or key", e.Target)
	}
	return fmt.Sprintf("nobody here is called %q", e.Target)
}

// directory is what targets are resolved against: the one resolver's only input.
type directory struct {
	self    Key      // never matches a name, never receives
	members []Member // current ones
	peers   []Peer   // sessions and persons, live and known offline ones
	now     time.Time
}

// resolve finds who one target means. Multi is true for @group and *.
//
// Names: member/label, label, member. A live match goes before an offline one;
// one match routes, several are an error that lists them. A member with one live
// session means that session, with none the member's own key. Keys: 8 to 64
// hex digits of a session or member key.
func (d *directory) resolve(target string) (to []Recipient, multi bool, err error) {
	fail := func(r Reason, c []Peer) ([]Recipient, bool, error) {
		return nil, false, &TargetError{Target: target, Reason: r, Candidates: c}
	}
	switch {
	case target == "*" || target == "@all":
		to = d.everyone()
	case strings.HasPrefix(target, "@"):
		to = d.group(target[1:])
	case target == "" || len(target) > 128 || strings.ContainsAny(target, " \t\r\n,:"):
		return fail(ReasonInvalid, nil)
	default:
		r, reason, candidates := d.one(target)
		if reason != "" {
			return fail(reason, candidates)
		}
		return []Recipient{r}, false, nil
	}
	if len(to) == 0 {
		return fail(ReasonEmpty, nil)
	}
	return to, true, nil
}

// one resolves a name or key to one recipient.
func (d *directory) one(target string) (Recipient, Reason, []Peer) {
	hits := d.byName(target)
	if len(hits) == 0 && isHex(target) {
		hits = d.byKey(target)
	}
	switch {
	case len(hits) == 1 && hits[0].self:
		return Recipient{}, ReasonSelf, nil
	case len(hits) == 1:
		return hits[0].Recipient, "", nil
	case len(hits) > 1:
		var c []Peer
		for _, h := range hits {
			c = append(c, h.shown)
		}
		return Recipient{}, ReasonAmbiguous, c
	}
	return Recipient{}, ReasonNotFound, d.nearest(target)
}

// hit is one thing that a target may mean.
type hit struct {
	Recipient
	shown Peer // as a candidate
	self  bool
}

// byName returns what a name may mean: exact matches only, live before offline,
// never this session.
func (d *directory) byName(target string) []hit {
	var live, off []hit
	for _, p := range d.peers {
		if p.Role != Session || p.Key == d.self || (p.FullName() != target && p.Card.Label != target) {
			continue
		}
		if h := d.session(p); p.Online {
			live = append(live, h)
		} else {
			off = append(off, h)
		}
	}
	for _, m := range d.members {
		if m.Name == target {
			l, o := d.member(m)
			live, off = append(live, l...), append(off, o...)
		}
	}
	if live = distinct(live); len(live) > 0 {
		return live
	}
	return distinct(off)
}

// member returns what a member's name means: its live sessions, or its own key.
// A person at a terminal is no session: the message waits in the member's mailbox, which that person reads.
func (d *directory) member(m Member) (live, off []hit) {
	h := hit{Recipient: Recipient{Key: m.Key, Member: m.Key, Name: m.Name, person: true}, self: m.Key == d.self}
	for _, p := range d.peers {
		switch {
		case p.Member != m.Key || p.Key == d.self:
		case p.Role == Session && p.Online:
			s := d.session(p)
			s.person = true
			live = append(live, s)
		case p.Role == Person && p.Online:
			h.Online = true
		case p.LastSeen.After(h.LastSeen):
			h.LastSeen = p.LastSeen
		}
	}
	if len(live) > 0 {
		return live, nil
	}
	if h.Online {
		h.LastSeen = time.Time{}
	}
	h.shown = Peer{Key: m.Key, Member: m.Key, Name: m.Name, Role: Person, Online: h.Online, LastSeen: h.LastSeen}
	return nil, []hit{h}
}

func (d *directory) session(p Peer) hit {
	r := Recipient{Key: p.Key, Member: p.Member, Name: p.FullName(), Online: p.Online, Wakeability: p.Wakeability()}
	if !p.Online {
		r.LastSeen = p.LastSeen
	}
	return hit{Recipient: r, shown: p, self: p.Key == d.self}
}

// byKey returns the sessions and members whose key starts with the digits.
func (d *directory) byKey(digits string) (hits []hit) {
	for _, p := range d.peers {
		if p.Role == Session && strings.HasPrefix(p.Key.String(), digits) {
			hits = append(hits, d.session(p))
		}
	}
	for _, m := range d.members {
		if strings.HasPrefix(m.Key.String(), digits) {
			_, own := (&directory{self: d.self, peers: d.persons(m.Key)}).member(m)
			hits = append(hits, own...)
		}
	}
	return distinct(hits)
}

// persons returns the peers of a member without its sessions: a member's key
// in full means its own mailbox, whatever sessions it has.
func (d *directory) persons(member Key) (out []Peer) {
	for _, p := range d.peers {
		if p.Member == member && (p.Role == Person || !p.Online) {
			out = append(out, p)
		}
	}
	return out
}

func distinct(hits []hit) []hit {
	seen := map[Key]bool{}
	return slices.DeleteFunc(hits, func(h hit) bool {
		dup := seen[h.Key]
		seen[h.Key] = true
		return dup
	})
}

func isHex(s string) bool {
	return len(s) >= 8 && len(s) <= 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// group returns the sessions of a group that were seen in the last 7 days.
func (d *directory) group(name string) (to []Recipient) {
	for _, p := range d.peers {
		if p.InGroup(name) && d.reachable(p) {
			to = append(to, d.session(p).Recipient)
		}
	}
	return to
}

func (d *directory) reachable(p Peer) bool {
	return p.Role == Session && p.Key != d.self && (p.Online || d.now.Sub(p.LastSeen) < recent)
}

// everyone returns every session seen in the last 7 days, and the own key of
// each member that has none.
func (d *directory) everyone() (to []Recipient) {
	has := map[Key]bool{}
	for _, p := range d.peers {
		if p.Key == d.self {
			has[p.Member] = true
		}
		if d.reachable(p) {
			has[p.Member] = true
			to = append(to, d.session(p).Recipient)
		}
	}
	for _, m := range d.members {
		if !has[m.Key] && !m.Self {
			_, own := d.member(m)
			if len(own) > 0 {
				to = append(to, own[0].Recipient)
			}
		}
	}
	return to
}

// nearest returns up to three peers whose names look like the target.
func (d *directory) nearest(target string) []Peer {
	type scored struct {
		p    Peer
		dist int
	}
	var all []scored
	consider := func(p Peer, names ...string) {
		best := 1 << 20
		for _, n := range names {
			best = min(best, distance(target, n))
			if n != "" && (strings.Contains(n, target) || strings.Contains(target, n)) {
				best = min(best, 2)
			}
		}
		if best <= max(2, len(target)/2) {
			all = append(all, scored{p, best})
		}
	}
	for _, p := range d.peers {
		if p.Role == Session && p.Key != d.self {
			consider(p, p.FullName(), p.Card.Label, p.Name)
		}
	}
	for _, m := range d.members {
		if !m.Self {
			consider(Peer{Key: m.Key, Member: m.Key, Name: m.Name, Role: Person}, m.Name)
		}
	}
	slices.SortStableFunc(all, func(a, b scored) int {
		return cmp.Or(cmp.Compare(a.dist, b.dist), cmp.Compare(a.p.FullName(), b.p.FullName()))
	})
	var out []Peer
	for _, s := range all[:min(3, len(all))] {
		out = append(out, s.p)
	}
	return out
}

// distance is Levenshtein's, over bytes: names are ASCII.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diag, row[j+1] = row[j+1], min(row[j]+1, row[j+1]+1, diag+cost)
		}
	}
	return row[len(b)]
}
