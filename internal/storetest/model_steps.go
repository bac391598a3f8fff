package storetest

import (
	"errors"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// actions are the steps. Those that ask for something to work on skip without it.
func (m *model) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"":         m.compare,
		"burst":    m.doBurst,
		"burst2":   m.doBurst, // as often as all else that fills and empties queues
		"settle":   m.doSettle,
		"retry":    m.doRetry,
		"page":     m.doPage,
		"tick":     m.doTick,
		"expire":   m.doExpire,
		"prune":    m.doPrune,
		"putPeer":  m.doPutPeer,
		"touch":    m.doTouch,
		"forget":   m.doForget,
		"join":     m.doJoin,
		"remove":   m.doRemove,
		"govern":   m.doGovern,
		"reopen":   func(*rapid.T) { m.s = m.restart() },
		"crash":    func(*rapid.T) { m.s = m.crash() },
		"notThere": m.doNotThere,
	}
}

// pick draws one of what is there, or skips the step.
func pick[T any](rt *rapid.T, from []T, what string) T {
	if len(from) == 0 {
		rt.Skip("no " + what)
	}
	return from[rapid.IntRange(0, len(from)-1).Draw(rt, what)] // a failure prints the index, not the thing
}

// limits are small ones, which cut, and one that does not.
var limits = rapid.SampledFrom([]int{0, 1, 2, 3, 100, 100, 100})

// doBurst gives the store several messages and settlements without waiting, so
// that they share transactions, and then takes their outcomes in order.
func (m *model) doBurst(rt *rapid.T) {
	// A draw may skip the step, so all of it is drawn before any of it is done.
	var start []func() func()
	for range rapid.IntRange(1, 6).Draw(rt, "ops") {
		switch rapid.SampledFrom([]string{"new", "new", "new", "repeat", "settle"}).Draw(rt, "op") {
		case "new":
			msg := m.drawMessage(rt)
			start = append(start, func() func() { return m.startAccept(msg) })
		case "repeat":
			if msg := m.drawRepeat(rt); msg != nil {
				start = append(start, func() func() { return m.startAccept(msg) })
			}
		case "settle":
			ends := m.drawSettlements(rt)
			start = append(start, func() func() { return m.startSettle(ends) })
		}
	}
	var outcomes []func()
	for _, f := range start {
		outcomes = append(outcomes, f())
	}
	for _, outcome := range outcomes {
		outcome()
	}
}

func (m *model) drawMessage(rt *rapid.T) *broker.Message {
	sender := pick(rt, m.live(pick(rt, m.meshes, "mesh")), "sender")
	to := m.live(sender.Mesh)
	msg := &broker.Message{Mesh: sender.Mesh, Sender: sender.ID, ID: m.id(), Mode: wire.ModeDM, Created: m.now,
		Priority: rapid.SampledFrom(wire.Priorities[:]).Draw(rt, "priority"),
		Expires:  m.now.Add(rapid.SampledFrom([]time.Duration{-time.Minute, time.Second, time.Minute, time.Hour, 24 * time.Hour}).Draw(rt, "lifetime")),
		Nonce:    m.bytes(24), Ciphertext: m.bytes(rapid.SampledFrom([]int{0, 1, 100, 9000}).Draw(rt, "size"))}
	copy(msg.Hash[:], m.bytes(32))
	if rapid.Bool().Draw(rt, "group") {
		msg.Mode = wire.ModeGroup
		for range rapid.IntRange(0, 4).Draw(rt, "recipients") { // none: all were skipped
			msg.Deliveries = append(msg.Deliveries, broker.NewDelivery{Recipient: pick(rt, to, "recipient").ID, Wrap: m.bytes(72)})
		}
		return msg
	}
	msg.Deliveries = []broker.NewDelivery{{Recipient: pick(rt, to, "recipient").ID}}
	return msg
}

// drawRepeat makes a message whose id was used before: the same again, another
// body under the same id, or the id of a message that was pruned.
func (m *model) drawRepeat(rt *rapid.T) *broker.Message {
	var before []*broker.Message
	for _, s := range m.stored {
		before = append(before, s.Message)
	}
	for _, p := range m.pruned {
		if m.reachable(p) {
			before = append(before, p)
		}
	}
	if len(before) == 0 {
		return nil
	}
	again := *pick(rt, before, "message before")
	again.Created = m.now // or the oldest would not have the lowest number
	switch rapid.SampledFrom([]string{"same", "shorter", "body", "sender"}).Draw(rt, "repeat") {
	case "shorter": // wraps may shrink on a retry
		if m.message(again.Sender, again.ID) != nil {
			again.Deliveries = again.Deliveries[:len(again.Deliveries)/2]
		}
	case "body":
		again.Hash[31] ^= 1
	case "sender":
		again.Sender = pick(rt, m.live(again.Mesh), "sender").ID
	}
	if m.message(again.Sender, again.ID) == nil && !m.reachable(&again) {
		return nil // it would be new, to a peer that is gone
	}
	return &again
}

// reachable reports whether the broker could accept a message now.
func (m *model) reachable(msg *broker.Message) bool {
	there := func(id broker.PeerID) bool {
		return slices.ContainsFunc(m.live(msg.Mesh), func(p *modelPeer) bool { return p.ID == id })
	}
	return there(msg.Sender) && !slices.ContainsFunc(msg.Deliveries, func(d broker.NewDelivery) bool { return !there(d.Recipient) })
}

// startAccept gives a message to the store and returns what takes the outcome.
func (m *model) startAccept(msg *broker.Message) func() {
	got := make(chan acceptResult, 2)
	m.s.Accept(msg, func(a broker.Accepted, err error) { got <- acceptResult{a, err} })
	return func() {
		m.Helper()
		r := wait(m.world, got)
		if s := m.message(msg.Sender, msg.ID); s != nil {
			if s.Hash != msg.Hash {
				m.fails(r.err, broker.ErrIDReused)
				return
			}
			m.ok(r.err)
			m.equal([]any{r.Duplicate, r.First}, []any{true, int64(0)})
			m.same(r.Outcomes, m.outcomes(s))
			return
		}
		m.ok(r.err)
		m.equal([]any{r.Duplicate, len(r.Outcomes)}, []any{false, 0})
		if r.First <= m.last {
			m.Fatalf("number %d was given after %d", r.First, m.last)
		}
		s := &modelMessage{Message: msg, first: r.First}
		for range msg.Deliveries {
			s.ends = append(s.ends, modelEnd{state: wire.StateQueued, at: msg.Created})
		}
		m.last = r.First + max(1, int64(len(msg.Deliveries))) - 1
		m.stored = append(m.stored, s)
	}
}

// drawNumber draws a delivery that is stored, or one that is not.
func (m *model) drawNumber(rt *rapid.T) (number int64, recipient broker.PeerID) {
	var all []*modelMessage
	for _, s := range m.stored {
		if len(s.ends) > 0 {
			all = append(all, s)
		}
	}
	if len(all) == 0 || rapid.IntRange(0, 9).Draw(rt, "known") == 0 {
		number := rapid.Int64Range(1, m.last+1000).Draw(rt, "number")
		if number > m.last {
			number += 100 // not one that this burst will give
		}
		return number, m.known[0].ID
	}
	s := pick(rt, all, "message")
	i := rapid.IntRange(0, len(s.ends)-1).Draw(rt, "delivery")
	return s.first + int64(i), s.Deliveries[i].Recipient
}

func (m *model) drawSettlements(rt *rapid.T) []broker.Settlement {
	out := make([]broker.Settlement, rapid.IntRange(1, 5).Draw(rt, "settlements"))
	for i := range out {
		e := &out[i]
		number, recipient := m.drawNumber(rt)
		*e = broker.Settlement{Mesh: m.mesh.ID, Delivery: number, Recipient: recipient, Mode: wire.ModeDM}
		if s, n := m.find(number); s != nil {
			*e = end(s.Message, s.first, n)
		}
		if rapid.IntRange(0, 4).Draw(rt, "foreign") == 0 {
			e.Recipient = pick(rt, m.known, "recipient").ID
		}
		e.State, e.At = wire.StateDelivered, m.now
		if rapid.Bool().Draw(rt, "bounce") {
			e.State, e.Code = wire.StateBounced, rapid.SampledFrom([]wire.Code{wire.CodeUndeliverable, wire.CodeBadBox}).Draw(rt, "code")
		}
		if i > 0 && rapid.IntRange(0, 4).Draw(rt, "twice") == 0 {
			*e = out[i-1]
		}
	}
	return out
}

func (m *model) startSettle(ends []broker.Settlement) func() {
	type result struct {
		settled []bool
		err     error
	}
	got := make(chan result, 2)
	m.s.Settle(ends, func(settled []bool, err error) { got <- result{settled, err} })
	return func() {
		m.Helper()
		r := wait(m.world, got)
		m.ok(r.err)
		want := make([]bool, len(ends))
		for i, e := range ends {
			s, n := m.find(e.Delivery)
			if s == nil || s.Deliveries[n].Recipient != e.Recipient || s.ends[n].state != wire.StateQueued {
				continue
			}
			want[i] = true
			s.end(n, e.State, e.Code, e.At)
		}
		m.equal(r.settled, want)
	}
}

func (s *modelMessage) end(i int, state wire.State, code wire.Code, at time.Time) {
	s.ends[i].state, s.ends[i].code, s.ends[i].at = state, code, at
}

func (m *model) doSettle(rt *rapid.T) { m.startSettle(m.drawSettlements(rt))() }

func (m *model) doRetry(rt *rapid.T) {
	var numbers []int64
	want := []int{}
	for range rapid.IntRange(1, 4).Draw(rt, "deliveries") {
		n, _ := m.drawNumber(rt)
		numbers = append(numbers, n)
		if s, i := m.find(n); s != nil && s.ends[i].state == wire.StateQueued {
			s.ends[i].attempts++
			want = append(want, s.ends[i].attempts)
		} else {
			want = append(want, 0)
		}
	}
	got, err := m.s.Retry(m.ctx, numbers)
	m.ok(err)
	m.equal(got, want)
}

func (m *model) doPage(rt *rapid.T) {
	m.compareQueue(pick(rt, m.known, "peer").ID, rapid.IntRange(0, 5).Draw(rt, "limit"))
}

func (m *model) doTick(rt *rapid.T) {
	m.now = m.now.Add(rapid.SampledFrom([]time.Duration{time.Millisecond, time.Second, time.Minute, 2 * time.Hour}).Draw(rt, "pass"))
}

// past draws now or a while ago: the broker's clock may be stepped.
func (m *model) past(rt *rapid.T) time.Time {
	return m.now.Add(-rapid.SampledFrom([]time.Duration{0, 0, time.Minute, time.Hour}).Draw(rt, "ago"))
}

func (m *model) doExpire(rt *rapid.T) {
	at, limit := m.past(rt), limits.Draw(rt, "limit")
	due := 0
	for _, s := range m.stored {
		for _, e := range s.ends {
			if e.state == wire.StateQueued && !s.Expires.After(at) {
				due++
			}
		}
	}
	out := m.expire(at, limit)
	m.equal(len(out), min(due, limit)) // which ones is the store's choice
	for _, o := range out {
		s, i := m.find(o.Delivery)
		if s == nil || s.ends[i].state != wire.StateQueued || s.Expires.After(at) {
			m.Fatalf("expired %+v, which was not due", o)
		}
		s.end(i, wire.StateBounced, wire.CodeExpired, at)
		m.equal(o, m.outcomes(s)[i])
	}
}

func (m *model) doPrune(rt *rapid.T) {
	before, limit := m.past(rt), limits.Draw(rt, "limit")
	due := func(s *modelMessage) bool { return !s.live() && s.Expires.Before(before) }
	n := 0
	for _, s := range m.stored {
		if due(s) {
			n++
		}
	}
	got, err := m.s.Prune(m.ctx, before, limit)
	m.ok(err)
	m.equal(got, min(n, limit))
	left := m.stored[:0:0]
	for _, s := range m.stored {
		if due(s) {
			_, _, err := m.s.Lookup(m.ctx, s.Sender, s.ID) // which ones is the store's choice
			if errors.Is(err, broker.ErrNotFound) {
				m.pruned = append(m.pruned, s.Message)
				continue
			}
			m.ok(err)
		}
		left = append(left, s)
	}
	m.equal(len(m.stored)-len(left), got)
	m.stored = left
}

// doNotThere asks for what was never stored.
func (m *model) doNotThere(*rapid.T) {
	_, _, err := m.s.Lookup(m.ctx, m.known[0].ID, m.id())
	m.fails(err, broker.ErrNotFound)
	_, err = m.s.Remove(m.ctx, m.removal(m.key()))
	m.fails(err, broker.ErrNotFound)
	_, err = m.s.Mesh(m.ctx, m.id())
	m.fails(err, broker.ErrNotFound)
}
