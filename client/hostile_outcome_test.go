package client_test

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/audit"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/meshtest"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// comesOut holds what has happened against what should.
func (h *hostile) comesOut(a attack) {
	h.Helper()
	code := wire.Code(a.err)
	if a.err != "" && !code.Known() && a.does != tells {
		h.Fatalf("%s is no code", code)
	}
	switch a.does {
	case refuses, sendsNo:
		h.isNacked(code)
	case leavesIt, takesIt, hangsUp:
		meshtest.Eventually(h, "bob reports "+a.err, func() bool { return slices.Contains(h.suspects(), a.err) })
	case stops:
		meshtest.Eventually(h, "bob stops", func() bool { return h.bob.State().Final })
		h.failed = h.bob.State().Err
		fallthrough
	case noJoin:
		if !errors.Is(h.failed, wire.Faultf(code, "")) {
			h.Errorf("fails with %v, want %s", h.failed, code)
		}
	case tells:
		if !h.missed {
			h.Error("nobody was told")
		}
	}
	if a.does == sendsNo {
		_, err := h.bob.Send(h.Context(), client.Message{To: []string{"alice/web"}, Text: "what?"})
		if !errors.Is(err, wire.Faultf(code, "")) {
			h.Errorf("bob goes on sending: %v", err)
		}
	}
	if a.does != noJoin { // nor is bob concerned
		h.goesOn(a.does != stops)
		h.isClean()
	}
	h.isNamed(a)
}

// isNamed: what was done has that one name and no other.
func (h *hostile) isNamed(a attack) {
	h.Helper()
	var want []string
	switch {
	case a.does == noJoin || a.does == tells || a.does == nothing || a.does == addsNone:
	case a.err != string(wire.CodeRemoved) || a.does != refuses: // whose message may have been under way
		want = []string{a.err}
	}
	if got := h.suspects(); !slices.Equal(got, want) {
		h.Errorf("bob reports %v, want %v", got, want)
	}
	records, err := h.box.Audit(h.Context(), 0, 1000)
	if err != nil {
		h.Fatal(err)
	}
	for _, code := range want {
		if !slices.ContainsFunc(records, func(r audit.Record) bool { return r.Event == audit.Refused && r.Code == code }) {
			h.Errorf("the audit log lacks %s", code)
		}
	}
}

func (h *hostile) isNacked(want wire.Code) {
	h.Helper()
	select {
	case got := <-h.nacks:
		if got != want {
			h.Errorf("refused with %s, want %s", got, want)
		}
	case <-time.After(30 * time.Second):
		h.Errorf("not refused; want %s", want)
	}
}

// goesOn: with a broker that is honest again, or at least a mesh that is, messages arrive.
func (h *hostile) goesOn(arrives bool) {
	h.Helper()
	h.lie(nil)
	if arrives {
		h.arrives(h.say("bob/api"))
	}
	if len(h.nacks) > 0 {
		h.Errorf("one more is refused: %s", <-h.nacks)
	}
}

// isClean: of what the broker made up nothing was shown, listed or sent to.
func (h *hostile) isClean() {
	h.Helper()
	shown := h.shown()
	slices.Sort(shown)
	for i, text := range shown {
		if !strings.HasPrefix(text, "true ") {
			h.Errorf("shown: %q", text)
		}
		if i > 0 && text == shown[i-1] {
			h.Errorf("shown twice: %q", text)
		}
	}
	peers, _, err := h.bob.Peers(h.Context(), true)
	if err != nil {
		h.Fatal(err)
	}
	for _, p := range peers {
		if p.Key == h.eve.Public() || p.Key == h.eveSession.Public() || p.Member == h.eve.Public() {
			h.Errorf("a ghost is shown: %s", p.FullName())
		}
		if p.Key == h.alice.Key() && (p.Member != h.am.MemberKey() || p.FullName() != "alice/web") {
			h.Errorf("alice's session is shown as %s", p.FullName())
		}
	}
	for _, m := range h.bob.Members() {
		if m.Key == h.eve.Public() {
			h.Errorf("a ghost is a member: %s", m.Name)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if slices.Contains(h.addressed, h.eve.Public()) || slices.Contains(h.addressed, h.eveSession.Public()) {
		h.Error("a ghost was written to")
	}
}

// inboxOf asks for all that a client has received.
func inboxOf(c *client.Client) mailbox.Query {
	return mailbox.Query{Recipients: c.Addresses(), Read: true, Gate: mailbox.Shut}
}
