// Package claudecode is everything that knows Claude Code: how it is told of
// the MCP server.
package claudecode

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// ServerName is the name of the MCP server at Claude Code, and of its command.
const ServerName = "claudemesh"

// NoClaude is what there is to say when the claude command is absent.
const NoClaude = "the claude command is not on PATH; run the command above where it is"

// commandTimeout bounds one run of claude, which may start the server to check it.
const commandTimeout = time.Minute

// AddCommand is the command that adds an MCP server for all projects of a user.
func AddCommand(server []string) []string {
	return append([]string{"claude", "mcp", "add", ServerName, "--scope", "user", "--"}, server...)
}

// Quote writes a command as a line for a shell.
func Quote(args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = a
		if a == "" || strings.Trim(a, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=@,+%") != "" {
			quoted[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

// Install adds the server with the claude program at path, unless it is there
// already, and returns a sentence on what was done.
func Install(ctx context.Context, path string, add, server []string) (string, error) {
	have, err := run(ctx, path, "mcp", "get", ServerName)
	if err == nil {
		if registered(have) == strings.Join(server, " ") {
			return "Claude Code has it already", nil
		}
		return "", fmt.Errorf("there is another server of the name %s; it runs %q", ServerName, registered(have))
	}
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if out, err := run(ctx, path, add[1:]...); err != nil {
		return "", fmt.Errorf("%s: %w: %s", Quote(add), err, lastLine(out))
	}
	return "Claude Code has it now; sessions that run already must be restarted", nil
}

// registered reads from what claude mcp get prints which command a server runs.
func registered(out string) string {
	var parts []string
	for line := range strings.Lines(out) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), ":")
		if ok && (name == "Command" || name == "Args") {
			parts = append(parts, strings.TrimSpace(value))
		}
	}
	return strings.TrimSpace(strings.Join(parts, " "))
}

func run(ctx context.Context, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &out, time.Second
	err := cmd.Run()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %s", commandTimeout)
	}
	return out.String(), err
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}
