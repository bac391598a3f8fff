package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/claudecode"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/profile"
)

func (a *app) launchCommand() *cli.Command {
	return command(spec{
		name: "launch", usage: "start Claude Code on the mesh", args: "[-- CLAUDE-ARGUMENT...]", max: 1 << 16,
		about: "On a terminal it asks for what is missing: a mesh, and the tools in Claude Code. Then it becomes\n" +
			"claude, with what follows -- as its arguments. What is said here holds for that session alone. It\n" +
			"adds no argument that skips a permission.",
		example: "claudemesh launch\nclaudemesh launch --name api --groups backend:lead -- --continue",
		flags: append([]cli.Flag{
			&cli.StringFlag{Name: "join", Usage: "join by this `LINK` first, or - to read it from standard input"},
			asFlag(),
			&cli.StringFlag{Name: "mode", Usage: "what enters the session unasked: " + strings.Join(modeNames(), ", ")},
			&cli.BoolFlag{Name: "channel", Usage: "let Claude Code load the channel of claudemesh; it asks first"},
			&cli.BoolFlag{Name: "quiet", Usage: "print nothing, and ask nothing"},
			&cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask: up where no mesh was joined, and install"},
		}, sessionFlags()...),
		run: a.runLaunch,
	})
}

func (a *app) runLaunch(ctx context.Context, c *cli.Command) error {
	args := c.Args().Slice()
	s, err := readSession(c, a.mesh, func(string) string { return "" })
	if err != nil {
		return err
	}
	if m := mailbox.Mode(c.String("mode")); m != "" && !slices.Contains(mailbox.Modes, m) {
		return badMode(m, "--mode ")
	}
	claude, err := exec.LookPath("claude")
	if err != nil {
		return &failure{
			code: "no_claude", exit: exitNotFound, text: "the claude command is not on PATH",
			hint: "install Claude Code, or put it on PATH",
		}
	}
	_, attended := a.terminal()
	w := wizard{app: a, as: c.String("as"), ask: attended && !c.Bool("quiet") && !c.Bool("yes"), yes: c.Bool("yes"), quiet: c.Bool("quiet")}
	if err := w.join(ctx, c.String("join")); err != nil {
		return err
	}
	if s.mesh, err = w.mesh(ctx, s.mesh); err != nil {
		return err
	}
	setup, err := a.setup()
	if err != nil {
		return err
	}
	if setup.Client.Has() == (claudecode.Has{}) {
		if err := w.install(ctx); err != nil {
			return err
		}
	}
	env := s.environ()
	if m := c.String("mode"); m != "" {
		env = append(env, envMode+"="+m)
	}
	if c.Bool("channel") {
		env = append(env, envChannel+"=1")
		args = append(setup.Client.Has().ChannelArgs(args), args...)
	}
	if a.configDir != "" {
		dir, err := a.dir()
		if err != nil {
			return err
		}
		env = append(env, profile.EnvDir+"="+dir)
	}
	return become(claude, append([]string{"claude"}, args...), override(os.Environ(), env))
}

// override returns an environment with these variables set, each once.
func override(environ, set []string) []string {
	for _, v := range set {
		name, _, _ := strings.Cut(v, "=")
		environ = slices.DeleteFunc(environ, func(old string) bool { return strings.HasPrefix(old, name+"=") })
	}
	return append(environ, set...)
}

// wizard asks for what is missing before a launch, and does it.
type wizard struct {
	*app
	as              string // who to be in a mesh that is joined or founded
	ask, yes, quiet bool
}

// join joins by a link, if one is given.
func (w wizard) join(ctx context.Context, link string) error {
	if link == "" {
		return nil
	}
	if link == "-" { // read here: what follows on standard input is claude's
		var err error
		if link, err = readLine(oneByte{w.input(ctx)}); err != nil {
			return err
		}
	}
	return w.enter(ctx, link)
}

// enter joins by a link, which stays out of the arguments; without one it brings up a
// mesh of this machine.
func (w wizard) enter(ctx context.Context, link string) error {
	in, args := w.in, w.up()
	if link != "" {
		in, args = strings.NewReader(link+"\n"), []string{"join", "-"}
	}
	if w.as != "" {
		args = append(args, "--as", w.as)
	}
	return w.run(ctx, in, args...)
}

// up is the command that does so, and asks no more than the wizard does.
func (w wizard) up() []string {
	if w.yes {
		return []string{"up", "--yes"}
	}
	return []string{"up"}
}

// mesh makes sure that there is a mesh, and returns the one to enter: "" for all.
func (w wizard) mesh(ctx context.Context, wanted string) (string, error) {
	p, err := w.profile()
	if err != nil {
		return "", err
	}
	meshes, err := p.Meshes()
	if err != nil {
		return "", err
	}
	if len(meshes) == 0 {
		if err := w.firstMesh(ctx); err != nil {
			return "", err
		}
		if meshes, err = p.Meshes(); err != nil {
			return "", err
		}
	}
	known := func(name string) bool {
		return slices.ContainsFunc(meshes, func(m client.Membership) bool { return m.Mesh == name })
	}
	if wanted == "" && len(meshes) > 1 && w.ask {
		if wanted, err = w.question(ctx, "which mesh? ("+meshNames(meshes)+"; Enter for all)"); err != nil {
			return "", err
		}
	}
	if wanted != "" && !known(wanted) {
		return "", unknownMesh(wanted, meshes)
	}
	return wanted, w.broker(ctx, p, meshes, wanted)
}

// broker offers to start the local broker, if a mesh that is to be entered is there.
func (w wizard) broker(ctx context.Context, p *profile.Profile, meshes []client.Membership, wanted string) error {
	b := localBroker(p)
	_, runs := b.Running()
	if runs || !slices.ContainsFunc(meshes, func(m client.Membership) bool {
		return m.Broker == b.URL() && (wanted == "" || m.Mesh == wanted)
	}) {
		return nil
	}
	yes, err := w.yes, error(nil)
	if w.ask {
		yes, err = w.confirm(ctx, "The local broker does not run. Start it?")
	}
	switch {
	case err != nil:
		return err
	case yes:
		return w.run(ctx, w.in, w.up()...)
	case !w.quiet:
		w.note("the local broker does not run; claudemesh up starts it")
	}
	return nil
}

// firstMesh offers what makes a member of somebody who is none.
func (w wizard) firstMesh(ctx context.Context) error {
	switch {
	case w.yes:
		return w.enter(ctx, "")
	case !w.ask:
		return errNothingJoined
	}
	w.note("no mesh was joined here yet")
	link, err := w.question(ctx, "paste an invite link, or press Enter for a mesh on this machine alone (claudemesh up)")
	if err != nil {
		return err
	}
	return w.enter(ctx, link)
}

// install offers to install into a Claude Code that has nothing of ours: the command
// shows what it would do and asks. Who says no launches without.
func (w wizard) install(ctx context.Context) error {
	switch {
	case w.yes:
		return w.run(ctx, w.in, "install", "--yes")
	case w.ask:
		w.note("Claude Code has no claudemesh yet")
		if w.run(ctx, w.in, "install") == nil {
			return nil
		}
	}
	if !w.quiet {
		w.note("this session starts without claudemesh; run: claudemesh install")
	}
	return ctx.Err()
}

// question asks for a line on the terminal.
func (a *app) question(ctx context.Context, text string) (string, error) {
	fmt.Fprintf(a.errw, "%s: ", text)
	line, err := bufio.NewReader(io.LimitReader(a.input(ctx), 64<<10)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return strings.TrimSpace(line), nil
}

// oneByte reads no more than is asked for at a time: what follows stays unread.
type oneByte struct{ io.Reader }

func (r oneByte) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(len(p), 1)]) }

// run has another command of this program do its part. Quiet, it shows in failure alone.
func (w wizard) run(ctx context.Context, in io.Reader, args ...string) error {
	if !w.quiet {
		return w.again(ctx, in, w.errw, args...)
	}
	var said bytes.Buffer
	err := w.again(ctx, in, &said, args...)
	if err != nil {
		_, _ = said.WriteTo(w.errw)
	}
	return err
}

// again runs another command of this program, for the same directory, as a process
// of its own: what it leaves in the background is then nobody's child.
func (a *app) again(ctx context.Context, in io.Reader, out io.Writer, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if a.configDir != "" {
		args = append([]string{"--config-dir", a.configDir}, args...)
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, out
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) { // it has said why
		return &failure{code: "failed", exit: max(exit.ExitCode(), exitFailed), text: exit.Error(), shown: true}
	}
	return err
}
