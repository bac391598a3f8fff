package main

import (
	"context"
	"log/slog"
	"os"
	"strconv"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/process"
	"github.com/claudemesh/claudemesh/internal/stream"
)

func (a *app) streamCommand() *cli.Command {
	c := command(spec{
		name: "session-stream", usage: "decide what enters an agent, for the plugin's mod",
		about:   "The mod in Claude Code starts it and does what it prints. The agent is the process CLAUDE_PID.",
		example: "claudemesh session-stream",
		run:     a.runStream,
	})
	c.Hidden = true
	return c
}

func (a *app) runStream(ctx context.Context, _ *cli.Command) error {
	pid, err := strconv.Atoi(a.getenv("CLAUDE_PID"))
	if err != nil || pid <= 0 {
		return usagef("session-stream is started by the plugin: CLAUDE_PID names no process")
	}
	p, err := a.profile()
	if err != nil {
		return err
	}
	box, err := client.OpenMailbox(ctx, p.MailboxPath())
	if err != nil {
		return err
	}
	defer box.Close()
	agent, parent := process.Of(pid), os.Getppid()
	log := a.logger(slog.LevelWarn)
	return stream.Serve(ctx, a.out,
		func() bool { return agent.Alive() && os.Getppid() == parent },
		func(say func(stream.Instruction)) *stream.Stream { return stream.NewStream(box, pid, log, say) })
}
