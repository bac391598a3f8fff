package client_test

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/meshtest"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// attack is one row: what a hostile broker does, what a client does about it, and
// the name that it gives it.
type attack struct {
	name string
	does outcome
	err  string // a wire.Code, or the word of another refusal; "" when there is nothing to name
	run  func(h *hostile)
}

// outcome is what a client does about an attack, as docs/security.md says it.
type outcome string

const (
	refuses  outcome = "refuses the message"
	leavesIt outcome = "leaves it out, and reports it"
	takesIt  outcome = "takes what holds, and reports it"
	hangsUp  outcome = "hangs up, reports it, and connects again"
	sendsNo  outcome = "refuses the message, and sends nothing more until it is shown"
	stops    outcome = "stops for good"
	noJoin   outcome = "does not join"
	tells    outcome = "tells the person"
	addsNone outcome = "does not count among the recipients"
	nothing  outcome = "nothing changes"
)

// attacks are all rows.
func attacks() []attack {
	return slices.Concat(messageAttacks, replayAttacks, receiptAttacks, peerAttacks, memberAttacks, removalAttacks, keyAttacks, governAttacks, linkAttacks, joinAttacks)
}

// TestHostileBroker: whatever a broker does with what passes through it, nothing of
// it reaches an inbox or a list of peers, it is named for what it is, and what is
// honest goes on to arrive.
func TestHostileBroker(t *testing.T) {
	var table []string
	t.Run("attacks", func(t *testing.T) {
		for _, a := range attacks() {
			table = append(table, a.String())
			t.Run(a.name, func(t *testing.T) {
				t.Parallel()
				h := newHostile(t)
				a.run(h)
				h.comesOut(a)
			})
		}
	})
	slices.Sort(table)
	t.Logf("attack | what the client does | error\n%s", strings.Join(table, "\n"))
}

func (a attack) String() string {
	if a.err == "" {
		return fmt.Sprintf("%s | %s |", a.name, a.does)
	}
	return fmt.Sprintf("%s | %s | `%s`", a.name, a.does, a.err)
}

// TestHostileBrokerTable holds the table of docs/security.md against the attacks.
func TestHostileBrokerTable(t *testing.T) {
	doc, err := os.ReadFile("../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(doc), "\n## A hostile broker, attack by attack\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var shown, run []string
	for _, row := range regexp.MustCompile(`(?m)^\| ([^|]+) \| ([^|]+) \| ([^|]*)\|$`).FindAllStringSubmatch(section, -1) {
		if row[1] != "attack" {
			shown = append(shown, strings.TrimSpace(fmt.Sprintf("%s | %s | %s", row[1], row[2], row[3])))
		}
	}
	for _, a := range attacks() {
		run = append(run, a.String())
	}
	slices.Sort(run)
	for _, r := range run {
		if !slices.Contains(shown, r) {
			t.Errorf("docs/security.md lacks\n| %s |", r)
		}
	}
	for _, r := range shown {
		if !slices.Contains(run, r) {
			t.Errorf("docs/security.md has what no test holds\n| %s |", r)
		}
	}
	if !slices.IsSorted(shown) {
		t.Error("the rows of docs/security.md are not sorted")
	}
	if len(run) != len(slices.Compact(slices.Clone(run))) {
		t.Error("a row stands twice")
	}
}

// hostile is a mesh where bob, and whoever else is let in by it, reaches the broker
// through a relay that lies.
type hostile struct {
	*testing.T
	w          *meshtest.World
	relay      *meshtest.Relay
	alice, bob *client.Client
	am, bm     client.Membership
	seed       client.Secret // of bob's session
	box        client.Mailbox
	skew       atomic.Int64 // of bob's clock, ns

	eve, eveSession trust.SecretKey // a stranger's

	nacks  chan wire.Code
	said   int
	missed bool // Missing has told
	failed error

	mu        sync.Mutex
	addressed []wire.Key // by all who send through the relay
}

func newHostile(t *testing.T) *hostile {
	h := &hostile{
		T: t, w: meshtest.New(t, nil), nacks: make(chan wire.Code, 64), box: client.MemoryMailbox(),
		seed: client.Secret(trust.NewSecretKey().Seed()), eve: trust.NewSecretKey(), eveSession: trust.NewSecretKey(),
	}
	h.am = h.w.Found("acme", "alice")
	h.alice = h.w.Dial(h.am, "web", nil)
	h.bm = h.w.Join(h.alice, "member", "bob")
	h.relay = h.w.Relay()
	h.bm.Broker = h.relay.URL
	h.lie(nil)
	h.bob = h.w.Dial(h.bm, "api", h.asBob)
	return h
}

func (h *hostile) asBob(o *client.Options) {
	o.Mailbox, o.SessionSeed = h.box, h.seed
	o.Now = func() time.Time { return time.Now().Add(time.Duration(h.skew.Load())) }
}

// again starts bob's session anew, on what it has kept, without waiting for the broker.
func (h *hostile) again() {
	_ = h.bob.Close()
	h.bob = h.w.Start1(h.bm, "api", h.asBob)
}

// lie changes what is told through the relay; nil is to be honest.
func (h *hostile) lie(fn func(f wire.Frame) []wire.Frame) {
	h.relay.Hook(func(toClient bool, f wire.Frame) []wire.Frame {
		switch f := f.(type) {
		case *wire.ClientNack:
			h.nacks <- f.Code
		case *wire.Send:
			h.mu.Lock()
			h.addressed = append(h.addressed, f.To)
			for _, w := range f.Wraps {
				h.addressed = append(h.addressed, w.To)
			}
			h.mu.Unlock()
		}
		if toClient && fn != nil {
			return fn(f)
		}
		return []wire.Frame{f}
	})
}

// pushes changes direct and group messages to bob.
func (h *hostile) pushes(edit func(p *wire.Push)) {
	h.lie(func(f wire.Frame) []wire.Frame {
		if p, ok := f.(*wire.Push); ok && p.Mode != wire.ModeReceipt {
			edit(p)
		}
		return []wire.Frame{f}
	})
}

// alter has alice send what the broker alters.
func (h *hostile) alter(edit func(p *wire.Push)) {
	h.pushes(edit)
	send(h.T, h.alice, "bob/api", "altered")
}

// inject shows bob frames of the broker's own, beside a message of alice's.
func (h *hostile) inject(frames ...wire.Frame) {
	var once sync.Once
	h.lie(func(f wire.Frame) (out []wire.Frame) {
		if _, ok := f.(*wire.Push); ok {
			once.Do(func() { out = slices.Clone(frames) })
		}
		return append(out, f)
	})
	h.arrives(h.say("bob/api"))
}

// say has alice send an honest message and returns its text.
func (h *hostile) say(to string) string {
	h.said++
	text := fmt.Sprintf("true %d", h.said)
	send(h.T, h.alice, to, text)
	return text
}

// shown are the texts that have reached bob.
func (h *hostile) shown() (texts []string) {
	msgs, _, err := h.box.List(context.Background(), inboxOf(h.bob))
	if err != nil {
		h.Fatal(err)
	}
	for _, m := range msgs {
		texts = append(texts, m.Text)
	}
	return texts
}

func (h *hostile) arrives(text string) {
	h.Helper()
	meshtest.Eventually(h, text+" arrives", func() bool { return slices.Contains(h.shown(), text) })
}

// suspects are the codes that bob has noted.
func (h *hostile) suspects() (codes []string) {
	for _, s := range h.bob.Suspicions() {
		codes = append(codes, string(s.Code))
	}
	return codes
}
