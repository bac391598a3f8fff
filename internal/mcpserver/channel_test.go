package mcpserver_test

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/process"
	"github.com/claudemesh/claudemesh/internal/render"
)

func TestAnnounce(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.bob.trusts(p.a)
	id := p.alice.send("bob/api", "ping <x>", args{"priority": "now"})
	content, meta := p.bob.announced()
	for _, want := range []string{`<peer-message from="alice/web" mesh="acme"`, render.Notice, "\nping &lt;x&gt;\n</peer-message>"} {
		if !strings.Contains(content, want) {
			t.Errorf("%q is not in:\n%s", want, content)
		}
	}
	key := regexp.MustCompile(`^[A-Za-z0-9_]+$`)
	for k, v := range meta {
		if _, ok := v.(string); !ok || !key.MatchString(k) {
			t.Errorf("meta %q: %T %v", k, v, v)
		}
	}
	if meta["message_id"] != id || meta["from"] != "alice/web" || meta["priority"] != "now" || meta["kind"] != "dm" ||
		meta["mesh"] != "acme" || meta["pubkey"] != p.a.Key().String()[:16] {
		t.Errorf("meta: %v", meta)
	}
	p.alice.status(id, "delivered") // announced is not read
	p.bob.quiet(300 * time.Millisecond)
	// A restarted session announces nothing again.
	p.bob.end()
	again := serve(t, p.bob.box, p.b)
	again.quiet(500 * time.Millisecond)
	again.ok("check_messages", nil, "ping &lt;x&gt;")
	p.alice.status(id, "read")

	p.alice.send("bob/api", strings.Repeat("é<", 10_000), nil)
	if content, _ = again.announced(); len(content) > 8<<10 || !strings.Contains(content, "bytes more") {
		t.Errorf("%d bytes: %.200s", len(content), content)
	}
}

func TestAnnounceAfterInitialized(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.bob.trusts(p.a)
	p.bob.end()
	p.alice.send("bob/api", "two", nil)
	p.alice.send("bob/api", "three", args{"priority": "low"})
	p.alice.send("bob/api", "one", args{"priority": "now"})
	await(t, p.bob, 3)
	w := raw(t, p.bob.fleet, p.bob.box)
	w.write(hello)
	if m := w.read(); m.ID != 1.0 {
		t.Fatalf("first: %+v", m)
	}
	time.Sleep(300 * time.Millisecond)
	w.write(ping)
	if m := w.read(); m.ID != 9.0 {
		t.Fatalf("before initialized: %+v", m)
	}
	w.write(inited)
	for _, want := range []string{"one", "two", "three"} {
		m := w.read()
		if m.Method != "notifications/claude/channel" || !strings.Contains(m.Params["content"].(string), "\n"+want+"\n") {
			t.Errorf("want %s: %+v", want, m)
		}
	}
}

func TestDiscoveringClientIsAnnouncedTo(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.bob.end()
	p.alice.send("bob/api", "hi", nil)
	await(t, p.bob, 1)
	w := raw(t, p.bob.fleet, p.bob.box)
	w.write(`{"jsonrpc":"2.0","id":1,"method":"server/discover"}` + "\n")
	w.read()
	w.write(`{"jsonrpc":"2.0","id":2,"method":"tools/list"}` + "\n")
	w.read()
	if m := w.read(); m.Method != "notifications/claude/channel" {
		t.Errorf("notification: %+v", m)
	}
}

func TestDoNotDisturb(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.bob.trusts(p.a)
	p.bob.ok("set_status", args{"status": "dnd"}, "Your status is dnd.")
	p.alice.send("bob/api", "later", nil)
	p.alice.send("bob/api", "at once", args{"priority": "now"})
	if content, _ := p.bob.announced(); !strings.Contains(content, "at once") {
		t.Errorf("announced: %s", content)
	}
	await(t, p.bob, 2)
	p.bob.quiet(400 * time.Millisecond)
	p.bob.ok("set_status", args{"status": "idle"})
	if content, _ := p.bob.announced(); !strings.Contains(content, "later") {
		t.Errorf("announced: %s", content)
	}
	p.bob.quiet(200 * time.Millisecond)
	if got := p.bob.texts(2); strings.Join(got, ",") != "at once,later" {
		t.Errorf("unread: %q", got)
	}
}

func TestMemberMessageIsAnnouncedByOne(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	c2 := p.w.Dial(p.bm, "two", func(o *client.Options) { o.Mailbox = p.bob.box })
	two := serve(t, p.bob.box, c2)
	p.alice.send(p.bm.MemberKey().String(), "to bob himself", nil)
	time.Sleep(700 * time.Millisecond)
	if n := len(p.bob.notes) + len(two.notes); n != 1 {
		t.Errorf("announced %d times", n)
	}
}

// TestBurst: nothing is lost and nothing comes twice while the host reads slowly.
func TestBurst(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.bob.end()
	w := raw(t, p.bob.fleet, p.bob.box)
	w.write(hello)
	w.read()
	w.write(inited)
	const n = 60
	for i := range n {
		if _, err := p.a.Send(t.Context(), client.Message{To: []string{"bob/api"}, Text: "n" + strconv.Itoa(i)}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		m := w.read()
		if c, _ := m.Params["content"].(string); !strings.Contains(c, "\nn"+strconv.Itoa(i)+"\n") {
			t.Fatalf("announcement %d: %s", i, c)
		}
	}
}

// Under the plugin there is no channel, and the host is not told of one.
func TestNoChannel(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	if p.bob.init.Capabilities.Experimental["claude/channel"] == nil {
		t.Errorf("a server of its own declares the channel: %v", p.bob.init.Capabilities.Experimental)
	}
	p.bob.end()
	mute := greet(begin(t, &agent{box: p.bob.box, mute: true, fleet: p.bob.fleet}))
	if got := mute.init.Capabilities.Experimental; len(got) > 0 {
		t.Errorf("experimental capabilities: %v", got)
	}
	p.alice.send("bob/api", "hi", args{"priority": "now"})
	await(t, mute, 1)
	mute.quiet(300 * time.Millisecond)
}

// What a better path brings in is not announced too; nor is anything to an agent that is not to be woken.
func TestChannelYields(t *testing.T) {
	t.Parallel()
	p, h := hostedPair(t)
	p.bob.note(func(r *mailbox.Agent) { r.Mod = process.Self() })
	p.alice.send("bob/api", "by the mod", nil)
	await(t, p.bob, 1)
	p.bob.quiet(400 * time.Millisecond)
	p.bob.note(func(r *mailbox.Agent) { r.Mod, r.Mode = h.Process, mailbox.Notice })
	p.bob.quiet(400 * time.Millisecond)
	p.bob.note(func(r *mailbox.Agent) { r.Mod, r.Mode = process.Process{}, mailbox.Push })
	if content, _ := p.bob.announced(); !strings.Contains(content, "by the mod") {
		t.Errorf("announced: %s", content)
	}
}
