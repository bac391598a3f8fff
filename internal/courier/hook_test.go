package courier_test

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/internal/courier"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/process"
	"github.com/claudemesh/claudemesh/internal/render"
	"github.com/claudemesh/claudemesh/internal/wire"
)

func event(name string) courier.Event { return courier.Event{Name: name} }

// What a prompt's hook prints is read when a later event of the session proves
// a request, and the sender is told with the broker's time.
func TestPromptShowsAndLaterEventsProve(t *testing.T) {
	t.Parallel()
	for _, proof := range []string{courier.PostToolBatch, courier.Stop} {
		w := newWorld(t)
		low, urgent := w.receive(wire.PriorityLow), w.receive(wire.PriorityNow)
		text := w.hook(event(courier.UserPromptSubmit))
		w.has(text, low, urgent, render.Notice, `from="bob/api"`, `mesh="acme"`)
		w.equal(w.free(), "") // held
		w.equal(w.owed(), "") // not yet read
		a := w.agent()
		w.equal(len(a.Shown), 1)
		w.equal(a.Shown[0].Session, "s1")
		w.equal(len(a.Proven), 0)
		w.equal(w.hook(event(proof)), "")
		w.equal(len(strings.Split(w.owed(), ";")), 3)
		msgs, _, err := w.box.List(ctx, mailbox.Query{Recipients: []wire.Key{web}, Read: true})
		w.check(err)
		if late := time.Now().UnixMilli() + offset - msgs[0].ReadAt; late < 0 || late > offset || msgs[0].Reader != web {
			t.Errorf("read %d ms before now by the broker's clock, by %s", late, msgs[0].Reader)
		}
		a = w.agent()
		w.equal(len(a.Shown), 0)
		if a.Proven[mailbox.ByHooks] == 0 {
			t.Error("the path is not proven")
		}
	}
}

// A turn that was broken off has no end. The next prompt tells from the
// transcript whether the conversation kept what came with the one before.
func TestBrokenOff(t *testing.T) {
	t.Parallel()
	hour := func(h int) string { return time.Now().Add(time.Duration(h) * time.Hour).UTC().Format(time.RFC3339Nano) }
	for name, c := range map[string]struct {
		transcript string
		kept       bool
	}{
		"no file":      {"", false},
		"no answer":    {`{"type":"user","timestamp":"` + hour(1) + `","message":{"content":"think"}}`, false},
		"older answer": {`{"type":"assistant","timestamp":"` + hour(-1) + `"}`, false},
		"a subagent's": {`{"type":"assistant","isSidechain":true,"timestamp":"` + hour(1) + `"}`, false},
		"no JSON":      {"assistant", false},
		"answer":       {"{}\n" + `{"type":"assistant","timestamp":"` + hour(1) + `"}` + "\n{", true},
		"interrupted":  {`{"type":"user","timestamp":"` + hour(1) + `","message":{"content":[{"text":"[Request interrupted by user]"}]}}`, true},
		"long":         {strings.Repeat("x", 3<<20) + "\n" + `{"type":"assistant","timestamp":"` + hour(1) + `"}`, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			e := event(courier.UserPromptSubmit)
			if e.Transcript = t.TempDir(); c.transcript != "" {
				e.Transcript += "/t.jsonl"
				w.check(os.WriteFile(e.Transcript, []byte(c.transcript), 0o600))
			}
			text := w.receive(wire.PriorityNext)
			w.has(w.hook(e), text)
			if again := w.hook(e); c.kept {
				w.equal(again, "")
				w.equal(w.owed(), text+";")
			} else {
				w.has(again, text)
				w.equal(w.owed(), "")
			}
		})
	}
	w := newWorld(t) // what came within a turn stays whatever happens
	w.hook(event(courier.UserPromptSubmit))
	text := w.receive(wire.PriorityNow)
	w.has(w.hook(event(courier.PostToolBatch)), text)
	w.equal(w.hook(event(courier.UserPromptSubmit)), "")
	w.equal(w.owed(), text+";")
}

// What was shown to a conversation that is gone goes back, once.
func TestLostIsPutBack(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]courier.Event{
		"clear":         {Name: courier.SessionStart, Source: "clear", Session: "s2"},
		"clear, same":   {Name: courier.SessionStart, Source: "clear", Session: "s1"},
		"other session": {Name: courier.UserPromptSubmit, Session: "s2"},
		"resume":        {Name: courier.SessionStart, Source: "resume", Session: "s2"},
		"end":           {Name: courier.SessionEnd, Session: "s1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			text := w.receive(wire.PriorityNext)
			w.has(w.hook(event(courier.UserPromptSubmit)), text)
			again := w.hook(e)
			if e.Name == courier.UserPromptSubmit {
				w.has(again, text)
			} else {
				w.equal(w.free(), text+";")
				w.has(w.hook(courier.Event{Name: courier.UserPromptSubmit, Session: "s2"}), text)
			}
			w.equal(w.owed(), "")
			w.hook(courier.Event{Name: courier.Stop, Session: "s2"})
			w.equal(w.owed(), text+";")
		})
	}
}

// These come between showing and proof, and settle nothing.
func TestNoProof(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.receive(wire.PriorityNext)
	w.hook(event(courier.UserPromptSubmit))
	for _, e := range []courier.Event{
		{Name: courier.PostToolBatch, Subagent: "a1"}, {Name: courier.Stop, Subagent: "a1"}, event(courier.StopFailure),
		{Name: courier.Notification, Kind: "idle_prompt"}, {Name: courier.SessionStart, Source: "compact"},
	} {
		w.hook(e)
		w.equal(len(w.agent().Shown), 1)
		w.equal(w.owed(), "")
		w.equal(w.free(), "")
	}
}

func TestBetween(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.equal(w.hook(event(courier.PostToolBatch)), "")
	low, next := w.receive(wire.PriorityLow), w.receive(wire.PriorityNext)
	bell := w.hook(event(courier.PostToolBatch))
	w.has(bell, "1 unread peer message: 1 from bob/api")
	if strings.Contains(bell, next) {
		t.Error("the bell shows the text")
	}
	w.equal(w.hook(event(courier.PostToolBatch)), "") // once
	urgent := w.receive(wire.PriorityNow)
	text := w.hook(event(courier.PostToolBatch))
	w.has(text, urgent, render.Notice)
	if strings.Contains(text, "unread peer") || strings.Contains(text, next) {
		t.Errorf("what can wait comes again: %s", text)
	}
	urgent = w.receive(wire.PriorityNow)
	w.receive(wire.PriorityNext)
	w.has(w.hook(event(courier.PostToolBatch)), urgent, "2 unread peer messages")
	w.has(w.free(), low, next)
}

func TestStop(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.receive(wire.PriorityLow)
	w.equal(w.hook(event(courier.Stop)), "")
	w.equal(w.agent().Status, courier.Idle)
	next := w.receive(wire.PriorityNext)
	w.equal(w.hook(courier.Event{Name: courier.Stop, Again: true}), "")
	w.change(func(a *mailbox.Agent) { a.Waiter = process.Self() })
	w.equal(w.hook(event(courier.Stop)), "") // the waiter takes it
	w.change(func(a *mailbox.Agent) { a.Waiter.Started++ })
	w.has(w.hook(event(courier.Stop)), next)
	w.equal(w.agent().Status, courier.Working) // the turn goes on
	w.equal(w.hook(courier.Event{Name: courier.Stop, Again: true}), "")
	w.equal(w.owed(), next+";")
	w.equal(w.agent().Status, courier.Idle)
}

func TestDigest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.equal(w.hook(courier.Event{Name: courier.SessionStart, Source: "startup"}), "[claudemesh: this session is alice/web in acme]")
	text := w.receive(wire.PriorityLow)
	for _, source := range []string{"startup", "resume", "clear", "compact"} {
		digest := w.hook(courier.Event{Name: courier.SessionStart, Source: source})
		w.has(digest, "alice/web in acme", "1 unread peer message: 1 from bob/api")
		if strings.Contains(digest, text) {
			t.Error("the digest shows the text")
		}
	}
	w.equal(w.free(), text+";")
}

func TestModes(t *testing.T) {
	t.Parallel()
	all := []courier.Event{
		{Name: courier.SessionStart, Source: "resume"}, event(courier.UserPromptSubmit), event(courier.PostToolBatch), event(courier.Stop),
	}
	w := newWorld(t)
	texts := []string{w.receive(wire.PriorityNow), w.receive(wire.PriorityNext)}
	said := func() (n int) {
		for _, e := range all {
			got := w.hook(e)
			if got != "" {
				n++
			}
			for _, text := range texts {
				if strings.Contains(got, text) {
					t.Errorf("%s shows a text", e.Name)
				}
			}
		}
		return n
	}
	for mode, want := range map[mailbox.Mode]int{mailbox.Off: 0, mailbox.InboxOnly: 0, "": 0} {
		w.change(func(a *mailbox.Agent) { a.Mode = mode })
		w.equal(said(), want)
	}
	w.change(func(a *mailbox.Agent) { a.Mode, a.Mod = mailbox.Push, process.Self() })
	w.equal(said(), 0) // the mod is alive
	w.change(func(a *mailbox.Agent) { a.Mode, a.Mod = mailbox.Notice, process.Process{} })
	w.equal(said(), 3) // but not at Stop: it would prolong the turn
	w.change(func(a *mailbox.Agent) { a.Mode, a.DND = mailbox.Push, true })
	text := w.hook(event(courier.UserPromptSubmit))
	w.has(text, texts[0])
	if strings.Contains(text, texts[1]) {
		t.Error("dnd lets next through")
	}
}

func TestBinding(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.change(func(a *mailbox.Agent) { a.Mode, a.Session = mailbox.Off, "stale" })
	w.hook(courier.Event{Name: courier.UserPromptSubmit, Session: "s9", Attended: "1"})
	a := w.agent()
	w.equal(a.Session, "s9")
	w.equal(a.Attended, true)
	w.equal(a.Status, courier.Working)
	if age := time.Now().UnixMilli() - a.Hooks; age < 0 || age > 60_000 {
		t.Errorf("stamped %d ms ago", age)
	}
	stamp := a.Hooks
	for _, c := range []struct {
		e      courier.Event
		status string
	}{
		{courier.Event{Name: courier.PostToolBatch, Attended: "0"}, courier.Working},
		{courier.Event{Name: courier.StopFailure}, courier.Idle},
		{courier.Event{Name: courier.PostToolBatch}, courier.Working},
		{courier.Event{Name: courier.Notification, Kind: "permission_prompt"}, courier.Working},
		{courier.Event{Name: courier.SessionStart, Source: "compact"}, courier.Working},
		{courier.Event{Name: courier.Notification, Kind: "idle_prompt"}, courier.Idle},
	} {
		w.hook(c.e)
		w.equal(w.agent().Status, c.status)
	}
	a = w.agent()
	w.equal(a.Attended, false)
	w.equal(a.Hooks, stamp) // at most once a minute
	before := a
	w.hook(courier.Event{Name: courier.Notification, Kind: "idle_prompt"})
	w.equal(w.agent(), before)
}

// Without a record, or with that of a process that had the number before, there is no agent.
func TestNoAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.receive(wire.PriorityNow)
	w.change(func(a *mailbox.Agent) { a.Started++ })
	w.equal(w.hook(event(courier.UserPromptSubmit)), "")
	w.equal(w.agent().Session, "")
	w.equal(w.hook(courier.Event{Name: courier.SessionStart, Source: "startup"}), "") // and sweeps
	_, err := w.box.Agent(ctx, os.Getpid())
	w.equal(err, mailbox.ErrNoAgent)
	w.equal(w.hook(event(courier.UserPromptSubmit)), "")
}

func TestSweepKeepsTheLiving(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cmd := exec.Command("go", "version")
	w.check(cmd.Run())
	text := w.receive(wire.PriorityNow)
	w.check(w.box.PutAgent(ctx, mailbox.Agent{Process: process.Process{PID: cmd.Process.Pid, Started: 1}}))
	q := mailbox.Query{Recipients: []wire.Key{web}, Holder: mailbox.HolderOf(cmd.Process.Pid) + "hooks/x", Now: time.Now().UnixMilli()}
	_, _, err := w.box.Lease(ctx, q, q.Now+100_000)
	w.check(err)
	w.equal(w.free(), "")
	w.hook(courier.Event{Name: courier.SessionStart, Source: "startup"})
	w.equal(w.free(), text+";")
	all, err := w.box.Agents(ctx)
	w.check(err)
	w.equal(len(all), 1)
}

// short takes a part of what is written to it.
type short struct{}

func (short) Write(b []byte) (int, error) { return len(b) / 2, errors.New("no room") }

func TestUnprintedGoesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	text := w.receive(wire.PriorityNow)
	e := courier.Event{Name: courier.UserPromptSubmit, Session: "s1"}
	if err := w.hookTo(e, short{}); err == nil {
		t.Fatal("no error")
	}
	w.equal(w.free(), text+";")
	w.equal(len(w.agent().Shown), 0)
	w.hook(event(courier.Stop)) // proves nothing of it; and shows it
	w.equal(w.owed(), "")
	w.equal(len(w.agent().Shown), 1)
}

// A context stays within what Claude Code takes whole, and counts the rest.
func TestContextIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 3 {
		w.receiveText(wire.PriorityNow, strings.Repeat("é<\n", 4000))
	}
	w.receive(wire.PriorityNext)
	text := w.hook(event(courier.PostToolBatch))
	if len(text) > 10_000 {
		t.Errorf("%d bytes", len(text))
	}
	w.has(text, "bytes more", "more unread", "unread peer message")
	w.equal(strings.Count(text, render.Notice), 1)
	w.equal(len(strings.Split(w.free(), ";")), 4) // two urgent, and the other
}

func TestReadEvent(t *testing.T) {
	t.Parallel()
	e, err := courier.ReadEvent(strings.NewReader(`{"session_id":"s","hook_event_name":"Stop","stop_hook_active":true,"new":{"x":[1]},"prompt_id":"p"}`))
	if err != nil || e.Session != "s" || e.Name != courier.Stop || !e.Again {
		t.Errorf("%+v, %v", e, err)
	}
	for _, bad := range []string{
		"", "garbage", "{}", `{"session_id":7}`, `["session_id"]`, `{"session_id":"s"`,
		`{"session_id":"s","prompt":"` + strings.Repeat("x", 1<<20) + `"}`,
	} {
		if _, err := courier.ReadEvent(strings.NewReader(bad)); err == nil {
			t.Errorf("%.40q is accepted", bad)
		}
	}
}

// A prompt that is typed into a running turn proves nothing of what came with
// it, and takes nothing in: it may be taken back.
func TestPromptTypedIntoATurn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.receive(wire.PriorityNext)
	w.has(w.hook(courier.Event{Name: courier.UserPromptSubmit, Turn: "t1"}), first)
	second := w.receive(wire.PriorityNext)
	w.equal(w.hook(courier.Event{Name: courier.UserPromptSubmit, Turn: "t1"}), "")
	w.equal(w.owed(), "")
	w.equal(w.free(), second+";")
	w.has(w.hook(courier.Event{Name: courier.Stop, Turn: "t1"}), second)
	w.equal(w.owed(), first+";")
}
