package mcpserver_test

import (
	"errors"
	"os"
	"os/exec"
	"reflect"
	"testing"

	"github.com/claudemesh/claudemesh/client"
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
