package stream

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/internal/courier"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/process"
	"github.com/claudemesh/claudemesh/internal/wire"
)

const (
	now  = wire.PriorityNow
	next = wire.PriorityNext
	low  = wire.PriorityLow
)

// An idle agent gets a turn with all that came within the time to gather.
func TestIdle(t *testing.T) {
	t.Parallel()
	r := newRoom(t, mailbox.Push)
	r.receive(low)
	r.pass(time.Minute)
	r.none() // it wakes nobody
	r.receive(next)
	r.none()
	r.pass(100 * time.Millisecond)
	r.receive(next)
	r.pass(149 * time.Millisecond)
	r.none()
	r.pass(time.Millisecond)
	i := r.one(1, 2, 3)
	r.unread(3, 0)
	r.receive(next)
	r.pass(time.Second)
	r.none() // a turn is about to begin
	r.begin()
	r.over(i, viaSubmit, "")
	r.unread(4, 1)
	r.step()
	r.unread(1, 1)
	if a := r.agent(); a.Proven[mailbox.ByMod] != r.clock.UnixMilli() || a.Status != "working" || a.Mod != process.Self() || a.Session != "s1" {
		t.Errorf("agent: %+v", a)
	}
	r.complete(false)
	r.one(4) // at once: it has waited
	if a := r.agent(); a.Status != "idle" {
		t.Errorf("status: %s", a.Status)
	}
}

func TestUrgentIdle(t *testing.T) {
	t.Parallel()
	r := newRoom(t, mailbox.Push)
	r.receive(next, now)
	r.one(1, 2)
}

// While a turn runs the model hears of what came, once.
func TestDoorbell(t *testing.T) {
	t.Parallel()
	r := newRoom(t, mailbox.Push)
	r.begin()
	r.step()
	tool := func(want string) {
		t.Helper()
		got := strings.Join(r.event(Event{Name: "tool"}).Context, "")
		r.holds(got)
		if !strings.Contains(got, want) || (want == "") != (got == "") {
			t.Errorf("want %q: %q", want, got)
		}
	}
	r.receive(low)
	tool("")
	r.receive(next)
	tool("2 unread peer messages: 2 from bob/api")
	tool("")
	r.receive(next)
	tool("3 unread")
	r.none()
	r.unread(3, 3)
	r.complete(false)
	r.one(1, 2, 3)
}

func TestUrgentBusy(t *testing.T) {
	t.Parallel()
	r := newRoom(t, mailbox.Push)
	r.begin()
	r.step()
	r.receive(now)
	i := r.tool(1)
	if a := r.event(Event{Name: "tool"}); a.Context != nil || a.Append != "" {
		t.Errorf("it is told of, too: %v", a)
	}
	r.over(i, viaAppend, "")
	r.unread(1, 0)
	r.pass(2 * courier.LeaseFor) // a long tool call
	r.unread(1, 0)
	r.step()
	r.unread(0, 0)
	r.receive(now)
	i = r.tool(2)
	r.over(i, viaAppend, "no")
	r.unread(1, 1)
	r.pass(calm - time.Millisecond)
	r.tool()
	r.pass(time.Millisecond)
	r.tool(2)
}

// What was put into a turn that asks the model no more stands in the next one, which is begun for it.
func TestStuck(t *testing.T) {
	t.Parallel()
	r := newRoom(t, mailbox.Push)
	r.begin()
	r.step()
	r.receive(now)
	r.over(r.tool(1), viaAppend, "")
	r.complete(false)
	i := r.one()
	r.unread(1, 0)
	r.begin()
	r.over(i, viaSubmit, "")
	r.unread(1, 0)
	r.step()
	r.unread(0, 0)
	r.complete(false)

	r.begin()
	r.step()
	r.receive(now)
	r.over(r.tool(2), viaAppend, "")
	r.busy = false
	r.event(Event{Name: "session.end", Reason: "clear"}) // lost with it
	r.unread(1, 1)
	r.pass(time.Second)
	r.none()
	r.hello()
	r.one(2)
}

func TestAborted(t *testing.T) {
	t.Parallel()
	r := newRoom(t, mailbox.Push)
	r.begin()
	r.step()
	r.receive(next)
	r.complete(true)
	r.receive(now)
	r.pass(calm - time.Millisecond)
	r.none()
	r.pass(time.Millisecond)
	i := r.one(1, 2)
	r.over(i, viaSubmit, "removed from the queue")
	r.unread(2, 2)
	r.pass(calm - time.Millisecond)
	r.none()
	r.pass(time.Millisecond)
	r.one(1, 2)
}

func TestPrompt(t *testing.T) {
	t.Parallel()
	r := newRoom(t, mailbox.Push)
	r.begin()
	r.complete(true)
	r.receive(low, next)
	a := r.event(Event{Name: "prompt"})
	r.holds(strings.Join(a.Context, ""), 1, 2)
	prompted := Instruction{Batch: a.Batch, Holds: a.Holds}
	r.receive(now)
	r.none() // the prompt's turn is about to begin
	r.begin()
	r.over(prompted, viaPrompt, "")
	r.over(r.tool(3), viaAppend, "")
	r.unread(3, 0)
	r.step()
	r.unread(0, 0)
	r.complete(false)

	r.receive(low)
	a = r.event(Event{Name: "prompt"})
	r.over(Instruction{Batch: a.Batch, Holds: a.Holds}, viaPrompt, "blocked")
	r.unread(1, 1)
	a = r.event(Event{Name: "prompt"})
	r.begin()
	r.over(Instruction{Batch: a.Batch, Holds: a.Holds}, viaPrompt, "")
	r.complete(true) // before it asked the model
	r.unread(1, 1)

	r.begin()
	r.step()
	a = r.event(Event{Name: "prompt"}) // typed while a turn runs
	if r.holds(strings.Join(a.Context, "")); a.Batch != "" || len(a.Context) != 1 {
		t.Errorf("answer: %+v", a)
	}
}

func TestModes(t *testing.T) {
	t.Parallel()
	for _, mode := range []mailbox.Mode{mailbox.Notice, mailbox.InboxOnly, mailbox.Off} {
		r := newRoom(t, mode)
		r.receive(next, now)
		r.pass(time.Minute)
		prompt := r.event(Event{Name: "prompt"})
		r.begin()
		r.receive(now)
		tool := r.event(Event{Name: "tool"})
		r.complete(false)
		r.pass(time.Minute)
		rings := strings.Join(append(prompt.Context, tool.Context...), "\n")
		r.holds(rings)
		if n := strings.Count(rings, "unread peer message"); n != map[bool]int{true: 2}[mode == mailbox.Notice] {
			t.Errorf("%s: %q", mode, rings)
		}
		logs, statuses := 0, ""
		for _, i := range r.did("log status submit append") {
			switch i.Do {
			case "log":
				logs++
			case "status":
				statuses += i.Text + "; "
			default:
				t.Errorf("%s: %+v", mode, i)
			}
		}
		if (logs == 2) != (mode == mailbox.Notice) || (statuses == "") != (mode == mailbox.Off) {
			t.Errorf("%s: %d lines, status %q", mode, logs, statuses)
		}
		r.unread(3, 3)
	}
}

func TestDND(t *testing.T) {
	t.Parallel()
	r := newRoom(t, mailbox.Push)
	_, err := r.box.ChangeAgent(ctx, process.Self().PID, func(a *mailbox.Agent) error { a.DND = true; return nil })
	check(t, err)
	r.receive(next, low)
	r.pass(time.Minute)
	r.none()
	if a := r.event(Event{Name: "prompt"}); a.Context != nil {
		t.Errorf("prompt: %v", a)
	}
	r.receive(now)
	r.one(3)
}

// What does not fit is counted, and begins no turn by itself.
func TestBurst(t *testing.T) {
	t.Parallel()
	r := newRoom(t, mailbox.Push)
	for range 50 {
		r.receive(next)
		r.pass(20 * time.Millisecond)
	}
	var first []int
	for n := range 13 {
		first = append(first, n+1)
	}
	i := r.one(first...)
	turn := func() {
		r.begin()
		r.over(i, viaSubmit, "")
		r.step()
		r.complete(false)
	}
	turn()
	second := r.did("submit")
	if len(second) != 1 || !strings.Contains(second[0].Text, "17 more unread") || len(second[0].Holds) != 20 {
		t.Fatalf("second: %+v", second)
	}
	i = second[0]
	turn()
	r.pass(time.Minute)
	r.none()
	r.unread(17, 17)
	r.receive(next) // the 51st, with whom the rest comes
	r.pass(gather)
	if got := r.did("submit"); len(got) != 1 || len(got[0].Holds) != 18 {
		t.Fatalf("third: %+v", got)
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	r := newRoom(t, mailbox.Push)
	want := func(text string) {
		t.Helper()
		if got := r.did("status"); len(got) != 1 || got[0].Text != text {
			t.Errorf("want %q: %+v", text, got)
		}
	}
	want("acme · 2 online")
	r.receive(low)
	want("acme · 2 online · 1 unread")
	check(t, r.s.Look(ctx))
	if got := r.did("status"); got != nil {
		t.Errorf("again: %+v", got)
	}
	_, err := r.box.ChangeAgent(ctx, process.Self().PID, func(a *mailbox.Agent) error { a.Mode = mailbox.Off; return nil })
	check(t, err)
	check(t, r.s.Look(ctx))
	want("")
}

// Nothing happens before the agent's record is there and the mod has spoken, and another stream's agent is left alone.
// The MCP server that has died is started again, once a minute, between turns.
func TestRevive(t *testing.T) {
	t.Parallel()
	r := newRoom(t, mailbox.Push)
	dead := process.Self()
	dead.Started++
	for _, c := range []struct {
		name   string
		server process.Process
		busy   bool
		within time.Duration
		want   int
	}{
		{"it runs", process.Self(), false, time.Minute, 0},
		{"it has ended", process.Process{}, false, time.Minute, 0},
		{"it has just died", dead, false, 2 * time.Second, 0},
		{"it has died", dead, false, 10 * time.Second, 1},
		{"it was asked for", dead, false, 45 * time.Second, 0},
		{"it did not come", dead, false, 20 * time.Second, 1},
		{"a turn runs", dead, true, 2 * time.Minute, 0},
		{"the turn is over", dead, false, 5 * time.Second, 1},
	} {
		_, err := r.box.ChangeAgent(ctx, process.Self().PID, func(a *mailbox.Agent) error { a.Server = c.server; return nil })
		check(t, err)
		if c.busy {
			r.begin()
		} else if r.busy {
			r.complete(false)
		}
		r.pass(c.within)
		if got := r.did("revive"); len(got) != c.want {
			t.Errorf("%s: asked for %d times, want %d", c.name, len(got), c.want)
		}
	}
}

func TestClaim(t *testing.T) {
	t.Parallel()
	r := emptyRoom(t, openBox(t))
	r.hello()
	self := process.Self()
	parent := process.Of(1)
	agent := mailbox.Agent{Process: self, Mode: mailbox.Push, Seats: []mailbox.AgentSeat{{Mesh: id(1), Key: key(1), Member: key(2)}}}
	agent.Mod = parent
	check(t, r.box.PutAgent(ctx, agent))
	r.receive(now)
	r.none()
	agent.Mod = process.Process{PID: 1, Started: parent.Started + 1} // it has ended
	check(t, r.box.PutAgent(ctx, agent))
	check(t, r.s.Look(ctx))
	r.one(1)
	check(t, r.s.Close(ctx))
	r.unread(1, 1)
	if a := r.agent(); a.Mod.PID != 0 || a.Status != "" {
		t.Errorf("after the end: %+v", a)
	}
	r.restart()
	check(t, r.s.Look(ctx))
	r.none()
	if a := r.agent(); a.Mod.PID != 0 {
		t.Errorf("without a hello: %+v", a)
	}
}

// A new stream takes over what the old one had on its way.
func TestRestart(t *testing.T) {
	t.Parallel()
	r := newRoom(t, mailbox.Push)
	r.receive(now)
	sub := r.one(1)
	r.begin()
	r.receive(now)
	app := r.tool(2)
	r.receive(now)
	lost := r.tool(3) // the mod never saw it
	r.restart()
	r.step()
	r.hello(
		Outcome{Batch: sub.Batch, Via: viaSubmit, Holds: sub.Holds},
		Outcome{Batch: app.Batch, Via: viaAppend, Holds: app.Holds, Over: true, Steps: 0},
		Outcome{Batch: "1/mod/x", Via: viaAppend, Holds: lost.Holds, Over: true},
	)
	r.unread(2, 0)
	r.over(sub, viaSubmit, "")
	r.step()
	r.unread(1, 0)
	r.none()
	r.pass(courier.LeaseFor)
	r.tool(3)
}

func TestSilentMod(t *testing.T) {
	t.Parallel()
	r := newRoom(t, mailbox.Push)
	r.receive(now)
	r.one(1)
	r.busy = true
	r.event(Event{Name: "turn.start"}) // it is queued behind this turn
	r.pass(time.Hour)
	r.unread(1, 0)
	r.busy = false
	r.event(Event{Name: "turn.complete"})
	r.pass(patience - time.Millisecond)
	r.clock = r.clock.Add(time.Millisecond)
	if err := r.s.Look(ctx); !errors.Is(err, errSilent) {
		t.Errorf("error: %v", err)
	}
	check(t, r.s.Close(ctx))
	r.unread(1, 1)
}

// What is shelved starts nothing, and nobody is told of it.
func TestQuarantine(t *testing.T) {
	t.Parallel()
	r := newRoom(t, mailbox.Push)
	r.trust(mailbox.Quarantine)
	r.receive(now, next)
	r.pass(time.Minute)
	r.none()
	r.begin()
	r.step()
	if a := r.event(Event{Name: "tool"}); a.Context != nil || a.Append != "" {
		t.Errorf("told: %+v", a)
	}
	r.complete(false)
	if a := r.event(Event{Name: "prompt"}); a.Context != nil {
		t.Errorf("told: %+v", a)
	}
	if got := r.did("log"); len(got) > 0 {
		t.Errorf("told: %+v", got)
	}
	r.trust(mailbox.Normal)
	r.pass(time.Minute)
	r.one(1, 2)
}

// What is one automatic message too many only rings.
func TestBrake(t *testing.T) {
	t.Parallel()
	r := newRoom(t, mailbox.Push)
	var all []wire.Priority
	for range 20 {
		all = append(all, next)
	}
	r.receiveHop(1, all...)
	r.pass(time.Second)
	i := r.did("submit")[0]
	r.begin()
	r.over(i, viaSubmit, "")
	r.step()
	r.complete(false)
	r.receiveHop(1, now)
	r.pass(time.Minute)
	r.none()
	r.begin()
	r.step()
	a := r.event(Event{Name: "tool"})
	if got := strings.Join(a.Context, ""); !strings.Contains(got, "1 unread peer message: 1 from bob/api (urgent)") || a.Append != "" {
		t.Errorf("want a bell: %+v", a)
	}
}
