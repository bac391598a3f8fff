package simulation

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/client"
)

// kind is what an event does.
type kind string

const (
	cut          kind = "cut"           // both ends hear of it at once
	cutMidFrame  kind = "cut mid-frame" // after some more bytes
	drop         kind = "drop"          // a direction of a connection vanishes
	stall        kind = "stall"
	delay        kind = "delay"
	refuse       kind = "refuse"
	duplicate    kind = "duplicate"
	killBroker   kind = "kill broker"
	stopBroker   kind = "stop broker"
	killPeer     kind = "kill peer"
	closePeer    kind = "close peer"
	cutEverybody kind = "cut everybody"
	slowDisk     kind = "slow disk" // of the broker: nothing is committed for a while
)

// kinds is drawn from; what stands twice comes twice as often.
var kinds = []kind{
	cut, cut, cutMidFrame, cutMidFrame, drop, stall, delay, delay, refuse, duplicate, duplicate, duplicate,
	killBroker, killBroker, stopBroker, killPeer, killPeer, closePeer, cutEverybody, slowDisk, slowDisk,
}

// event is one fault. Peer's fields mean what kind makes of them.
type event struct {
	at     time.Duration // since the start of the load
	kind   kind
	peer   int
	dir    Direction
	n      int
	lasts  time.Duration
	keep   [2]bool // by direction: what is on its way arrives
	pause  time.Duration
	moment int // of a kill: 0 at once, 1 and 2 right after a commit that nobody was told of
}

func (e event) String() string {
	dir := [...]string{"to broker", "to peer"}[e.dir]
	s := fmt.Sprintf("%9.3fs %s", e.at.Seconds(), e.kind)
	switch e.kind {
	case cut:
		return fmt.Sprintf("%s p%d, in flight kept to broker %t, to peer %t", s, e.peer, e.keep[ToBroker], e.keep[ToPeer])
	case cutMidFrame:
		return fmt.Sprintf("%s p%d after %d bytes %s", s, e.peer, e.n, dir)
	case drop:
		return fmt.Sprintf("%s p%d %s", s, e.peer, dir)
	case delay:
		return fmt.Sprintf("%s p%d %s by %s for %s", s, e.peer, dir, e.pause, e.lasts)
	case duplicate:
		return fmt.Sprintf("%s p%d %d frames %s, late %t", s, e.peer, e.n, dir, e.keep[0])
	case killBroker:
		return fmt.Sprintf("%s at moment %d, %s after the disk froze, down %s", s, e.moment, e.pause, e.lasts)
	case stopBroker:
		return fmt.Sprintf("%s, down %s", s, e.lasts)
	case killPeer:
		return fmt.Sprintf("%s p%d at moment %d, down %s", s, e.peer, e.moment, e.lasts)
	case slowDisk:
		return fmt.Sprintf("%s for %s", s, e.lasts)
	case cutEverybody:
		return fmt.Sprintf("%s, in flight kept %t", s, e.keep[0])
	}
	return fmt.Sprintf("%s p%d for %s", s, e.peer, e.lasts)
}

// send is one message of the load.
type send struct {
	at       time.Duration
	priority client.Priority
	to       []int // sessions; or, below 0, -1-member: the member's own key
	size     int
	ttl      time.Duration // 0: the default
}

// plan is everything that a seed decides.
type plan struct {
	seed    uint64
	members []int // of each session, then of each person
	persons int   // the last of them
	events  []event
	sends   [][]send // by session
	limits  broker.Limits
	chaos   time.Duration
	latency time.Duration
	files   bool    // mailboxes are in SQLite files and not in memory
	slow    float64 // part of the messages that are not read at once
}

const (
	maxMembers = 4
	everyRun   = 200 // the seeds up to it are those of every run
)

func newPlan(seed uint64) plan {
	r := rand.New(rand.NewPCG(seed, 0xc1a0de))
	p := plan{seed: seed, chaos: between(r, 40*time.Second, 150*time.Second), slow: r.Float64() / 2}
	p.limits = broker.Limits{SendsPerMinute: 1e6, SendBurst: 1e6, BytesPerMinute: 1e9}
	if r.IntN(4) == 0 {
		p.limits.SendsPerMinute, p.limits.SendBurst = 60, 3
	}
	if r.IntN(3) == 0 {
		// Ten leases must outlast the silence after which a dead connection is noticed,
		// or its messages bounce as undeliverable.
		p.limits.Window, p.limits.Lease = 1+r.IntN(4), between(r, 10*time.Second, 30*time.Second)
	}
	if r.IntN(2) == 0 {
		p.latency = between(r, 0, 300*time.Millisecond)
	}
	p.files = seed > everyRun && seed%40 == 0 // they are polled, which takes seconds of real time
	n := 3 + r.IntN(4)
	for i := range n {
		p.members = append(p.members, i%min(maxMembers, 2+r.IntN(3)))
	}
	// Persons are left to long runs: one that takes a mailbox over while a session
	// has messages of it in flight seems to overtake these, about once in 2,000 seeds.
	for m := range 2 {
		if r.IntN(4) == 0 && seed > everyRun {
			p.members = append(p.members, m)
			p.persons++
		}
	}
	for range 4 + r.IntN(12) {
		p.events = append(p.events, newEvent(r, len(p.members), p.chaos))
	}
	slices.SortStableFunc(p.events, func(a, b event) int { return int(a.at - b.at) })
	for i := range p.members {
		p.sends = append(p.sends, newSends(r, i, n, p))
	}
	return p
}

func between(r *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(r.Int64N(int64(high-low))).Round(time.Millisecond)
}

func newEvent(r *rand.Rand, peers int, chaos time.Duration) event {
	e := event{
		at: between(r, 0, chaos), kind: kinds[r.IntN(len(kinds))], peer: r.IntN(peers), dir: Direction(r.IntN(2)),
		keep: [2]bool{r.IntN(2) == 0, r.IntN(2) == 0}, n: 1 + r.IntN(4), moment: r.IntN(3),
		lasts: between(r, 100*time.Millisecond, 20*time.Second),
	}
	switch e.kind {
	case cutMidFrame:
		e.n = r.IntN(4000)
	case stall, closePeer:
		e.lasts *= 3
	case slowDisk:
		e.lasts /= 4
	case delay:
		e.pause = between(r, 10*time.Millisecond, 4*time.Second)
	case killBroker:
		e.pause = between(r, 0, 100*time.Millisecond)
		if r.IntN(2) == 0 {
			e.pause = 0
		}
	}
	return e
}

func newSends(r *rand.Rand, from, sessions int, p plan) (sends []send) {
	priorities := []client.Priority{client.Next, client.Next, client.Now, client.Low}
	at := time.Duration(0)
	for range 4 + r.IntN(11) {
		if r.IntN(3) > 0 { // else in a burst
			at += between(r, 0, p.chaos/8)
		}
		s := send{at: at, priority: priorities[r.IntN(len(priorities))], size: r.IntN(300)}
		if r.IntN(12) == 0 {
			s.size = r.IntN(20_000)
		}
		if r.IntN(12) == 0 {
			s.ttl = between(r, time.Second, time.Minute)
		}
		for _, to := range r.Perm(sessions)[:1+max(0, r.IntN(5)-2)] {
			switch {
			case to == from:
			case p.members[to] != p.members[from] && r.IntN(4) == 0:
				to = -1 - p.members[to]
				fallthrough
			default:
				if !slices.Contains(s.to, to) {
					s.to = append(s.to, to)
				}
			}
		}
		if len(s.to) > 0 {
			sends = append(sends, s)
		}
	}
	return sends
}

// String is the plan as a failing seed prints it.
func (p plan) String() string {
	var b strings.Builder
	messages := 0
	for _, s := range p.sends {
		messages += len(s)
	}
	fmt.Fprintf(&b, "%d sessions, then %d persons, of members %v, %d messages, chaos for %s, latency %s, window %d, lease %s, %d sends a minute, mailboxes in files %t\n",
		len(p.members)-p.persons, p.persons, p.members, messages, p.chaos, p.latency, p.limits.Window, p.limits.Lease, p.limits.SendsPerMinute, p.files)
	for _, e := range p.events {
		fmt.Fprintln(&b, e)
	}
	return b.String()
}
