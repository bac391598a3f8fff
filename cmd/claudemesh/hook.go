package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/internal/courier"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/profile"
)

const (
	// rewake is the hook that waits, beside those that are events of Claude Code.
	rewake = "rewake"
	// exitWake is how a waiting hook wakes Claude Code.
	exitWake = 2
	// hookWithin bounds a hook that Claude Code waits for.
	hookWithin = 2 * time.Second
)

func (a *app) hookCommand() *cli.Command {
	return command(spec{
		name: "hook", usage: "serve an event of Claude Code, which runs it", args: "EVENT", min: 1, max: 1,
		about: "EVENT is " + strings.Join(courier.Events, ", ") + "; or rewake, which waits\n" +
			"for a message and ends with exit code 2 to wake an idle session. It reads the event as JSON and\n" +
			"prints what the model is to know, if anything. It never fails: errors go to hooks.log in the\n" +
			"config directory.",
		example: `echo '{"hook_event_name":"Stop","session_id":"x"}' | claudemesh hook Stop`,
		run:     func(context.Context, *cli.Command) error { return nil }, // see hookEvent
	})
}

// hookEvent finds `hook EVENT`, behind --config-dir at most, before the command
// line is parsed: an exit code for bad usage would mean something else to Claude Code.
func (a *app) hookEvent(args []string) (event string, ok bool) {
	if len(args) > 0 {
		if dir, found := strings.CutPrefix(args[0], "--config-dir="); found {
			a.configDir, args = dir, args[1:]
		} else if args[0] == "--config-dir" && len(args) > 1 {
			a.configDir, args = args[1], args[2:]
		}
	}
	if len(args) < 2 || args[0] != "hook" || strings.HasPrefix(args[1], "-") {
		return "", false
	}
	return args[1], true
}

// runHook serves an event and returns the exit code: 0, whatever happens, or
// exitWake. An event is given up when it takes too long; the process then ends
// under what it waits for.
func (a *app) runHook(ctx context.Context, event string) int {
	signal.Ignore(syscall.SIGPIPE) // to write to nobody is to be an error, after which messages go back
	quiet := *a
	quiet.errw = io.Discard // a word there would be part of what wakes the model
	dir, err := quiet.dir()
	if err != nil {
		return exitOK
	}
	p := profile.At(dir)
	if !served(p, event) {
		return exitOK
	}
	type result struct {
		woken bool
		err   error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		defer func() {
			if v := recover(); v != nil {
				r.err = fmt.Errorf("panic: %v", v)
			}
			done <- r
		}()
		r.woken, r.err = a.serveHook(ctx, p, event)
	}()
	var late <-chan time.Time
	if event != rewake {
		late = time.After(hookWithin)
	}
	var r result
	select {
	case r = <-done:
	case <-late:
		r.err = fmt.Errorf("given up after %s", hookWithin)
	}
	if r.err != nil {
		complain(p.HookLog(), event, r.err)
	}
	if r.woken {
		return exitWake
	}
	return exitOK
}

// served reports whether there is a mesh here. The mailbox of the first session
// after a join is only now being made by its MCP server: a waiter waits for it.
func served(p *profile.Profile, event string) bool {
	if _, err := os.Stat(p.MailboxPath()); !errors.Is(err, fs.ErrNotExist) {
		return true
	}
	meshes, err := p.Entries()
	return event == rewake && (err != nil || len(meshes) > 0)
}

// serveHook reads the event and lets the courier of the agent serve it.
func (a *app) serveHook(ctx context.Context, p *profile.Profile, name string) (woken bool, err error) {
	if name != rewake && !slices.Contains(courier.Events, name) {
		return false, fmt.Errorf("no event is called %.40q", name)
	}
	event, err := courier.ReadEvent(a.in)
	if err != nil {
		return false, err
	}
	event.Attended = a.getenv("CLAUDE_CODE_SESSION_ATTENDED")
	if name != rewake {
		event.Name = name
	}
	box, err := mailbox.Open(ctx, p.MailboxPath())
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, box.Close()) }()
	if name == rewake {
		return courier.New(box, a.agentPID(), mailbox.ByRewake).Wait(ctx, event, a.errw)
	}
	c := courier.New(box, a.agentPID(), mailbox.ByHooks)
	c.Size = courier.HookSize
	return false, c.Hook(ctx, event, a.out)
}

// agentPID is the process id of the Claude Code that runs this program, as it
// says itself; an older one is its parent.
func (a *app) agentPID() int {
	if pid, err := strconv.Atoi(a.getenv("CLAUDE_PID")); err == nil && pid > 0 {
		return pid
	}
	return os.Getppid()
}

// maxHookLog bounds the log of hooks, in bytes; a full one is begun anew.
const maxHookLog = 256 << 10

// complain writes a line on a hook that failed. It holds no peer's text: errors of
// ours name files and states.
func complain(path, event string, fault error) {
	flags := os.O_WRONLY | os.O_CREATE | os.O_APPEND
	if info, err := os.Stat(path); err == nil && info.Size() > maxHookLog {
		flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	fmt.Fprintf(f, "%s hook %s: %s\n", time.Now().UTC().Format(time.RFC3339), clip(event, 40), clip(fault.Error(), 400))
}
