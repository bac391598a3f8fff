package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/profile"
	"github.com/claudemesh/claudemesh/internal/render"
	"github.com/claudemesh/claudemesh/internal/version"
)

// app is one run of the program.
type app struct {
	in     io.Reader
	out    io.Writer // results, and nothing else
	errw   io.Writer // everything else
	getenv func(string) string
	args   []string

	json      bool
	mesh      string
	configDir string
}

// spec is one command: the tree is made of these.
type spec struct {
	name, usage string
	args        string // as in the synopsis
	min, max    int    // how many arguments
	about       string // prose of --help
	example     string
	flags       []cli.Flag
	run         func(context.Context, *cli.Command) error
	sub         []*cli.Command
}

// root builds the tree of commands.
func (a *app) root() *cli.Command {
	root := &cli.Command{
		Name: "claudemesh", Usage: "let Claude Code sessions find each other and talk, end to end encrypted",
		Version: version.String(), EnableShellCompletion: true,
		Reader: a.in, Writer: a.out, ErrWriter: a.errw,
		ExitErrHandler:                  func(context.Context, *cli.Command, error) {}, // run decides
		ConfigureShellCompletionCommand: configureCompletion,
		Description: "EXAMPLE:\n  claudemesh up                        all of it on this machine alone\n" +
			"  claudemesh new acme --as alice       found a mesh at a broker\n" +
			"  claudemesh invite                    print a link for a friend\n" +
			"  claudemesh join LINK --as bob        join with it\n" +
			"  claudemesh install                   let Claude Code sessions use it\n" +
			"  claudemesh send bob 'tests are green'",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "print JSON, errors too, on standard output", Destination: &a.json},
			&cli.StringFlag{Name: "mesh", Usage: "the `MESH` to act on, when several are joined", Destination: &a.mesh},
			&cli.StringFlag{
				Name: "config-dir", Usage: "the `DIR` of keys and mailbox, default $" + profile.EnvDir + " or ~/.claudemesh",
				Destination: &a.configDir,
			},
		},
		Action: notACommand,
		Commands: []*cli.Command{
			a.upCommand(), a.downCommand(), a.newCommand(), a.inviteCommand(), a.invitesCommand(), a.joinCommand(), a.listCommand(), a.leaveCommand(),
			a.backupCommand(), a.restoreCommand(), a.whoamiCommand(), a.statusCommand(), a.peersCommand(), a.membersCommand(),
			a.verifyCommand(), a.blockCommand(), a.unblockCommand(), a.grantCommand(), a.pauseCommand(), a.resumeCommand(),
			a.sendCommand(), a.inboxCommand(), a.heldCommand(), a.auditCommand(),
			a.installCommand(), a.uninstallCommand(), a.launchCommand(), a.doctorCommand(), a.modeCommand(), a.mcpCommand(), a.hookCommand(),
			a.streamCommand(), a.statuslineCommand(), a.versionCommand(),
		},
	}
	root.OnUsageError = onUsageError
	return root
}

// command makes a command of its spec, with the manners that all share.
func command(s spec) *cli.Command {
	about := s.about
	if about != "" {
		about += "\n\n"
	}
	c := &cli.Command{
		Name: s.name, Usage: s.usage, ArgsUsage: s.args, Flags: s.flags, Commands: s.sub,
		Description:  about + "EXAMPLE:\n  " + strings.ReplaceAll(s.example, "\n", "\n  "),
		OnUsageError: onUsageError, HideHelpCommand: true, // a member may be called help
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := checkCount(c, s); err != nil {
				return err
			}
			return s.run(ctx, c)
		},
	}
	return c
}

// checkCount refuses too few and too many arguments.
func checkCount(c *cli.Command, s spec) error {
	args := c.Args().Slice()
	switch {
	case len(args) < s.min:
		missing := strings.Fields(s.args)[len(args)]
		return usagef("%s: %s is missing", c.FullName(), missing).hinted(c.FullName() + " " + s.args)
	case len(args) > s.max && len(s.sub) > 0:
		return notACommand(context.Background(), c)
	case len(args) > s.max:
		f := usagef("%s takes no argument %q", c.FullName(), args[s.max])
		if s.name == "send" {
			return f.hinted("put the message in quotes")
		}
		return f.hinted(c.FullName() + " --help")
	}
	return nil
}

// notACommand is the action of what has subcommands: it is reached by no
// argument or by one that is none of them.
func notACommand(_ context.Context, c *cli.Command) error {
	if !c.Args().Present() {
		if c.Root() == c {
			return cli.ShowRootCommandHelp(c)
		}
		return usagef("%s needs one of: %s", c.FullName(), strings.Join(commandNames(c), ", ")).hinted(c.FullName() + " --help")
	}
	word, names := c.Args().First(), commandNames(c)
	f := usagef("%s has no command %q", c.FullName(), word)
	if near := nearest(word, names); near != "" {
		return f.hinted(c.FullName() + " " + near)
	}
	return f.hinted(c.FullName() + " --help")
}

func commandNames(c *cli.Command) (names []string) {
	for _, sub := range c.Commands {
		names = append(names, sub.Name)
	}
	return names
}

// onUsageError says what is wrong with a flag, and which one may be meant.
func onUsageError(_ context.Context, c *cli.Command, err error, _ bool) error {
	text := err.Error()
	name, unknown := strings.CutPrefix(text, "flag provided but not defined: -")
	if !unknown {
		return usagef("%s: %s", c.FullName(), text).hinted(c.FullName() + " --help")
	}
	var names []string
	for _, cmd := range c.Lineage() {
		for _, f := range cmd.Flags {
			names = append(names, f.Names()...)
		}
	}
	f := usagef("%s has no flag --%s", c.FullName(), strings.TrimLeft(name, "-"))
	if near := nearest(strings.TrimLeft(name, "-"), names); near != "" {
		return f.hinted("--" + near)
	}
	if c.Name == "send" {
		return f.hinted("put -- before a message that starts with -")
	}
	return f.hinted(c.FullName() + " --help")
}

// profile opens the profile directory.
func (a *app) profile() (*profile.Profile, error) {
	dir, err := a.dir()
	if err != nil {
		return nil, err
	}
	return profile.Open(dir)
}

// dir is the profile directory.
func (a *app) dir() (string, error) {
	if a.configDir != "" {
		return filepath.Abs(a.configDir)
	}
	dir, warning, err := profile.DefaultDir(a.getenv, os.UserHomeDir)
	if warning != "" {
		a.note("%s", warning)
	}
	return dir, err
}

// note writes a line for people, beside the result. It is one line whatever is
// quoted in it.
func (a *app) note(format string, args ...any) {
	fmt.Fprintf(a.errw, "claudemesh: %s\n", render.Line(fmt.Sprintf(format, args...)))
}

// memberships opens the profile and returns what --mesh selects: all that were
// joined without it.
func (a *app) memberships() (*profile.Profile, []client.Membership, error) {
	p, err := a.profile()
	if err != nil {
		return nil, nil, err
	}
	all, err := p.Meshes()
	if err != nil {
		return nil, nil, err
	}
	from, to, err := a.chosen(all)
	return p, all[from:to], err
}

// entries is memberships for what needs no secrets, which may be in a keyring that is locked.
func (a *app) entries() (*profile.Profile, []profile.Entry, error) {
	p, err := a.profile()
	if err != nil {
		return nil, nil, err
	}
	all, err := p.Entries()
	if err != nil {
		return nil, nil, err
	}
	var plain []client.Membership
	for _, e := range all {
		plain = append(plain, e.Membership)
	}
	from, to, err := a.chosen(plain)
	return p, all[from:to], err
}

// chosen returns the range of the meshes that --mesh selects.
func (a *app) chosen(all []client.Membership) (from, to int, err error) {
	if len(all) == 0 {
		return 0, 0, errNothingJoined
	}
	if a.mesh == "" {
		return 0, len(all), nil
	}
	i := slices.IndexFunc(all, func(m client.Membership) bool { return m.Mesh == a.mesh })
	if i < 0 {
		return 0, 0, unknownMesh(a.mesh, all)
	}
	return i, i + 1, nil
}

// oneMembership is memberships for what acts on one mesh.
func (a *app) oneMembership() (*profile.Profile, client.Membership, error) {
	p, all, err := a.memberships()
	if err != nil {
		return nil, client.Membership{}, err
	}
	if len(all) > 1 {
		return nil, client.Membership{}, &failure{
			code: "several_meshes", exit: exitAmbiguous, text: "several meshes are joined: " + meshNames(all),
			hint: "say which one with --mesh",
		}
	}
	return p, all[0], nil
}

func unknownMesh(name string, all []client.Membership) error {
	return &failure{
		code: "not_joined", exit: exitNotJoined, text: fmt.Sprintf("no mesh called %q was joined here", name),
		hint: "one of: " + meshNames(all),
	}
}

func meshNames(all []client.Membership) string {
	var names []string
	for _, m := range all {
		names = append(names, m.Mesh)
	}
	return strings.Join(names, ", ")
}
