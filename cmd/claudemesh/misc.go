package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/internal/claudecode"
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

func (a *app) installCommand() *cli.Command {
	return command(spec{
		name: "install", usage: "add the MCP server to Claude Code, for all its projects",
		about: "Prints the command that adds it, and runs it when the claude command is on PATH and does not\n" +
			"have the server yet.",
		example: "claudemesh install",
		flags:   []cli.Flag{&cli.BoolFlag{Name: "print", Usage: "only print the command"}},
		run:     a.runInstall,
	})
}

func (a *app) runInstall(ctx context.Context, c *cli.Command) error {
	server, err := a.server()
	if err != nil {
		return err
	}
	add := claudecode.AddCommand(server)
	result := struct {
		Command   string `json:"command"`
		Installed bool   `json:"installed"`
		Note      string `json:"note"`
	}{Command: claudecode.Quote(add)}
	if !a.json {
		a.printf("%s\n", result.Command)
	}
	if !c.Bool("print") {
		note, err := install(ctx, add, server)
		if err != nil {
			return err
		}
		result.Installed, result.Note = note != claudecode.NoClaude, note
	}
	if a.json {
		a.printJSON(result)
		return nil
	}
	if result.Note != "" {
		a.note("%s", result.Note)
	}
	return nil
}

// server is the command of the MCP server. Claude Code does not pass its
// environment on, so that a directory of one's own stands in the arguments.
func (a *app) server() ([]string, error) {
	dir, err := a.dir()
	if err != nil {
		return nil, err
	}
	home, err := os.UserHomeDir()
	if err == nil && dir == filepath.Join(home, ".claudemesh") {
		return []string{binary(), "mcp"}, nil
	}
	return []string{binary(), "--config-dir", dir, "mcp"}, nil
}

func install(ctx context.Context, add, server []string) (note string, err error) {
	claude, err := exec.LookPath("claude")
	if err != nil {
		return claudecode.NoClaude, nil
	}
	note, err = claudecode.Install(ctx, claude, add, server)
	if err != nil {
		return "", &failure{
			code: "install_failed", exit: exitFailed, text: err.Error(),
			hint: "claude mcp remove claudemesh --scope user, then claudemesh install",
		}
	}
	return note, nil
}

// binary is how Claude Code finds this program: by its name where PATH leads
// to it, else by its path.
func binary() string {
	self, err := os.Executable()
	if err != nil {
		return claudecode.ServerName
	}
	found, err := exec.LookPath(claudecode.ServerName)
	if err == nil && sameFile(found, self) {
		return claudecode.ServerName
	}
	return self
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}
