package mcpserver_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/trust"
)

func TestOnline(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	var wg sync.WaitGroup
	for range 8 { // the first list is asked for once, and all wait for it
		wg.Go(func() { p.alice.ok("list_peers", nil, "bob/api [online, idle]") })
	}
	wg.Wait()
	p.alice.ok("list_peers", nil, "bob/api [online, idle]", "this session (you)", "cwd: /src/api")
	r := p.alice.ok("send_message", args{"to": "bob/api", "message": "<hello> & more"}, "online")
	id := r.data["id"].(string)
	got := p.bob.ok("check_messages", args{"wait_seconds": 10}, `from="alice/web"`, `mesh="acme"`, "&lt;hello&gt; &amp; more", "no more unread", id)
	m := list(got, "messages")[0]
	if body(m) != "&lt;hello&gt; &amp; more" || m["id"] != id || m["from"].(map[string]any)["name"] != "alice/web" || m["kind"] != "dm" {
		t.Errorf("message: %v", m)
	}
	p.alice.status(id, "read")
	p.bob.ok("check_messages", nil, "No unread messages")
	p.bob.ok("check_messages", args{"id": id}, "&lt;hello&gt;") // also when it was read
	p.alice.fails("check_messages", args{"id": id}, "message_status")
	p.bob.fails("message_status", args{"id": id}, "received here")
}

func TestOfflineThenOnline(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	seed := client.Secret(trust.NewSecretKey().Seed())
	box := p.w.Mailbox()
	dial := func() *client.Client {
		return p.w.Dial(p.bm, "late", func(o *client.Options) { o.Mailbox, o.SessionSeed = box, seed })
	}
	late := dial()
	p.alice.ok("list_peers", nil, "bob/late [online")
	_ = late.Close()
	time.Sleep(100 * time.Millisecond) // the grace
	var id string
	for range 600 {
		r := p.alice.ok("send_message", args{"to": "late", "message": "while you were out"})
		id, _ = r.data["id"].(string)
		if strings.Contains(r.text, "nobody at bob/late since") {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	p.alice.ok("message_status", args{"id": id}, "accepted (on the broker's disk")
	p.alice.ok("list_peers", args{"include_offline": true}, "bob/late [offline, last seen just now")
	back := serve(t, box, dial())
	if got := back.texts(1); len(got) == 0 || got[0] != "while you were out" {
		t.Errorf("got %q", got)
	}
	p.alice.status(id, "read")
}

func TestReply(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		m := list(p.bob.ok("check_messages", args{"wait_seconds": 10}), "messages")
		if len(m) != 1 {
			t.Errorf("messages: %v", m)
			return
		}
		p.bob.send("alice/web", "42", args{"reply_to": m[0]["id"]})
	}()
	r := p.alice.ok("send_message", args{"to": "api", "message": "the answer?", "wait_seconds": 20}, "The answer:", "<peer-message", "\n42\n")
	<-done
	if a, _ := r.data["reply"].(map[string]any); a == nil || body(a) != "42" || a["replyTo"] != r.data["id"] {
		t.Errorf("reply: %v", r.data["reply"])
	}
	p.alice.quiet(300 * time.Millisecond) // the call has shown it
	p.alice.ok("check_messages", nil, "No unread messages")
	p.alice.ok("send_message", args{"to": "api", "message": "and?", "wait_seconds": 1}, "No answer within 1s")
}

func TestTwoSessionsOfOneMember(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	box := p.w.Mailbox() // bob's other machine has two sessions on one mailbox
	dial := func(label string) *client.Client {
		return p.w.Dial(p.bm, label, func(o *client.Options) { o.Mailbox = box })
	}
	c1, c2 := dial("one"), dial("two")
	one, two := serve(t, box, c1), serve(t, box, c2)
	var r reply
	for range 600 { // presence comes soon
		if r = p.alice.call("send_message", args{"to": "bob", "message": "which?"}); len(list(r, "candidates")) == 3 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if !r.failed || len(list(r, "candidates")) != 3 {
		t.Fatalf("three sessions are not ambiguous: %v %s", r.failed, r.text)
	}
	says(t, r, "could be any of 3", "bob/one  pubkey: "+c1.Key().String()[:16]+"  cwd: /src/one", "bob/two", "bob/api", "Call again with the pubkey")
	p.alice.send(c2.Key().String()[:16], "by key", nil)
	p.alice.send("bob/one", "by name", nil)
	if got := two.texts(1); len(got) != 1 || got[0] != "by key" {
		t.Errorf("two got %q", got)
	}
	if got := one.texts(1); len(got) != 1 || got[0] != "by name" {
		t.Errorf("one got %q", got)
	}
	p.alice.send(p.bm.MemberKey().String(), "to the person", nil) // one machine's mailbox, one reader
	seen := 0
	for range 600 {
		for _, a := range []*agent{one, two, p.bob} {
			seen += len(list(a.ok("check_messages", nil), "messages"))
		}
		if seen > 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	time.Sleep(200 * time.Millisecond)
	for _, a := range []*agent{one, two, p.bob} {
		seen += len(list(a.ok("check_messages", nil), "messages"))
	}
	if seen != 1 {
		t.Errorf("the member's message was shown %d times", seen)
	}
}

func TestGroup(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	carol := p.w.Join(p.a, "member", "carol")
	third, cc := session(p.w, carol, "db")
	for _, a := range []*agent{p.alice, p.bob, third} {
		a.ok("join_group", args{"name": "@backend", "role": "lead"}, "You are in @backend as lead. Shown to: acme.")
	}
	third.end()
	_ = cc.Close()
	var r reply
	for range 600 {
		r = p.alice.ok("send_message", args{"to": []string{"@backend", "bob/api"}, "message": "all hands"})
		if strings.Contains(r.text, "@backend: accepted for 2, 1 of them offline: carol/db") {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	says(t, r, "@backend: accepted for 2, 1 of them offline: carol/db")
	if n := len(list(r, "to")); n != 2 {
		t.Errorf("%d recipients: %v", n, r.data)
	}
	got := p.bob.ok("check_messages", args{"wait_seconds": 5}, `to="@backend,bob/api"`)
	if list(got, "messages")[0]["kind"] != "group" {
		t.Errorf("kind: %v", got.data)
	}
	p.alice.ok("list_peers", args{"group": "@backend"}, "alice/web", "bob/api", "@backend (lead)", "1 other peer")
	p.bob.ok("leave_group", args{"name": "backend"}, "You have left @backend")
	p.bob.fails("leave_group", args{"name": "backend"}, "you are not in @backend")
	p.bob.fails("join_group", args{"name": "No Spaces"}, "a-z 0-9")
	p.bob.fails("join_group", args{"name": "all"}, "@all is everyone")
	p.bob.fails("send_message", args{"to": "@nobody", "message": "x"}, "nobody but you is in")
}

func TestTwoMeshes(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	beta := p.w.Found("beta", "alice")
	c := p.w.Dial(beta, "web", func(o *client.Options) { o.Mailbox = p.alice.box })
	p.alice.fleet.add(c) // joined while serving
	bob2 := p.w.Join(c, "member", "bob")
	bob, b := session(p.w, bob2, "api")
	p.alice.trusts(b)
	p.alice.ok("list_peers", nil, "acme:bob/api", "beta:bob/api", "you are beta:alice/web")
	p.alice.ok("list_peers", args{"mesh": "beta"}, "beta:bob/api")
	p.alice.fails("list_peers", args{"mesh": "gamma"}, "Joined here: acme, beta")
	p.alice.fails("send_message", args{"to": "bob/api", "message": "x"}, "could be any of 2", "acme:bob/api", "beta:bob/api", "cwd: /src/api")
	p.alice.fails("send_message", args{"to": "acme:bob/api,beta:bob/api", "message": "x"}, "once for each mesh")
	p.alice.send("beta:bob/api", "on beta", nil)
	p.alice.send("acme:bob/api", "on acme", nil)
	if got := bob.texts(1); len(got) != 1 || got[0] != "on beta" {
		t.Errorf("beta: %q", got)
	}
	if got := p.bob.texts(1); len(got) != 1 || got[0] != "on acme" {
		t.Errorf("acme: %q", got)
	}
	// Two meshes, one mailbox: the most urgent first, then the oldest; read on the right mesh.
	first := p.bob.send("alice/web", "1", nil)
	await(t, p.alice, 1)
	bob.send("alice/web", "2", nil)
	await(t, p.alice, 2)
	p.bob.send("alice/web", "3", args{"priority": "low"})
	bob.send("alice/web", "0", args{"priority": "now"})
	await(t, p.alice, 4)
	r := p.alice.ok("check_messages", args{"limit": 3}, "1 more unread")
	var texts []string
	for _, m := range list(r, "messages") {
		texts = append(texts, body(m))
	}
	if strings.Join(texts, "") != "012" {
		t.Errorf("order: %q", texts)
	}
	p.alice.ok("check_messages", args{"mesh": "beta"}, "No unread")
	p.alice.ok("check_messages", nil, "\n3\n")
	p.bob.status(first, "read")
}

// await waits until an agent has n unread messages in its mailbox.
func await(t *testing.T, a *agent, n int) {
	t.Helper()
	var keys []client.Key
	for _, c := range a.fleet.Clients() {
		keys = append(keys, c.Addresses()...)
	}
	for range 3000 {
		msgs, _, err := a.box.List(t.Context(), mailbox.Query{Recipients: keys})
		if err != nil {
			t.Fatal(err)
		}
		if len(msgs) >= n {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("%d messages have not come", n)
}

func TestBrokerDown(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.alice.ok("list_peers", nil, "bob/api")
	p.w.Stop()
	for p.a.State().Online {
		time.Sleep(10 * time.Millisecond)
	}
	r := p.alice.ok("send_message", args{"to": "bob/api", "message": "into the dark"}, "stored here", "broker is away")
	id := r.data["id"].(string)
	p.alice.ok("message_status", args{"id": id}, "stored (waits on this machine", "is offline")
	p.alice.ok("list_peers", nil, "OFFLINE", "bob/api [offline, last seen")
	p.alice.ok("check_messages", nil, "No unread messages", "Mesh acme is offline")
	p.alice.ok("set_summary", args{"summary": "waiting for the broker"}, "Offline now: acme; shown there on connection")
	p.w.Start()
	if got := p.bob.texts(1); len(got) != 1 || got[0] != "into the dark" {
		t.Errorf("got %q", got)
	}
	p.alice.status(id, "read")
	p.bob.ok("list_peers", nil, "says of itself: waiting for the broker")
}

func TestNeverConnected(t *testing.T) {
	t.Parallel()
	w := world(t)
	m := w.Found("acme", "alice")
	w.Stop()
	box := w.Mailbox()
	c := w.Start1(m, "web", func(o *client.Options) { o.Mailbox = box })
	a := serve(t, box, c)
	began := time.Now()
	a.ok("list_peers", nil, "OFFLINE")
	if d := time.Since(began); d < 4*time.Second || d > 8*time.Second {
		t.Errorf("the first call took %s, want 5 s", d)
	}
	began = time.Now()
	a.ok("check_messages", nil, "is offline")
	if d := time.Since(began); d > time.Second {
		t.Errorf("the second call took %s", d)
	}
	a.fails("send_message", args{"to": "bob", "message": "x"}, `nobody here is called "bob"`, "Mesh acme is offline")
}
