package courier_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/claudemesh/claudemesh/internal/courier"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/process"
	"github.com/claudemesh/claudemesh/internal/render"
	"github.com/claudemesh/claudemesh/internal/wire"
)

var atStop = courier.Event{Name: courier.Stop, Session: "s1", Attended: "1"}

// waiting is a waiter that runs beside the test, in virtual time.
type waiting struct {
	*world
	out  strings.Builder
	over chan struct{}
	woke bool
	err  error
	stop context.CancelFunc
}

func (w *world) wait(e courier.Event, pid int) *waiting {
	w.Helper()
	ctx, stop := context.WithCancel(ctx)
	n := &waiting{world: w, over: make(chan struct{}), stop: stop}
	go func() {
		defer close(n.over)
		n.woke, n.err = courier.New(w.box, pid, mailbox.ByRewake).Wait(ctx, e, &n.out)
	}()
	w.Cleanup(func() { stop(); <-n.over })
	return n
}

// ended waits for the waiter's end and returns what it said, "" unless it woke the agent.
func (n *waiting) ended() string {
	n.Helper()
	<-n.over
	n.check(n.err)
	if !n.woke && n.out.Len() > 0 {
		n.Errorf("says without waking: %s", n.out.String())
	}
	return n.out.String()
}

// running checks that the waiter is the agent's and has nothing more to do now.
func (n *waiting) running() {
	n.Helper()
	time.Sleep(time.Second)
	synctest.Wait()
	select {
	case <-n.over:
		n.Fatalf("the waiter has ended: %v", n.err)
	default:
	}
	if !n.agent().Waiter.Alive() {
		n.Fatal("the agent has no waiter")
	}
}

func inBubble(t *testing.T, f func(w *world)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { f(newWorld(t)) })
}

func TestWaiterWakes(t *testing.T) {
	inBubble(t, func(w *world) {
		n := w.wait(atStop, os.Getpid())
		n.running()
		low := w.receive(wire.PriorityLow)
		n.running() // that is no reason
		next := w.receive(wire.PriorityNext)
		text := n.ended()
		w.has(text, next, render.Notice)
		if strings.Contains(text, low) {
			w.Error("a low message starts a turn")
		}
		a := w.agent()
		w.equal(a.Waiter, process.Process{})
		w.equal(a.Status, courier.Working)
		w.equal(len(a.Shown), 1)
		w.equal(w.owed(), "")
		// The turn that it begins is no proof, its end is.
		w.has(w.hook(courier.Event{Name: courier.UserPromptSubmit, Prompt: "<task-notification>\n"}), low)
		w.equal(w.owed(), "")
		w.hook(courier.Event{Name: courier.Stop, Again: true})
		w.equal(w.owed(), low+";"+next+";")
		if w.agent().Proven[mailbox.ByRewake] == 0 {
			w.Error("the path is not proven")
		}
	})
}

// A prompt that the person enters just then has its turn before the one that
// the waiter began: it proves nothing of what is still to be shown. Nor does the
// end of the conversation: the next one is woken with it.
func TestWaiterWakesAsAPromptIsEntered(t *testing.T) {
	inBubble(t, func(w *world) {
		n := w.wait(atStop, os.Getpid())
		text := w.receive(wire.PriorityNext)
		w.has(n.ended(), text)
		w.equal(w.hook(courier.Event{Name: courier.UserPromptSubmit, Prompt: "hello", Turn: "t1"}), "")
		w.hook(courier.Event{Name: courier.Stop, Turn: "t1"})
		w.hook(courier.Event{Name: courier.SessionEnd, Turn: "t1"})
		w.hook(courier.Event{Name: courier.SessionStart, Source: "clear", Session: "s2"})
		w.equal(w.free(), "") // still held
		w.equal(w.owed(), "")
		w.equal(w.hook(courier.Event{Name: courier.UserPromptSubmit, Prompt: "<task-notification>", Turn: "t2", Session: "s2"}), "")
		w.equal(w.free(), "")
		// Its turn has come, and was broken off before an answer.
		w.has(w.hook(courier.Event{Name: courier.UserPromptSubmit, Prompt: "go on", Turn: "t3", Session: "s2"}), text)
		w.equal(w.owed(), "")
		w.hook(courier.Event{Name: courier.Stop, Turn: "t3", Session: "s2"})
		w.equal(w.owed(), text+";")
	})
}

// sayer returns a directory as Claude Code's, and what writes there what the agent
// says of itself.
func (w *world) sayer() (dir string, says func(text string)) {
	w.Helper()
	dir = w.TempDir()
	w.check(os.Mkdir(dir+"/sessions", 0o700))
	return dir, func(text string) {
		w.Helper()
		w.check(os.WriteFile(fmt.Sprintf("%s/sessions/%d.json", dir, os.Getpid()), []byte(text), 0o600))
	}
}

// Behind the event that ends a turn the agent may have more to do: a prompt or
// a /clear that was entered meanwhile. It says so itself.
func TestWaiterWaitsForWhatWasEntered(t *testing.T) {
	inBubble(t, func(w *world) {
		dir, says := w.sayer()
		e := atStop
		e.Transcript = dir + "/projects/web/s1.jsonl"
		says(`{"status":"busy","statusUpdatedAt":5}`)
		n := w.wait(e, os.Getpid())
		text := w.receive(wire.PriorityNow)
		n.running()
		w.has(w.free(), text)
		says(`{"status":"idle","statusUpdatedAt":6}`)
		w.has(n.ended(), text)

		says(`{"status":"busy","statusUpdatedAt":5}`)
		w.change(func(a *mailbox.Agent) { a.Status = courier.Idle })
		n = w.wait(e, os.Getpid())
		text = w.receive(wire.PriorityNow)
		begin := time.Now()
		w.has(n.ended(), text) // it does not say so for ever
		if d := time.Since(begin); d != 5*time.Second {
			w.Errorf("woken after %s", d)
		}
	})
}

// What the agent never began a turn for is free again after a while.
func TestWakeIsNotHeeded(t *testing.T) {
	inBubble(t, func(w *world) {
		n := w.wait(atStop, os.Getpid())
		text := w.receive(wire.PriorityNext)
		w.has(n.ended(), text)
		time.Sleep(11 * time.Minute)
		w.has(w.hook(courier.Event{Name: courier.UserPromptSubmit, Prompt: "hello", Turn: "t1"}), text)
		w.equal(len(w.agent().Shown), 1)
	})
}

func TestWaiterCoalesces(t *testing.T) {
	inBubble(t, func(w *world) {
		n := w.wait(atStop, os.Getpid())
		n.running()
		one := w.receive(wire.PriorityNext)
		synctest.Wait()
		begin := time.Now()
		time.Sleep(200 * time.Millisecond)
		two := w.receive(wire.PriorityNext)
		w.has(n.ended(), one, two)
		if d := time.Since(begin); d != 250*time.Millisecond {
			w.Errorf("woken after %s", d)
		}
		w.change(func(a *mailbox.Agent) { a.Status = courier.Idle })
		n = w.wait(atStop, os.Getpid())
		n.running()
		begin = time.Now()
		urgent := w.receive(wire.PriorityNow)
		w.has(n.ended(), urgent)
		if d := time.Since(begin); d > 0 {
			w.Errorf("an urgent message waits %s", d)
		}
	})
}

// While the agent works its own events bring messages in; then the waiter does.
func TestWaiterWaitsForIdle(t *testing.T) {
	inBubble(t, func(w *world) {
		w.hook(event(courier.UserPromptSubmit))
		n := w.wait(atStop, os.Getpid())
		text := w.receive(wire.PriorityNext)
		n.running()
		w.equal(w.hook(event(courier.Stop)), "")
		w.has(n.ended(), text)
	})
}

// A turn that the person broke off has no end: the agent's own file tells.
func TestWaiterAfterABrokenTurn(t *testing.T) {
	inBubble(t, func(w *world) {
		dir, says := w.sayer()
		w.hook(event(courier.UserPromptSubmit))
		e := atStop
		e.Transcript = dir + "/projects/web/s1.jsonl"
		n := w.wait(e, os.Getpid())
		text := w.receive(wire.PriorityNow)
		for _, other := range []string{"garbage", `{"status":"busy","statusUpdatedAt":5}`, `{"status":"waiting","statusUpdatedAt":5}`, `{"status":"idle"}`} {
			says(other)
			time.Sleep(10 * time.Second)
			n.running()
		}
		for i := range 5 { // it idles only for moments
			says(fmt.Sprintf(`{"status":"idle","statusUpdatedAt":%d}`, 6+i))
			n.running() // a second
			says(`{"status":"busy","statusUpdatedAt":5}`)
			time.Sleep(2 * time.Second)
		}
		says(`{"status":"idle","statusUpdatedAt":99}`)
		w.has(n.ended(), text)
	})
}

func TestWaiterIsNotWanted(t *testing.T) {
	parent := process.Of(os.Getppid())
	for name, c := range map[string]struct {
		e      courier.Event
		change func(*mailbox.Agent)
	}{
		"unattended":     {courier.Event{Name: courier.Stop, Attended: "0"}, nil},
		"not known":      {courier.Event{Name: courier.Stop}, nil},
		"a subagent":     {courier.Event{Name: courier.Stop, Attended: "1", Subagent: "x"}, nil},
		"mode":           {atStop, func(a *mailbox.Agent) { a.Mode = mailbox.Notice }},
		"mod":            {atStop, func(a *mailbox.Agent) { a.Mod = parent }},
		"another waiter": {atStop, func(a *mailbox.Agent) { a.Waiter = parent }},
		"another agent":  {atStop, func(a *mailbox.Agent) { a.Started++ }},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(w *world) {
				text := w.receive(wire.PriorityNow)
				if c.change != nil {
					w.change(c.change)
				}
				before, begin := w.agent(), time.Now()
				w.equal(w.wait(c.e, os.Getpid()).ended(), "")
				w.equal(time.Since(begin), time.Duration(0))
				w.equal(w.free(), text+";")
				w.equal(w.agent(), before)
			})
		})
	}
}

func TestWaiterIsNoLongerWanted(t *testing.T) {
	parent := process.Of(os.Getppid())
	for name, change := range map[string]func(*mailbox.Agent){
		"mode":           func(a *mailbox.Agent) { a.Mode = mailbox.Off },
		"mod":            func(a *mailbox.Agent) { a.Mod = parent },
		"another waiter": func(a *mailbox.Agent) { a.Waiter = parent },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(w *world) {
				n := w.wait(courier.Event{Name: courier.SessionStart, Attended: "1"}, os.Getpid())
				n.running()
				w.change(change)
				w.equal(n.ended(), "")
				if a := w.agent(); a.Waiter == process.Self() {
					w.Error("it stands in the record")
				}
			})
		})
	}
}

// The agent may no longer heed a waiter of the conversation before.
func TestWaiterOfANewConversationTakesOver(t *testing.T) {
	inBubble(t, func(w *world) {
		w.change(func(a *mailbox.Agent) { a.Waiter = process.Of(os.Getppid()) })
		n := w.wait(courier.Event{Name: courier.SessionStart, Attended: "1"}, os.Getpid())
		n.running()
		w.equal(w.agent().Waiter, process.Self())
	})
}

// A record that the MCP server made anew gets its waiter again.
func TestWaiterOutlivesTheRecord(t *testing.T) {
	inBubble(t, func(w *world) {
		n := w.wait(atStop, os.Getpid())
		n.running()
		a := w.agent()
		a.Waiter = process.Process{}
		w.check(w.box.ForgetAgents(ctx, []int{a.PID}))
		time.Sleep(time.Minute)
		w.check(w.box.PutAgent(ctx, a))
		n.running()
	})
}

func TestWaiterWaitsForARecord(t *testing.T) {
	inBubble(t, func(w *world) {
		a := w.agent()
		w.check(w.box.ForgetAgents(ctx, []int{a.PID}))
		begin := time.Now()
		w.equal(w.wait(atStop, os.Getpid()).ended(), "")
		w.equal(time.Since(begin), 10*time.Second)
		n := w.wait(atStop, os.Getpid())
		time.Sleep(9 * time.Second)
		w.check(w.box.PutAgent(ctx, a))
		n.running()
	})
}

func TestWaiterEnds(t *testing.T) {
	inBubble(t, func(w *world) { // at SIGTERM
		n := w.wait(atStop, os.Getpid())
		n.running()
		n.stop()
		w.equal(n.ended(), "")
		w.equal(w.agent().Waiter, process.Process{})
	})
}

func TestWaiterEndsWithTheAgent(t *testing.T) {
	inBubble(t, func(w *world) {
		agent := exec.Command("sleep", "600")
		w.check(agent.Start())
		a := w.agent()
		a.Process = process.Of(agent.Process.Pid)
		w.check(w.box.PutAgent(ctx, a))
		n := w.wait(atStop, a.PID)
		time.Sleep(time.Minute)
		synctest.Wait()
		w.check(agent.Process.Kill())
		_ = agent.Wait()
		w.equal(n.ended(), "")
	})
}

func TestUnheardWakeGoesBack(t *testing.T) {
	inBubble(t, func(w *world) {
		text := w.receive(wire.PriorityNow)
		woken, err := courier.New(w.box, os.Getpid(), mailbox.ByRewake).Wait(ctx, atStop, short{})
		if woken || err == nil {
			w.Fatalf("woken %v, %v", woken, err)
		}
		w.equal(w.free(), text+";")
		a := w.agent()
		w.equal(len(a.Shown), 0)
		w.equal(a.Waiter, process.Process{})
	})
}

// A wake whose prompt the agent has told of may still lie in its queue when the
// conversation is cleared: then it is read in the next one.
func TestWakeIsCarriedOver(t *testing.T) {
	inBubble(t, func(w *world) {
		n := w.wait(atStop, os.Getpid())
		text := w.receive(wire.PriorityNext)
		w.has(n.ended(), text)
		path := w.TempDir() + "/s2.jsonl"
		w.hook(courier.Event{Name: courier.UserPromptSubmit, Prompt: "<task-notification>", Turn: "t2"})
		w.hook(courier.Event{Name: courier.SessionEnd, Turn: "t2"})
		w.hook(courier.Event{Name: courier.SessionStart, Source: "clear", Session: "s2"})
		w.hook(courier.Event{Name: courier.Stop, Session: "s2", Turn: "t3", Transcript: path})
		w.equal(w.free(), "") // nobody else brings it in
		w.equal(w.owed(), "")
		line := fmt.Sprintf(`{"type":"user","timestamp":%q,"message":{"content":"<task-notification> ..."}}`+"\n", time.Now().UTC().Format(time.RFC3339Nano))
		w.check(os.WriteFile(path, []byte(line), 0o600))
		w.hook(courier.Event{Name: courier.Stop, Session: "s2", Turn: "t4", Transcript: path})
		w.equal(w.owed(), text+";")
	})
}
