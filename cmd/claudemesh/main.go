// Command claudemesh is a member's end of a mesh: the commands of a person and
// the MCP server of an agent.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt ends the program at once
	code := run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr, os.Getenv)
	stop()
	os.Exit(code)
}

// run is the program with everything it depends on; it returns the exit code.
func run(ctx context.Context, args []string, in io.Reader, out, errw io.Writer, getenv func(string) string) int {
	a := &app{in: in, out: out, errw: errw, getenv: getenv, args: args}
	if event, ok := a.hookEvent(args[1:]); ok {
		return a.runHook(ctx, event)
	}
	return a.finish(ctx, a.root().Run(ctx, args))
}
