package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/claudecode"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/mcpserver"
	"github.com/claudemesh/claudemesh/internal/process"
	"github.com/claudemesh/claudemesh/internal/version"
)

func (a *app) mcpCommand() *cli.Command {
	return command(spec{
		name: "mcp", usage: "serve the MCP tools on standard input and output, for one agent",
		about: "Claude Code starts it: see claudemesh install. The session's name is the directory's, or LABEL.\n" +
			"With --mesh it enters that mesh alone. What no flag says is taken from the environment that\n" +
			"claudemesh launch sets.\n" +
			"It ends with its standard input, or with the process that started it.",
		example: "claude mcp add claudemesh --scope user -- claudemesh mcp",
		flags:   sessionFlags(),
		run:     a.runMCP,
	})
}

func (a *app) runMCP(ctx context.Context, c *cli.Command) (err error) {
	who, err := readSession(c, a.mesh, a.getenv)
	if err != nil {
		return err
	}
	p, err := a.profile()
	if err != nil {
		return err
	}
	cwd, err := os.Getwd()
	if err != nil {
		return err
	}
	box, err := client.OpenMailbox(ctx, p.MailboxPath())
	if err != nil {
		return err
	}
	defer box.Close()
	release, err := p.Announce()
	if err != nil {
		return err
	}
	defer release() // the process ends
	log := a.logger(slog.LevelWarn)
	if a.getenv("CLAUDEMESH_PLUGIN") == "1" { // the plugin that started it may be another version's
		if err := claudecode.Refresh(p.Dir(), version.String()); err != nil {
			log.Warn("the plugin could not be refreshed", "err", err)
		}
	}
	f := &fleet{profile: p, box: box, log: log, cwd: cwd, who: who}
	if err := f.update(ctx); err != nil {
		f.close()
		return err
	}
	defer f.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() { defer close(done); f.follow(ctx) }()
	defer func() { cancel(); <-done }()
	agent := a.hostAgent(cwd)
	go orphaned(ctx, agent.PID, cancel)
	err = mcpserver.Serve(ctx, mcpserver.Options{
		Fleet: f, Mailbox: box, Agent: agent, NoChannel: a.noChannel(), In: a.in, Out: a.out, Logger: log, Version: version.String(),
	})
	if err == io.EOF || ctx.Err() != nil { // its end, not a failure
		return nil
	}
	return err
}

// hostAgent is the program that has started this one, by what its environment says.
func (a *app) hostAgent(cwd string) mailbox.Agent {
	agent := mailbox.Agent{
		Process: process.Of(os.Getppid()), Session: a.getenv("CLAUDE_CODE_SESSION_ID"), Cwd: cwd, Mode: mailbox.Push,
		Attended: !slices.Contains([]string{"", "0"}, a.getenv("CLAUDE_CODE_SESSION_ATTENDED")),
	}
	switch mode := mailbox.Mode(a.getenv("CLAUDEMESH_MODE")); {
	case slices.Contains(mailbox.Modes, mode):
		agent.Mode = mode
	case mode != "":
		a.note("CLAUDEMESH_MODE is push, notice, inbox or off, not %q; push is taken", mode)
	}
	return agent
}

// noChannel reports whether the plugin brings messages in, and the channel was not asked for.
func (a *app) noChannel() bool {
	return a.getenv("CLAUDEMESH_PLUGIN") == "1" && a.getenv("CLAUDEMESH_CHANNEL") != "1"
}

// orphaned calls end when the process that started this one is gone.
func orphaned(ctx context.Context, parent int, end func()) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if os.Getppid() != parent {
				end()
				return
			}
		case <-ctx.Done():
			return
		}
	}
}
