package main

import (
	"context"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/internal/version"
)

func (a *app) versionCommand() *cli.Command {
	return command(spec{
		name: "version", usage: "print the version", example: "claudemesh version",
		run: func(context.Context, *cli.Command) error {
			if a.json {
				a.printJSON(map[string]string{"version": version.String()})
				return nil
			}
			a.printf("%s\n", version.String())
			return nil
		},
	})
}

// configureCompletion gives the library's completion command our manners.
func configureCompletion(c *cli.Command) {
	c.Hidden = false
	c.Usage = "print the completion script of a shell"
	c.ArgsUsage = "bash|zsh|fish|pwsh"
	c.Description = "EXAMPLE:\n  source <(claudemesh completion bash)          # in .bashrc or .zshrc\n" +
		"  claudemesh completion fish > ~/.config/fish/completions/claudemesh.fish"
	c.HideHelpCommand, c.OnUsageError, c.Action = true, onUsageError, notACommand
	for _, shell := range c.Commands {
		print := shell.Action
		s := spec{name: shell.Name}
		shell.Description = "EXAMPLE:\n  claudemesh completion " + shell.Name
		shell.HideHelpCommand, shell.OnUsageError = true, onUsageError
		shell.Action = func(ctx context.Context, c *cli.Command) error {
			if err := checkCount(c, s); err != nil {
				return err
			}
			return print(ctx, c)
		}
	}
}
