package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/internal/courier"
	"github.com/claudemesh/claudemesh/internal/mailbox"
)

func (a *app) statuslineCommand() *cli.Command {
	return command(spec{
		name: "statusline", usage: "print a line on the mesh for Claude Code's status line",
		about: "Reads the JSON that Claude Code gives a status line's command, and prints mesh, peers online and\n" +
			"unread messages; nothing for a session that is on no mesh. Needs no broker.",
		example: `echo '{"session_id":"x"}' | claudemesh statusline`,
		run:     a.runStatusline,
	})
}

// maxStatusInput bounds what is read of Claude Code's JSON.
const maxStatusInput = 1 << 20

func (a *app) runStatusline(ctx context.Context, _ *cli.Command) (err error) {
	var input struct {
		Session string `json:"session_id"`
	}
	// Without it the process id may still tell whose line it is.
	_ = json.NewDecoder(io.LimitReader(a.in, maxStatusInput)).Decode(&input)
	box, err := a.existingMailbox(ctx)
	if err != nil || box == nil {
		return err
	}
	defer func() { err = errors.Join(err, box.Close()) }()
	all, err := box.Agents(ctx)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(g mailbox.Agent) bool { return !g.Alive() })
	g := ownAgent(all, a.getenv("CLAUDE_PID"), input.Session)
	if g == nil {
		g = ownAgent(all, strconv.Itoa(os.Getppid()), "")
	}
	if g == nil || len(g.Seats) == 0 {
		return nil
	}
	msgs, more, err := box.List(ctx, mailbox.Query{Recipients: g.Recipients(), Gate: mailbox.Shelf, Limit: 1})
	if err != nil {
		return err
	}
	a.printf("%s\n", courier.StatusLine(g, len(msgs)+more))
	return nil
}
