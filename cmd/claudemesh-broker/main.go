// Command claudemesh-broker routes sealed messages between the peers of
// meshes: one binary, and one file or a Postgres database.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main without the process: it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	err := command(stdout, stderr).Run(ctx, args)
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "claudemesh-broker: %v\n", err)
	if errors.Is(err, errUsage) {
		return 2
	}
	return 1
}

var errUsage = errors.New("see claudemesh-broker --help")

func usage(_ context.Context, _ *cli.Command, err error, _ bool) error {
	return fmt.Errorf("%w; %w", err, errUsage)
}

// noArguments refuses what a command would otherwise ignore.
func noArguments(c *cli.Command) error {
	if c.Args().Present() {
		return fmt.Errorf("unexpected argument %q; %w", c.Args().First(), errUsage)
	}
	return nil
}

func command(stdout, stderr io.Writer) *cli.Command {
	root := &cli.Command{
		Name:        "claudemesh-broker",
		Usage:       "route sealed messages between the peers of a mesh",
		Description: serveHelp,
		Version:     version.String(),
		Writer:      stdout, ErrWriter: stderr,
		Flags:  append(serveFlags(), limitFlags()...),
		Action: serve,
		Commands: []*cli.Command{
			backupCommand(), checkCommand(), auditCommand(), migrateCommand(), schemaCommand(), healthCommand(), tokenCommand(), benchCommand(),
			{Name: "version", Usage: "print the version", Action: func(_ context.Context, c *cli.Command) error {
				_, err := fmt.Fprintln(c.Root().Writer, version.String())
				return err
			}},
		},
		EnableShellCompletion: true, Suggest: true,
		ExitErrHandler: func(context.Context, *cli.Command, error) {},
	}
	walk(root, func(c *cli.Command) { c.OnUsageError = usage })
	return root
}

func walk(c *cli.Command, fn func(*cli.Command)) {
	fn(c)
	for _, sub := range c.Commands {
		walk(sub, fn)
	}
}
