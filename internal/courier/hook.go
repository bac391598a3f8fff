package courier

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/render"
	"github.com/claudemesh/claudemesh/internal/wire"
)

const (
	// HookSize is how many bytes of messages a hook's context holds: Claude Code
	// replaces a context over 10,000 characters by a preview.
	HookSize = 9000
	// heldFor is how long what a hook has printed waits for evidence that the
	// model has read it.
	heldFor = 10 * time.Minute
)

// Hook serves one event of the agent: it notes what the event tells, and writes
// to out what the model is to read now, if anything. What it writes is held, and
// recorded until a later event tells what became of it. An agent without a
// record is none of ours.
func (c *Courier) Hook(ctx context.Context, e Event, out io.Writer) error {
	if e.Subagent != "" { // its context is not the session's, and proves nothing of it
		return nil
	}
	if e.Name == SessionStart {
		if err := Sweep(ctx, c.Box); err != nil {
			return err
		}
	}
	a, err := c.Agent(ctx)
	if errors.Is(err, mailbox.ErrNoAgent) || (err == nil && !a.Alive()) {
		return nil
	}
	if err != nil {
		return err
	}
	e.queued = e.Name == UserPromptSubmit && e.Turn != "" && e.Turn == a.Turn
	if a, err = c.observe(ctx, a, &e); err != nil {
		return err
	}
	if a.Mod.Alive() || e.queued { // the mod brings everything in; the running turn's other events do
		return nil
	}
	switch a.Mode {
	case mailbox.Push:
		return c.push(ctx, a, &e, out)
	case mailbox.Notice:
		return c.notice(ctx, a, &e, out)
	}
	return nil
}

// Sweep forgets agents that have ended; what their couriers held is free.
func Sweep(ctx context.Context, box mailbox.Mailbox) error {
	all, err := box.Agents(ctx)
	if err != nil {
		return err
	}
	var dead []int
	for i := range all {
		if !all[i].Alive() {
			dead = append(dead, all[i].PID)
		}
	}
	if len(dead) == 0 {
		return nil
	}
	return box.ForgetAgents(ctx, dead)
}

// observe brings the record up to date with an event, and settles what was
// shown before it. Most events change nothing and cost no write.
func (c *Courier) observe(ctx context.Context, a mailbox.Agent, e *Event) (mailbox.Agent, error) {
	settled, err := c.settle(ctx, &a, e)
	if err != nil {
		return a, err
	}
	now := c.now().UnixMilli()
	if !e.note(&a, now) && len(settled) == 0 {
		return a, nil
	}
	return c.Box.ChangeAgent(ctx, c.pid, func(a *mailbox.Agent) error {
		e.note(a, now)
		a.Shown = slices.DeleteFunc(a.Shown, func(s mailbox.Shown) bool {
			v := settled[s.Holder]
			return v == read || v == lost
		})
		for i := range a.Shown {
			if s := &a.Shown[i]; settled[s.Holder] == carried {
				s.Turn, s.Session = "", ""
			}
		}
		for holder, v := range settled {
			if v == read {
				a.Prove(pathOf(holder), now)
			}
		}
		return nil
	})
}

// settle marks read what the event proves to be read, and puts back what is
// lost. It returns what it proves, by holder.
func (c *Courier) settle(ctx context.Context, a *mailbox.Agent, e *Event) (settled map[string]verdict, err error) {
	settled = map[string]verdict{}
	for i := range a.Shown {
		s := &a.Shown[i]
		if path := pathOf(s.Holder); path != mailbox.ByHooks && path != mailbox.ByRewake {
			continue
		}
		v := e.proves(s, c.now().UnixMilli())
		switch v {
		case unknown:
			continue
		case read:
			err = c.markRead(ctx, a, s)
		case lost:
			err = c.Box.Release(ctx, s.Holder, s.Numbers)
		}
		if err != nil {
			return nil, err
		}
		settled[s.Holder] = v
	}
	return settled, nil
}

func pathOf(holder string) mailbox.Path {
	_, rest, _ := strings.Cut(holder, "/")
	path, _, _ := strings.Cut(rest, "/")
	return mailbox.Path(path)
}

func (c *Courier) markRead(ctx context.Context, a *mailbox.Agent, s *mailbox.Shown) error {
	msgs := make([]mailbox.Incoming, len(s.Numbers))
	for i, n := range s.Numbers {
		msgs[i] = mailbox.Incoming{Number: n, Mesh: s.Mesh}
	}
	return markShown(ctx, c.Box, a, s.Holder, msgs, c.now())
}

// push brings messages in, each as its priority wants.
func (c *Courier) push(ctx context.Context, a mailbox.Agent, e *Event, out io.Writer) error {
	switch e.Name {
	case SessionStart:
		return c.digest(ctx, a, e, out)
	case UserPromptSubmit:
		return c.bodies(ctx, a, wire.PriorityLow, e, "", out)
	case PostToolBatch:
		return c.between(ctx, a, e, out)
	case Stop: // the turn goes on once; an idle agent is its waiter's
		if !e.Again && !a.Waiter.Alive() {
			return c.bodies(ctx, a, wire.PriorityNext, e, "", out)
		}
	}
	return nil
}

// notice only says that there are messages.
func (c *Courier) notice(ctx context.Context, a mailbox.Agent, e *Event, out io.Writer) error {
	switch e.Name {
	case SessionStart:
		return c.digest(ctx, a, e, out)
	case UserPromptSubmit:
		b, err := c.Ringing(ctx, a, wire.PriorityLow)
		if err != nil {
			return err
		}
		return printContext(out, e, b.Doorbell())
	case PostToolBatch:
		return c.between(ctx, a, e, out)
	}
	return nil
}

// digest says who the session is, and who has written.
func (c *Courier) digest(ctx context.Context, a mailbox.Agent, e *Event, out io.Writer) error {
	b, err := c.Ringing(ctx, a, wire.PriorityLow)
	if err != nil || len(a.Seats) == 0 {
		return err
	}
	var names []string
	for _, s := range a.Seats {
		names = append(names, render.Inline(s.Self, 160)+" in "+render.Inline(s.Name, 80))
	}
	who := "[claudemesh: this session is " + strings.Join(names, ", ") + "]"
	return printContext(out, e, who+"\n"+b.Doorbell())
}

// between serves a running turn between two requests: what is urgent enters,
// what can wait rings once.
func (c *Courier) between(ctx context.Context, a mailbox.Agent, e *Event, out io.Writer) error {
	b, err := c.Ringing(ctx, a, wire.PriorityNext)
	if err != nil || len(b.Messages) == 0 {
		return err
	}
	urgent := false
	if a.Mode == mailbox.Push {
		entering, err := c.Waiting(ctx, a, wire.PriorityNow)
		if err != nil {
			return err
		}
		urgent = len(entering.Messages) > 0
		b.Messages = slices.DeleteFunc(b.Messages, func(m mailbox.Incoming) bool {
			return m.Gate == mailbox.OpenGate && m.Urgency == wire.PriorityNow
		})
	}
	bell := ""
	if slices.ContainsFunc(b.Messages, func(m mailbox.Incoming) bool { return m.Offered == 0 }) {
		bell = b.Doorbell()
	}
	if urgent {
		err = c.bodies(ctx, a, wire.PriorityNow, e, bell, out)
	} else {
		err = printContext(out, e, bell)
	}
	if err != nil || bell == "" {
		return err
	}
	return c.rung(ctx, &a, b)
}

// rung remembers for which messages the bell was rung.
func (c *Courier) rung(ctx context.Context, a *mailbox.Agent, b *Batch) error {
	for i := range b.Messages {
		m := &b.Messages[i]
		s := a.Seat(m.Mesh)
		if m.Offered > 0 || s == nil {
			continue
		}
		if _, err := c.Box.MarkOffered(ctx, m.Number, c.now().UnixMilli()+s.Offset); err != nil {
			return err
		}
	}
	return nil
}

// bodies takes messages and prints them, with a line more.
func (c *Courier) bodies(ctx context.Context, a mailbox.Agent, least wire.Priority, e *Event, more string, out io.Writer) error {
	b, err := c.Take(ctx, a, least, c.now().Add(heldFor))
	if err != nil {
		return err
	}
	if len(b.Messages) == 0 {
		return printContext(out, e, more)
	}
	text := b.Text()
	if more != "" {
		text += "\n" + more
	}
	return c.show(ctx, b, e, func(a *mailbox.Agent) error {
		a.Status = Working // also at a Stop, which now is none
		return printContext(out, e, text)
	})
}

// show records a batch as shown and prints it, in one transaction: what is not
// printed is not recorded and goes back, so that no later event takes it for read.
func (c *Courier) show(ctx context.Context, b *Batch, e *Event, print func(*mailbox.Agent) error) error {
	_, err := c.Box.ChangeAgent(ctx, c.pid, func(a *mailbox.Agent) error {
		shown := mailbox.Shown{Session: cmp.Or(a.Session, e.Session), Turn: e.Turn, Opens: e.Name == UserPromptSubmit}
		if c.Path == mailbox.ByRewake { // what it waited after is over
			shown.Turn, shown.Opens = "", true
		}
		a.Shown = append(a.Shown, c.shown(b, shown)...)
		return print(a)
	})
	if err == nil {
		return nil
	}
	return errors.Join(err, c.Back(context.WithoutCancel(ctx), b))
}

// shown is a batch as the record keeps it, by mesh.
func (c *Courier) shown(b *Batch, how mailbox.Shown) (all []mailbox.Shown) {
	for i := range b.Messages {
		m := &b.Messages[i]
		at := slices.IndexFunc(all, func(s mailbox.Shown) bool { return s.Mesh == m.Mesh })
		if at < 0 {
			at = len(all)
			how.Holder, how.Mesh, how.At = c.holder, m.Mesh, c.now().UnixMilli()
			all = append(all, how)
		}
		all[at].Numbers = append(all[at].Numbers, m.Number)
	}
	return all
}

// printContext writes text as the agent takes it from a hook; nothing when there is none.
func printContext(out io.Writer, e *Event, text string) error {
	if text = strings.TrimSpace(text); text == "" {
		return nil
	}
	type specific struct {
		Event   string `json:"hookEventName"`
		Context string `json:"additionalContext"`
	}
	var line strings.Builder
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(map[string]specific{"hookSpecificOutput": {e.Name, text}}); err != nil {
		return err
	}
	if _, err := io.WriteString(out, line.String()); err != nil {
		return fmt.Errorf("answer the hook: %w", err)
	}
	return nil
}
