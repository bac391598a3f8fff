package stream

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/claudemesh/claudemesh/internal/courier"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/process"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// claude is the agent and its mod, as far as they were measured. What the model
// has been sent is in seen.
type claude struct {
	*room
	rt      *rapid.T
	batches map[string]*Outcome // as the mod keeps them
	order   []string
	queue   []Instruction // submitted while a turn ran
	prompt  string        // of the turn, until a request has it
	notes   []string      // appended, until a request has them
	asked   bool          // the turn has asked the model
	stopped bool          // by a person: the agent refuses turns of others
	seen    string
	late    []Event // on their way

	settling bool // nothing fails any more
}

// post sends an event that the mod does not wait for.
func (c *claude) post(e Event) {
	e.Busy, e.Steps = c.busy, c.steps
	c.late = append(c.late, e)
}

// ask sends an event and waits for its answer, behind those on their way.
func (c *claude) ask(e Event) Answer {
	c.arrive(true)
	return c.heard(c.event(e))
}

// arrive lets some of the events on their way arrive.
func (c *claude) arrive(all bool) {
	for len(c.late) > 0 && (all || rapid.Bool().Draw(c.rt, "arrives")) {
		e := c.late[0]
		c.late = c.late[1:]
		c.heard(c.deliver(e))
	}
}

func (c *claude) heard(a Answer) Answer {
	for _, id := range a.Done {
		delete(c.batches, id)
	}
	return a
}

func (c *claude) keep(id string, how via, holds []hold) *Outcome {
	o := &Outcome{Batch: id, Via: how, Holds: holds, Steps: c.steps}
	c.batches[id] = o
	c.order = append(c.order, id)
	return o
}

func (c *claude) over(o *Outcome, failed string) {
	o.Over, o.Failed = true, failed
	c.post(Event{Name: "outcome", Batches: []Outcome{*o}})
}

// fails reports whether the agent does not do what it was asked.
func (c *claude) fails(how string) bool {
	return !c.settling && rapid.IntRange(0, 5).Draw(c.rt, how) == 0
}

// obey carries out what the stream has said.
func (c *claude) obey() {
	for _, i := range c.did("submit") {
		o := c.keep(i.Batch, viaSubmit, i.Holds)
		switch {
		case c.stopped || c.fails("refused"):
			o.Steps = c.steps
			c.over(o, "refused")
		case c.busy:
			c.queue = append(c.queue, i)
		default:
			c.start(i.Text, o)
		}
	}
}

func (c *claude) start(prompt string, o *Outcome) {
	c.busy, c.asked, c.prompt = true, false, prompt
	c.post(Event{Name: "turn.start"})
	if o != nil {
		if o.Via == viaSubmit {
			o.Steps = c.steps
		}
		c.over(o, "")
	}
}

// request is what the model is sent.
func (c *claude) request() {
	c.steps++
	c.seen += c.prompt + strings.Join(c.notes, "")
	c.prompt, c.notes, c.asked = "", nil, true
	c.post(Event{Name: "step"})
}

func (c *claude) toolCall() {
	a := c.ask(Event{Name: "tool"})
	c.holds(strings.Join(a.Context, ""))
	if a.Append == "" {
		return
	}
	o := c.keep(a.Batch, viaAppend, a.Holds)
	failed := ""
	if c.fails("denied") {
		failed = "denied"
	} else {
		c.notes = append(c.notes, a.Append)
	}
	o.Steps = c.steps
	c.over(o, failed)
}

func (c *claude) end(aborted bool) {
	if c.prompt != "" && strings.HasPrefix(c.prompt, "person") {
		c.prompt = "" // taken back, with what stood beside it
	}
	c.notes, c.prompt = append(c.notes, c.prompt), "" // it stays in the conversation
	c.busy, c.stopped = false, aborted
	c.post(Event{Name: "turn.complete", Aborted: aborted})
	queue := c.queue
	c.queue = nil
	for n, i := range queue {
		if o := c.batches[i.Batch]; aborted || n > 0 {
			c.over(o, "removed from the queue")
		} else {
			c.start(i.Text, o)
		}
	}
}

func (c *claude) person() {
	c.stopped = false
	a := c.ask(Event{Name: "prompt"})
	text := "person" + strings.Join(a.Context, "")
	if a.Batch == "" {
		c.start(text, nil)
		return
	}
	o := c.keep(a.Batch, viaPrompt, a.Holds)
	if c.fails("blocked") {
		c.over(o, "blocked")
		return
	}
	c.start(text, o)
}

func (c *claude) clear() {
	c.ask(Event{Name: "session.end", Reason: "clear"})
	for _, o := range c.batches {
		if o.Over && o.Steps >= c.steps && o.Failed == "" {
			o.Failed = "the conversation has ended"
		}
	}
	c.notes = nil
	c.greet()
}

func (c *claude) greet() {
	var all []Outcome
	for _, id := range c.order {
		if o := c.batches[id]; o != nil {
			all = append(all, *o)
		}
	}
	c.heard(c.hello(all...))
}

// kill ends the stream's process: what was on its way in either direction is lost.
func (c *claude) kill() {
	c.out, c.late = nil, nil
	c.restart()
	c.greet()
}

func (c *claude) step() {
	if c.busy {
		switch rapid.SampledFrom([]string{"request", "tool", "tool", "end", "esc"}).Draw(c.rt, "turn") {
		case "request":
			c.request()
		case "tool":
			if c.asked {
				c.toolCall()
				c.request()
			}
		case "end":
			if c.asked {
				c.end(false)
			}
		case "esc":
			c.end(true)
		}
		return
	}
	switch rapid.SampledFrom([]string{"nothing", "nothing", "person", "clear"}).Draw(c.rt, "idle") {
	case "person":
		c.person()
	case "clear":
		c.clear()
	}
}

// Whatever happens, no message is lost and none is shown twice.
func TestEachOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		box := mailbox.NewMemory() // for speed; the other tests have a file
		defer box.Close()
		c := &claude{room: emptyRoom(rt, box), rt: rt, batches: map[string]*Outcome{}}
		check(rt, box.PutAgent(ctx, agentOf(mailbox.Push)))
		c.greet()
		for range rapid.IntRange(1, 60).Draw(rt, "moves") {
			switch rapid.SampledFrom([]string{"message", "message", "time", "agent", "agent", "agent", "kill"}).Draw(rt, "move") {
			case "message":
				c.receive(rapid.SampledFrom(wire.Priorities[:]).Draw(rt, "priority"))
			case "time":
				c.pass(time.Duration(rapid.IntRange(1, 12_000).Draw(rt, "ms")) * time.Millisecond)
			case "agent":
				c.step()
			case "kill":
				if rapid.IntRange(0, 3).Draw(rt, "kills") == 0 {
					c.arrive(true)
					c.kill()
				}
			}
			c.obey()
			c.arrive(false)
		}
		c.settle()
	})
}

// settle lets the agent go on until it is idle and a person has asked it once
// more, and checks that all has come.
func (c *claude) settle() {
	c.settling = true
	for range 4 {
		for range 6 {
			c.arrive(true)
			if c.busy {
				c.request()
				c.arrive(true)
				c.end(false)
				c.arrive(true)
			}
			c.pass(courier.LeaseFor)
			c.obey()
		}
		if !c.busy {
			c.person()
		}
	}
	for c.busy || len(c.late) > 0 {
		c.arrive(true)
		if c.busy {
			c.request()
			c.arrive(true)
			c.end(false)
		}
		c.arrive(true)
		c.obey()
	}
	for n := 1; n <= c.sent; n++ {
		if got := strings.Count(c.seen, text(n)); got != 1 {
			c.rt.Fatalf("message %d was shown %d times", n, got)
		}
	}
	c.unread(0, 0)
	if len(c.s.parcels) > 0 {
		c.rt.Fatalf("on its way still: %v", c.s.parcels)
	}
}

func agentOf(mode mailbox.Mode) mailbox.Agent {
	return mailbox.Agent{
		Process: process.Self(), Server: process.Self(), Mode: mode,
		Seats: []mailbox.AgentSeat{{Mesh: id(1), Name: "acme", Key: key(1), Member: key(2), Self: "alice/web", Online: true, Peers: 2}},
	}
}
