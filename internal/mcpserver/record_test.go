package mcpserver_test

import (
	"errors"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/courier"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/meshtest"
	"github.com/claudemesh/claudemesh/internal/process"
)

// host starts a process that stands for an agent program; end ends it.
func host(t testing.TB) (agent mailbox.Agent, end func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TEST_HOST=1")
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	end = func() {
		_ = in.Close()
		_ = cmd.Wait()
	}
	t.Cleanup(end)
	return mailbox.Agent{Process: process.Of(cmd.Process.Pid), Mode: mailbox.Push}, end
}

// record reads the record of the agent's host.
func (a *agent) record() mailbox.Agent {
	a.t.Helper()
	r, err := a.box.Agent(a.t.Context(), a.host.PID)
	if err != nil {
		a.t.Fatal(err)
	}
	return r
}

// note changes it as a hook does.
func (a *agent) note(change func(*mailbox.Agent)) {
	a.t.Helper()
	_, err := a.box.ChangeAgent(a.t.Context(), a.host.PID, func(r *mailbox.Agent) error { change(r); return nil })
	if err != nil {
		a.t.Fatal(err)
	}
}

// hosted serves a known agent.
func hosted(t testing.TB, h mailbox.Agent, box client.Mailbox, clients ...*client.Client) *agent {
	t.Helper()
	return greet(begin(t, &agent{box: box, host: h, fleet: &fleet{set: clients}}))
}

// hostedPair is a pair of which bob's agent is known.
func hostedPair(t testing.TB) (p *pair, h mailbox.Agent) {
	t.Helper()
	p = newPair(t)
	p.bob.end()
	h, _ = host(t)
	p.bob = hosted(t, h, p.bob.box, p.b)
	return p, h
}

func TestRecord(t *testing.T) {
	t.Parallel()
	w := world(t)
	am := w.Found("acme", "alice")
	box := w.Mailbox()
	web := w.Dial(am, "web", func(o *client.Options) { o.Mailbox = box })
	h, _ := host(t)
	h.Session, h.Cwd, h.Mode = "hint", "/src/web", mailbox.Notice
	a := hosted(t, h, box, web)
	seat := mailbox.AgentSeat{
		Mesh: am.MeshID, Name: "acme", Key: web.Key(), Member: am.MemberKey(), Self: "alice/web",
		Offset: web.ClockOffset().Milliseconds(), Online: true,
	}
	want := h
	want.Server, want.Seats = process.Self(), []mailbox.AgentSeat{seat}
	if got := a.record(); !reflect.DeepEqual(got, want) {
		t.Errorf("record: %+v\nwant:   %+v", got, want)
	}

	// A peer comes, a mesh is joined.
	other := w.Found("home", "alice")
	app := w.Dial(other, "app", func(o *client.Options) { o.Mailbox = box })
	a.fleet.add(app)
	bob := w.Join(web, "member", "bob")
	bobs := w.Dial(bob, "api", nil)
	meshtest.Eventually(t, "the record has two meshes and a peer", func() bool {
		r := a.record()
		return len(r.Seats) == 2 && r.Seats[0].Peers == 1 && r.Seats[1].Self == "alice/app" && r.Seats[1].Online
	})
	_ = bobs.Close()
	meshtest.Eventually(t, "the peer has left", func() bool { return a.record().Seats[0].Peers == 0 })

	// The server starts again: what others have noted of the agent stays.
	a.note(func(r *mailbox.Agent) {
		r.Session, r.Mode, r.Status, r.Hooks = "true", mailbox.Push, client.StatusWorking, 5
		r.Mod, r.Proven = process.Self(), map[mailbox.Path]int64{mailbox.ByMod: 7}
		r.Shown = []mailbox.Shown{{Holder: "x", Numbers: []int64{1}}}
	})
	noted := a.record()
	a.end()
	noted.Server = process.Process{}
	for i := range noted.Seats {
		noted.Seats[i].Online = false
	}
	if got := a.record(); !reflect.DeepEqual(got, noted) {
		t.Errorf("without a server: %+v\nwant: %+v", got, noted)
	}
	again := hosted(t, h, box, web)
	noted.Server, noted.Seats = process.Self(), []mailbox.AgentSeat{seat}
	if got := again.record(); !reflect.DeepEqual(got, noted) {
		t.Errorf("with a new server: %+v\nwant: %+v", got, noted)
	}
}

// The records of agents that have ended go, and with them what their couriers held.
func TestDeadAgentsAreForgotten(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	dead, end := host(t)
	end()
	if err := p.bob.box.PutAgent(t.Context(), dead); err != nil {
		t.Fatal(err)
	}
	p.alice.send("bob/api", "hello", nil)
	await(t, p.bob, 1)
	held := mailbox.Query{Recipients: p.b.Addresses(), Holder: mailbox.HolderOf(dead.PID) + "mod/x", Now: 1}
	if msgs, _, err := p.bob.box.Lease(t.Context(), held, 1<<60); err != nil || len(msgs) != 1 {
		t.Fatal(len(msgs), err)
	}
	p.bob.ok("check_messages", nil, "No unread messages.")
	p.bob.end()
	h, _ := host(t)
	again := hosted(t, h, p.bob.box, p.b)
	if _, err := again.box.Agent(t.Context(), dead.PID); !errors.Is(err, mailbox.ErrNoAgent) {
		t.Errorf("the dead agent: %v", err)
	}
	again.ok("check_messages", nil, "hello")
}

// The card says what couriers know, and a sender is told of it.
func TestWakeability(t *testing.T) {
	t.Parallel()
	p, h := hostedPair(t)
	says := func(want string, priority string) {
		t.Helper()
		last := ""
		for range 600 {
			r := p.alice.ok("send_message", args{"to": "bob/api", "message": "x", "priority": priority})
			if last = r.text; strings.Contains(last, "accepted; "+want) || strings.Contains(last, "delivered; "+want) {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Errorf("%q is not in: %s", want, last)
	}
	card := func(ok func(client.Card) bool) {
		t.Helper()
		meshtest.Eventually(t, "the card says it", func() bool {
			peers, _, _ := p.a.Peers(t.Context(), false)
			return slices.ContainsFunc(peers, func(p client.Peer) bool { return p.FullName() == "bob/api" && ok(p.Card) })
		})
	}
	says("bob/api is online and will see it when it checks its messages", "next")
	p.alice.ok("list_peers", nil, "bob/api [online, idle, not wakeable]")

	p.bob.note(func(r *mailbox.Agent) { r.Hooks, r.Status = 1, client.StatusWorking })
	says("bob/api will see it at its next turn", "next")
	p.alice.ok("list_peers", nil, "bob/api [online, working, next turn]")

	p.bob.note(func(r *mailbox.Agent) { r.Mod, r.Status = process.Self(), client.StatusIdle })
	says("bob/api can be woken (not yet proven)", "next")
	says("bob/api will see it at its next turn", "low")

	at := time.Now().Add(-30 * time.Second).UnixMilli()
	p.bob.note(func(r *mailbox.Agent) { r.Proven = map[mailbox.Path]int64{mailbox.ByMod: at} })
	says("bob/api can be woken, proven ", "next")
	list := p.alice.ok("list_peers", nil, "bob/api [online, idle, wakeable]")
	if bob := list.data["peers"].([]any)[1].(map[string]any); bob["wake"] != "mod" || bob["wokenAt"] == nil {
		t.Errorf("data: %v", bob)
	}

	// The agent's dnd stays, whatever couriers see, until it says otherwise.
	p.bob.ok("set_status", args{"status": "dnd"})
	if !p.bob.record().DND {
		t.Error("couriers do not know of dnd")
	}
	p.bob.note(func(r *mailbox.Agent) { r.Status = client.StatusWorking })
	says("bob/api is not to be disturbed and will see it later", "next")
	says("bob/api can be woken, proven", "now")
	// A newer proof alone changes no card, for a minute; a change of the path does.
	p.bob.note(func(r *mailbox.Agent) { r.Proven[mailbox.ByMod]++; r.Mode = mailbox.InboxOnly })
	card(func(c client.Card) bool {
		return c.Wake == client.ByNone && c.WokenAt == 0 && c.Status == client.StatusDND
	})
	p.bob.ok("set_status", args{"status": "idle"})
	card(func(c client.Card) bool { return c.Status == client.StatusWorking }) // what couriers see
	p.bob.note(func(r *mailbox.Agent) { r.Mod, r.Mode = h.Process, mailbox.Off })
	card(func(c client.Card) bool { return c.Wake == client.ByNone })
}

// A message goes to one: to a courier, or to a call.
func TestOneOfCallAndCourier(t *testing.T) {
	t.Parallel()
	p, h := hostedPair(t)
	ctx := t.Context()
	mod := courier.New(p.bob.box, h.PID, mailbox.ByMod)
	take := func() []string {
		t.Helper()
		b, err := mod.Take(ctx, p.bob.record(), client.Low, time.Now().Add(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		var texts []string
		for i := range b.Messages {
			texts = append(texts, b.Messages[i].Text)
		}
		return texts
	}
	// What a courier holds is its own, until it puts it back.
	p.alice.send("bob/api", "one", nil)
	await(t, p.bob, 1)
	if got := take(); len(got) != 1 {
		t.Fatalf("leased: %q", got)
	}
	p.bob.ok("check_messages", nil, "No unread messages.")
	if r := p.bob.ok("list_peers", nil); strings.Contains(r.text, "unread") {
		t.Errorf("counted though held: %s", r.text)
	}
	waits := make(chan reply)
	go func() { waits <- p.bob.call("check_messages", args{"wait_seconds": 30}) }()
	meshtest.Eventually(t, "the call keeps couriers off", func() bool { return len(p.bob.record().Held) == 1 })
	if err := p.bob.box.Release(ctx, mod.Holder(), nil); err != nil {
		t.Fatal(err)
	}
	if got := take(); len(got) != 0 {
		t.Errorf("taken from a waiting call: %q", got)
	}
	if r := <-waits; !strings.Contains(r.text, "\none\n") {
		t.Errorf("the waiting call: %s", r.text)
	}
	// The answer that a call waits for.
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var stolen []string
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				stolen = append(stolen, take()...)
				time.Sleep(time.Millisecond)
			}
		}
	})
	go func() {
		waits <- p.bob.call("send_message", args{"to": "alice/web", "message": "a question", "wait_seconds": 30})
	}()
	ask := list(p.alice.ok("check_messages", args{"wait_seconds": 10}), "messages")[0]
	p.alice.send("bob/api", "aside", nil)
	p.alice.send("bob/api", "the answer", args{"reply_to": ask["id"]})
	r := <-waits
	meshtest.Eventually(t, "couriers are let in again", func() bool { return len(p.bob.record().Held) == 0 })
	await(t, p.bob, 1)
	meshtest.Eventually(t, "the courier has the rest", func() bool {
		left, _, err := p.bob.box.List(ctx, mailbox.Query{Recipients: p.b.Addresses(), Now: time.Now().UnixMilli()})
		return err == nil && len(left) == 0
	})
	close(stop)
	wg.Wait()
	if !strings.Contains(r.text, "\nthe answer\n") || slices.Contains(stolen, "the answer") || !slices.Contains(stolen, "aside") {
		t.Errorf("call: %s\ncourier: %q", r.text, stolen)
	}
}

// Every answer of ours ends with what is unread, but to an agent that wants nothing.
func TestUnreadIsCounted(t *testing.T) {
	t.Parallel()
	p, _ := hostedPair(t)
	if r := p.bob.ok("list_peers", nil); strings.Contains(r.text, "unread") || r.data["unread"] != nil {
		t.Errorf("nothing is unread: %s %v", r.text, r.data)
	}
	p.alice.send("bob/api", "one", nil)
	await(t, p.bob, 1)
	ends := func(r reply, want string, n any) {
		t.Helper()
		if !strings.HasSuffix(r.text, want) || r.data["unread"] != n {
			t.Errorf("want %q: %s %v", want, r.text, r.data)
		}
	}
	ends(p.bob.ok("set_summary", args{"summary": "x"}), "\n[1 unread message: check_messages]", 1.0)
	p.alice.send("bob/api", "two", nil)
	await(t, p.bob, 2)
	ends(p.bob.fails("send_message", args{"to": "nobody", "message": "x"}), "\n[2 unread messages: check_messages]", 2.0)
	p.bob.note(func(r *mailbox.Agent) { r.Mode = mailbox.Off })
	if r := p.bob.ok("list_peers", nil); strings.Contains(r.text, "unread") || r.data["unread"] != nil {
		t.Errorf("told though off: %s", r.text)
	}
	p.bob.note(func(r *mailbox.Agent) { r.Mode = mailbox.InboxOnly })
	ends(p.bob.ok("list_peers", nil), "\n[2 unread messages: check_messages]", 2.0)
	r := p.bob.ok("check_messages", nil, "2 messages; no more unread.")
	if strings.Contains(r.text, "[") && strings.Contains(r.text, ": check_messages]") {
		t.Errorf("said twice: %s", r.text)
	}
}
