// Package claudecode is everything that knows Claude Code: the plugin that this
// binary carries, how Claude Code is told of it, and how all of it is taken away.
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

// ServerName is the name of the MCP server at Claude Code, of the plugin, of the
// marketplace that holds it, and of the command.
const ServerName = "claudemesh"

const (
	pluginID = ServerName + "@" + ServerName
	// commandTimeout bounds one run of claude.
	commandTimeout = time.Minute
)

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

// with is a command with more arguments.
func with(command []string, more ...string) []string {
	return append(command[:len(command):len(command)], more...)
}

// run runs claude and returns its standard output; an error names the command
// and the last line of what it said.
func (c Client) run(ctx context.Context, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, c.Path, args...)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &errs, time.Second
	err := cmd.Run()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %s", commandTimeout)
	}
	if err == nil {
		return out.Bytes(), nil
	}
	said := lastLine(errs.String())
	if said == "" {
		said = lastLine(out.String())
	}
	return nil, fmt.Errorf("%s: %w: %s", Quote(append([]string{"claude"}, args...)), err, said)
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}
