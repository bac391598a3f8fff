package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/profile"
	"github.com/claudemesh/claudemesh/internal/render"
)

var errNoAgent = &failure{
	code: "no_agent", exit: exitNotFound, text: "no agent with claudemesh runs here",
	hint: "start claude in this directory; claudemesh install gives it the tools",
}

func (a *app) modeCommand() *cli.Command {
	c := command(spec{
		name: "mode", usage: "show or set what may enter a session unasked", args: "[MODE]", max: 1,
		about: "push: messages wake the session and enter whole. notice: a line says that there are some.\n" +
			"inbox: only the tools' results count them. off: nothing. Without --session it is the session\n" +
			"that runs the command, or the only one in this directory.",
		example: "claudemesh mode notice",
		flags:   []cli.Flag{&cli.StringFlag{Name: "session", Usage: "the `SESSION`, by its name in a mesh or its process id"}},
		run:     a.runMode,
	})
	c.ShellComplete = func(ctx context.Context, c *cli.Command) {
		cli.DefaultCompleteWithFlags(ctx, c)
		if typed := a.args[max(0, len(a.args)-2)]; strings.HasPrefix(typed, "-") {
			return
		}
		for _, m := range mailbox.Modes {
			a.printf("%s\n", m)
		}
	}
	return c
}

// agentMode is what mode prints.
type agentMode struct {
	PID     int          `json:"pid"`
	Session string       `json:"session"` // Claude Code's own id
	Cwd     string       `json:"cwd"`
	Names   []string     `json:"names"` // on its meshes
	Mode    mailbox.Mode `json:"mode"`
	Wake    mailbox.Path `json:"wake"`
}

func (a *app) runMode(ctx context.Context, c *cli.Command) (err error) {
	mode := mailbox.Mode(c.Args().First())
	if mode != "" && !slices.Contains(mailbox.Modes, mode) {
		return badMode(mode, "claudemesh mode ")
	}
	box, err := a.existingMailbox(ctx)
	if err != nil {
		return err
	}
	if box == nil {
		return errNothingJoined
	}
	defer func() { err = errors.Join(err, box.Close()) }()
	agent, err := a.chooseAgent(ctx, box, c.String("session"))
	if err != nil {
		return err
	}
	if mode != "" && mode != agent.Mode {
		agent, err = box.ChangeAgent(ctx, agent.PID, func(g *mailbox.Agent) error { g.Mode = mode; return nil })
		if errors.Is(err, mailbox.ErrNoAgent) {
			return errNoAgent
		}
		if err != nil {
			return err
		}
	}
	shown := agentMode{agent.PID, agent.Session, agent.Cwd, agentNames(&agent), agent.Mode, agent.Wake()}
	if a.json {
		a.printJSON(shown)
		return nil
	}
	a.printf("%s  %s\n", shown.Mode, render.Line(describeAgent(&agent)))
	return nil
}

// badMode refuses a mode; way is what stands before it in the command.
func badMode(mode mailbox.Mode, way string) *failure {
	names := modeNames()
	f := usagef("no mode is called %q", mode)
	if near := nearest(string(mode), names); near != "" {
		return f.hinted(way + near)
	}
	return f.hinted("one of: " + strings.Join(names, ", "))
}

func modeNames() (names []string) {
	for _, m := range mailbox.Modes {
		names = append(names, string(m))
	}
	return names
}

// existingMailbox opens the mailbox, and makes none: nil when there is none.
func (a *app) existingMailbox(ctx context.Context) (mailbox.Mailbox, error) {
	dir, err := a.dir()
	if err != nil {
		return nil, err
	}
	path := profile.At(dir).MailboxPath()
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return mailbox.Open(ctx, path)
}

// chooseAgent finds the agent that is meant: by name or number; else the one
// that runs this program; else the only one in this directory.
func (a *app) chooseAgent(ctx context.Context, box mailbox.Mailbox, named string) (mailbox.Agent, error) {
	all, err := box.Agents(ctx)
	if err != nil {
		return mailbox.Agent{}, err
	}
	all = slices.DeleteFunc(all, func(g mailbox.Agent) bool { return !g.Alive() })
	if named == "" {
		if own := ownAgent(all, a.getenv("CLAUDE_PID"), a.getenv("CLAUDE_CODE_SESSION_ID")); own != nil {
			return *own, nil
		}
	}
	found := all
	if named != "" {
		found = slices.DeleteFunc(slices.Clone(all), func(g mailbox.Agent) bool { return !isCalled(&g, named) })
	} else if cwd, err := os.Getwd(); err == nil {
		found = slices.DeleteFunc(slices.Clone(all), func(g mailbox.Agent) bool { return g.Cwd != cwd })
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(all) == 0:
		return mailbox.Agent{}, errNoAgent
	case len(found) == 0 && named != "":
		return mailbox.Agent{}, &failure{
			code: "no_agent", exit: exitNotFound, text: fmt.Sprintf("no agent here is called %q", named), hint: "one of: " + listAgents(all),
		}
	case len(found) == 0:
		found = all
	}
	return mailbox.Agent{}, &failure{
		code: "several_agents", exit: exitAmbiguous, text: "say which session with --session", hint: "one of: " + listAgents(found),
	}
}

// ownAgent is the agent that runs this program: by its process id, or its
// session's. Nil when neither is known.
func ownAgent(all []mailbox.Agent, pid, session string) *mailbox.Agent {
	i := slices.IndexFunc(all, func(g mailbox.Agent) bool { return pid != "" && strconv.Itoa(g.PID) == pid })
	if i < 0 {
		i = slices.IndexFunc(all, func(g mailbox.Agent) bool { return session != "" && g.Session == session })
	}
	if i < 0 {
		return nil
	}
	return &all[i]
}

// isCalled reports whether a name means the agent: its process id, its full
// name in a mesh, or the part of that behind the member's.
func isCalled(g *mailbox.Agent, name string) bool {
	return name == strconv.Itoa(g.PID) || slices.ContainsFunc(g.Seats, func(s mailbox.AgentSeat) bool {
		_, label, _ := strings.Cut(s.Self, "/")
		return name == s.Self || name == label
	})
}

func agentNames(g *mailbox.Agent) []string {
	names := []string{}
	for _, s := range g.Seats {
		if !slices.Contains(names, s.Self) {
			names = append(names, s.Self)
		}
	}
	return names
}

func describeAgent(g *mailbox.Agent) string {
	return strings.Join(append(agentNames(g), fmt.Sprintf("pid %d", g.PID), g.Cwd), ", ")
}

func listAgents(all []mailbox.Agent) string {
	var texts []string
	for i := range all {
		texts = append(texts, describeAgent(&all[i]))
	}
	return strings.Join(texts, "; ")
}
