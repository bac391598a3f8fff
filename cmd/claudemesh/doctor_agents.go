package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/render"
)

// checkAgents looks at each agent of this machine.
func checkAgents(ctx context.Context, box mailbox.Mailbox) (found []finding) {
	agents, err := box.Agents(ctx)
	if err != nil {
		return []finding{wrong("sessions", err)}
	}
	for i := range agents {
		if agents[i].Alive() {
			found = append(found, checkAgent(&agents[i], time.Now()))
		}
	}
	if len(found) == 0 {
		found = append(found, ok("sessions", "none runs now"))
	}
	return found
}

func checkAgent(a *mailbox.Agent, now time.Time) finding {
	f := ok("session", "%s, mode %s: %s", describeAgent(a), a.Mode, wakeText(a, now))
	switch {
	case !a.Server.Alive():
		f.Verdict, f.Mend = broken, "in that session: /mcp, then claudemesh, Reconnect"
		f.Text += "; its MCP server is gone, so that nothing reaches it from the mesh"
	case len(a.Seats) == 0:
		f.Verdict, f.Mend = warning, joinHint
	case a.Mode == mailbox.Push && a.Wake() != mailbox.ByMod && a.Wake() != mailbox.ByRewake:
		f.Verdict, f.Mend = warning, "claudemesh install adds the plugin; sessions that run already must be restarted"
	}
	return f
}

func wakeText(a *mailbox.Agent, now time.Time) string {
	path := a.Wake()
	text := map[mailbox.Path]string{
		mailbox.ByMod:    "messages wake it through the plugin",
		mailbox.ByRewake: "messages wake it through a waiting hook",
		mailbox.ByHooks:  "messages are seen at its next turn, through hooks",
		mailbox.ByNone:   "messages are seen when it looks, by check_messages",
	}[path]
	if at := a.Proven[path]; at > 0 {
		text += ", proven " + render.Span(now.Sub(time.UnixMilli(at))) + " ago"
	}
	return text
}

// proveWait bounds how long a canary may take: a turn may be under way.
const proveWait = 2 * time.Minute

// prove sends a message to a session of this machine and follows it.
func (a *app) prove(ctx context.Context, name string) []finding {
	p, meshes, err := a.memberships()
	if err != nil {
		return []finding{wrong("prove", err)}
	}
	s, err := a.connect(ctx, p, meshes, client.Person)
	if err != nil {
		return []finding{wrong("prove", err)}
	}
	defer s.end(ctx)
	agent, err := a.chooseAgent(ctx, s.box, name)
	if err != nil {
		return []finding{wrong("prove", err)}
	}
	set := slices.DeleteFunc(slices.Clone(s.clients), func(c *client.Client) bool { return agent.Seat(c.MeshID()) == nil })
	if len(set) == 0 {
		return []finding{{"prove", broken, "this session is in no mesh", joinHint}}
	}
	set, seat := set[:1], agent.Seat(set[0].MeshID())
	began := time.Now()
	sent, err := set.Send(ctx, client.Message{
		To: []string{seat.Key.String()}, Expires: proveWait,
		Text: "claudemesh doctor asks whether messages reach this session. There is nothing to do and nothing to answer.",
	})
	if err != nil {
		return []finding{wrong("prove", err)}
	}
	return followCanary(ctx, s.box, agent.PID, sent.ID, seat.Key, began)
}

// followCanary waits until a message has come and was shown.
func followCanary(ctx context.Context, box mailbox.Mailbox, pid int, id client.ID, to client.Key, began time.Time) []finding {
	ctx, cancel := context.WithTimeout(ctx, proveWait)
	defer cancel()
	changes := box.Watch(ctx)
	var arrived time.Duration
	for {
		in, err := box.Message(ctx, id, []client.Key{to})
		switch {
		case err == nil && arrived == 0:
			arrived = time.Since(began)
			fallthrough
		case err == nil && in.ReadAt > 0:
			if in.ReadAt > 0 {
				took := time.Since(began)
				return []finding{ok("prove", "sent, received after %d ms, shown after %d ms, by %s",
					arrived.Milliseconds(), took.Milliseconds(), provenPath(ctx, box, changes, pid, began))}
			}
		case err != nil && !errors.Is(err, mailbox.ErrNotFound) && ctx.Err() == nil:
			return []finding{wrong("prove", err)}
		}
		select {
		case <-changes:
		case <-ctx.Done():
			return []finding{notShown(box, pid, arrived)}
		}
	}
}

// noteWait bounds how long a courier may take to note its path after a message was read.
const noteWait = 2 * time.Second

// provenPath says by which path a message has just entered. A courier notes that
// once it has marked the message read; where none does, a tool has shown it.
func provenPath(ctx context.Context, box mailbox.Mailbox, changes <-chan struct{}, pid int, since time.Time) string {
	ctx, cancel := context.WithTimeout(ctx, noteWait)
	defer cancel()
	for {
		a, err := box.Agent(ctx, pid)
		if err != nil {
			return "check_messages"
		}
		for path, at := range a.Proven {
			if at >= since.UnixMilli() {
				return string(path)
			}
		}
		select {
		case <-changes:
		case <-ctx.Done():
			return "check_messages"
		}
	}
}

func notShown(box mailbox.Mailbox, pid int, arrived time.Duration) finding {
	if arrived == 0 {
		return finding{"prove", broken, fmt.Sprintf("sent, and not received within %s", render.Span(proveWait)), "claudemesh status; then /mcp in that session"}
	}
	f := finding{"prove", broken, fmt.Sprintf("received after %d ms, and not shown within %s", arrived.Milliseconds(), render.Span(proveWait)), "let the session finish its turn, then try again"}
	if a, err := box.Agent(context.Background(), pid); err == nil {
		if path := a.Wake(); path == mailbox.ByHooks || path == mailbox.ByNone {
			f.Verdict, f.Mend = warning, "nothing: "+wakeText(&a, time.Now())
		}
	}
	return f
}
