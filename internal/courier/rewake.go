package courier

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/process"
	"github.com/claudemesh/claudemesh/internal/wire"
)

const (
	// coalesce is how long a message waits for others that come in the same turn.
	coalesce = 250 * time.Millisecond
	// endFor is how long an agent may go on behind the event that ends its turn:
	// what the person has entered meanwhile comes first, /clear among it.
	endFor = 5 * time.Second
	// endEvery is how often is looked whether it still does.
	endEvery = 50 * time.Millisecond
	// startFor is how long a waiter waits for the agent's MCP server to register it.
	startFor = 10 * time.Second
	// lookEvery is how often a waiter looks whether the agent still runs: its
	// death changes nothing in the mailbox.
	lookEvery = 2 * time.Second
)

// errOver ends a waiter that has nothing to wait for any more.
var errOver = errors.New("the waiter is not wanted")

// waiter is a process that the agent started and whose end wakes it.
type waiter struct {
	*Courier
	event Event
	agent process.Process
	self  process.Process
	mine  bool      // it has been the agent's waiter
	since time.Time // when it first saw what waits; zero: nothing waits
	busy  bool      // the agent works, as its events tell
	lull  int64     // since when it idled by its own word when that was last looked up; 0: it did not
}

// Wait waits until a message may start a turn of the idle agent, and writes it
// to out: then it returns true, and the process is to end in the way that wakes
// the agent. It returns false as soon as another way in is better or none is wanted.
func (c *Courier) Wait(ctx context.Context, e Event, out io.Writer) (woken bool, err error) {
	if e.Attended == "" || e.Attended == "0" || e.Subagent != "" { // a one-shot run would wait for its waiter
		return false, nil
	}
	w := &waiter{Courier: c, event: e, agent: process.Of(c.pid), self: process.Self()}
	hints := c.Box.Watch(ctx)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	late := time.NewTimer(startFor)
	defer late.Stop()
	ripe := time.NewTimer(coalesce)
	defer ripe.Stop()
	for {
		known, woken, err := w.look(ctx, out)
		if woken || err != nil {
			return woken, w.leave(ctx, err)
		}
		if known {
			late.Stop()
		}
		if !w.since.IsZero() {
			ripe.Reset(max(coalesce-w.now().Sub(w.since), endEvery))
		}
		select {
		case <-hints:
		case <-ripe.C:
		case <-tick.C:
			if err := w.rest(ctx); err != nil {
				return false, w.leave(ctx, err)
			}
		case <-late.C:
			return false, nil
		case <-ctx.Done():
			return false, w.leave(ctx, errOver)
		}
	}
}

// look sees how things stand: whether the agent has a record, and whether it
// was woken now.
func (w *waiter) look(ctx context.Context, out io.Writer) (known, woken bool, err error) {
	if !w.agent.Alive() {
		return false, false, errOver
	}
	a, err := w.Agent(ctx)
	if errors.Is(err, mailbox.ErrNoAgent) {
		return false, false, nil
	}
	if err == nil && a.Waiter != w.self {
		a, err = w.Box.ChangeAgent(ctx, w.pid, w.claim)
	}
	switch {
	case err != nil:
		return false, false, err
	case !w.wanted(&a):
		return true, false, errOver
	}
	if w.busy = a.Status == Working; w.busy { // its own events bring messages in
		w.since = time.Time{}
		return true, false, nil
	}
	b, err := w.Waiting(ctx, a, wire.PriorityNext)
	if err != nil || !w.ready(b) {
		return true, false, err
	}
	woken, err = w.wake(ctx, a, out)
	return true, woken, err
}

// rest notes that the agent idles when it has said so itself for a while: a turn
// that the person breaks off ends without an event.
func (w *waiter) rest(ctx context.Context) error {
	last := w.lull
	w.lull = 0
	if !w.busy {
		return nil
	}
	if w.lull = idleSince(w.event.Transcript, w.pid); w.lull == 0 || w.lull != last {
		return nil
	}
	_, err := w.Box.ChangeAgent(ctx, w.pid, func(a *mailbox.Agent) error { a.Status = Idle; return nil })
	if errors.Is(err, mailbox.ErrNoAgent) {
		return nil
	}
	return err
}

// claim makes this process the agent's only waiter. One that a new
// conversation began takes the place of an older one, whose end the agent may
// no longer heed.
func (w *waiter) claim(a *mailbox.Agent) error {
	if a.Process != w.agent || !w.wanted(a) {
		return errOver
	}
	if a.Waiter.Alive() && (w.event.Name != SessionStart || w.mine) {
		return errOver
	}
	a.Waiter, w.mine = w.self, true
	return nil
}

// wanted reports whether the agent is to be woken by a waiter at all.
func (w *waiter) wanted(a *mailbox.Agent) bool { return a.Mode == mailbox.Push && !a.Mod.Alive() }

// ready reports whether what waits may enter: at once when it is urgent, else
// when nothing more is likely to come with it; never into what the agent still does.
func (w *waiter) ready(b *Batch) bool {
	if len(b.Messages) == 0 {
		w.since = time.Time{}
		return false
	}
	if w.since.IsZero() {
		w.since = w.now()
	}
	urgent := slices.ContainsFunc(b.Messages, func(m mailbox.Incoming) bool { return m.Urgency == wire.PriorityNow })
	waited := w.now().Sub(w.since)
	if status, _ := saysOf(w.event.Transcript, w.pid); status == "busy" && waited < endFor {
		return false
	}
	return urgent || waited >= coalesce
}

// wake takes what waits and prints it, unless a turn has begun meanwhile.
func (w *waiter) wake(ctx context.Context, a mailbox.Agent, out io.Writer) (bool, error) {
	b, err := w.Take(ctx, a, wire.PriorityNext, w.now().Add(heldFor))
	if err != nil || len(b.Messages) == 0 {
		return false, err
	}
	busy := errors.New("a turn has begun")
	err = w.show(ctx, b, &w.event, func(a *mailbox.Agent) error {
		switch {
		case a.Waiter != w.self || !w.wanted(a):
			return errOver
		case a.Status == Working:
			return busy
		}
		a.Status, a.Waiter = Working, process.Process{}
		_, err := io.WriteString(out, b.Text())
		return err
	})
	if errors.Is(err, busy) {
		return false, nil
	}
	return err == nil, err
}

// leave takes this process out of the record when it ends without having woken
// the agent. Errors that only end it are none.
func (w *waiter) leave(ctx context.Context, err error) error {
	if err == nil { // wake has done it
		return nil
	}
	_, _ = w.Box.ChangeAgent(context.WithoutCancel(ctx), w.pid, func(a *mailbox.Agent) error {
		if a.Waiter != w.self {
			return errOver
		}
		a.Waiter = process.Process{}
		return nil
	})
	if errors.Is(err, errOver) || ctx.Err() != nil {
		return nil
	}
	return err
}
