package broker

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// gate counts what strangers do: unauthenticated sockets, and failed joins and
// invite look-ups, by address.
type gate struct {
	perAddress, total int
	failures          rate.Limit
	burst             int
	now               func() time.Time

	mu      sync.Mutex
	sockets map[netip.Prefix]int
	all     int
	failed  map[netip.Prefix]*rate.Limiter
}

func newGate(l Limits, now func() time.Time) *gate {
	return &gate{
		perAddress: l.PreAuthPerAddress, total: l.PreAuth,
		failures: perMinute(l.FailuresPerMinute), burst: l.FailuresPerMinute, now: now,
		sockets: map[netip.Prefix]int{}, failed: map[netip.Prefix]*rate.Limiter{},
	}
}

func perMinute(n int) rate.Limit { return rate.Limit(float64(n) / 60) }

// enter admits one more unauthenticated socket; leave is called when it has
// authenticated or gone.
func (g *gate) enter(a netip.Prefix) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.all >= g.total || g.sockets[a] >= g.perAddress {
		return false
	}
	g.all++
	g.sockets[a]++
	return true
}

func (g *gate) leave(a netip.Prefix) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all--
	if g.sockets[a]--; g.sockets[a] <= 0 {
		delete(g.sockets, a)
	}
}

// blocked reports whether an address has failed too often, and when it may try again.
func (g *gate) blocked(a netip.Prefix) (time.Duration, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.failed[a]
	if l == nil {
		return 0, false
	}
	if t := l.TokensAt(g.now()); t < 1 {
		return time.Duration((1 - t) / float64(g.failures) * float64(time.Second)), true
	}
	return 0, false
}

// fail counts a failure.
func (g *gate) fail(a netip.Prefix) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.failed[a]
	if l == nil {
		l = rate.NewLimiter(g.failures, g.burst)
		g.failed[a] = l
	}
	l.AllowN(g.now(), 1)
}

// sweep forgets addresses whose failures have worn off.
func (g *gate) sweep() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for a, l := range g.failed {
		if l.TokensAt(g.now()) >= float64(g.burst) {
			delete(g.failed, a)
		}
	}
}

// address is whom limits count: an IPv4 address, or the /64 of an IPv6 one.
func (b *Broker) address(r *http.Request) netip.Prefix {
	host := r.RemoteAddr
	if h := b.cfg.ClientIPHeader; h != "" && r.Header.Get(h) != "" {
		list := r.Header.Values(h) // the proxy's own word is the last
		host = list[len(list)-1]
		host = strings.TrimSpace(host[strings.LastIndexByte(host, ',')+1:])
	} else if s, _, err := net.SplitHostPort(host); err == nil {
		host = s
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}
	}
	a = a.Unmap()
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// pace limits what one member sends.
type pace struct {
	sends, bytes, receipts, changes *rate.Limiter
	until                           time.Time // of the last refusal of a message
}

func newPace(l Limits) *pace {
	return &pace{
		sends:    rate.NewLimiter(perMinute(l.SendsPerMinute), l.SendBurst),
		receipts: rate.NewLimiter(perMinute(l.SendsPerMinute), l.SendBurst),
		changes:  rate.NewLimiter(perMinute(l.SendsPerMinute), l.SendBurst),
		bytes:    rate.NewLimiter(perMinute(l.BytesPerMinute), l.BytesPerMinute),
	}
}

// take spends one send of n bytes, or says how long to wait. Read receipts
// have a budget of their own, so that reading does not silence a member. Once a
// message is refused, so are those after it until its time has come: a smaller one
// must not overtake it.
func (p *pace) take(now time.Time, mode wire.Mode, n int) (wait time.Duration) {
	sends, receipt := p.sends, mode == wire.ModeReceipt
	if receipt {
		sends = p.receipts
	} else if wait = p.until.Sub(now); wait > 0 {
		return wait
	}
	s := sends.ReserveN(now, 1)
	b := p.bytes.ReserveN(now, min(n, p.bytes.Burst()))
	if wait = max(s.DelayFrom(now), b.DelayFrom(now)); wait > 0 {
		s.CancelAt(now)
		b.CancelAt(now)
		if !receipt {
			p.until = now.Add(wait)
		}
	}
	return wait
}

// change spends one change to how the mesh is run, of which everyone is told, or
// says how long to wait.
func (p *pace) change(now time.Time) (wait time.Duration) {
	r := p.changes.ReserveN(now, 1)
	if wait = r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
	}
	return wait
}
