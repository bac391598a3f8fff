package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/internal/claudecode"
	"github.com/claudemesh/claudemesh/internal/profile"
	"github.com/claudemesh/claudemesh/internal/render"
	"github.com/claudemesh/claudemesh/internal/version"
)

const (
	noClaude  = "the claude command is not on PATH; run where it is:"
	unasked   = "nothing was done: there is no terminal to ask on"
	hasPlugin = "Claude Code has it; sessions that run already load it with /reload-plugins or their next start"
	hasServer = "Claude Code has the server; sessions that run already must be restarted"
)

func (a *app) installCommand() *cli.Command {
	return command(spec{
		name: "install", usage: "install the plugin into Claude Code, for all its projects",
		about: "Shows what it will do, asks, and does what is missing: it writes the plugin (MCP server, hooks, skill)\n" +
			"into the configuration directory, adds that as a marketplace of Claude Code, and installs the plugin from\n" +
			"it. A server that was registered by hand for the same directory is removed, since the plugin brings it;\n" +
			"claudemesh uninstall does not bring it back. Run again, it mends what is old or half installed.",
		example: "claudemesh install",
		flags: []cli.Flag{
			&cli.BoolFlag{Name: "mcp-only", Usage: "register only the MCP server, without the plugin"},
			&cli.BoolFlag{Name: "statusline", Usage: "also set the status line, where none is set"},
			&cli.BoolFlag{Name: "print", Usage: "only print the commands for claude"},
			yesFlag(),
		},
		run: a.runInstall,
	})
}

func (a *app) uninstallCommand() *cli.Command {
	return command(spec{
		name: "uninstall", usage: "take away from Claude Code what install added",
		about: "Shows what it will do, asks, and takes away the plugin, its marketplace, a registered server and the\n" +
			"status line, each only if install added it, and the files of the plugin. Meshes, keys and messages stay.",
		example: "claudemesh uninstall --dry-run",
		flags:   []cli.Flag{&cli.BoolFlag{Name: "dry-run", Usage: "only show what it would do"}, yesFlag()},
		run:     a.runUninstall,
	})
}

func (a *app) runInstall(ctx context.Context, c *cli.Command) error {
	setup, err := a.setup()
	if err != nil {
		return err
	}
	o := claudecode.Options{MCPOnly: c.Bool("mcp-only"), StatusLine: c.Bool("statusline")}
	if c.Bool("print") {
		if !o.MCPOnly && !setup.Written() {
			a.note("the plugin is not written there yet: claudemesh install does that, and runs these where it finds claude")
		}
		return a.printCommands(setup.Commands(o))
	}
	plan, err := setup.Install(ctx, o)
	if err != nil {
		return explainInstall(err)
	}
	if err := a.carryOut(ctx, plan, c.Bool("yes"), "Install it?"); err != nil {
		return err
	}
	done := hasPlugin
	if o.MCPOnly {
		done = hasServer
	}
	return a.showDone(plan, len(plan.Left) == 0, done)
}

func (a *app) runUninstall(ctx context.Context, c *cli.Command) error {
	setup, err := a.setup()
	if err != nil {
		return err
	}
	plan, err := setup.Uninstall(ctx)
	if err != nil {
		return explainInstall(err)
	}
	if c.Bool("dry-run") {
		a.showPlan(a.planWriter(), plan)
		if a.json {
			a.printJSON(resultOf(plan, false, ""))
		}
		return nil
	}
	if err := a.carryOut(ctx, plan, c.Bool("yes"), "Uninstall it?"); err != nil {
		return err
	}
	return a.showDone(plan, false, "Claude Code has nothing of claudemesh's that install added")
}

// installation is a plan as it is printed.
type installation struct {
	Steps     []claudecode.Step `json:"steps"`
	Commands  []string          `json:"commands"` // left to run where claude is
	Notes     []string          `json:"notes"`
	Installed bool              `json:"installed"`
	Note      string            `json:"note"`
}

func resultOf(p *claudecode.Plan, installed bool, note string) installation {
	return installation{append([]claudecode.Step{}, p.Steps...), append([]string{}, p.Left...), append([]string{}, p.Notes...), installed, note}
}

func (a *app) printCommands(commands []string) error {
	if a.json {
		a.printJSON(resultOf(&claudecode.Plan{Left: commands}, false, ""))
		return nil
	}
	for _, line := range commands {
		a.printf("%s\n", line)
	}
	return nil
}

// planWriter is where a plan is shown: beside a result that is JSON.
func (a *app) planWriter() io.Writer {
	if a.json {
		return a.errw
	}
	return a.out
}

func (a *app) showPlan(w io.Writer, p *claudecode.Plan) {
	for _, s := range p.Steps {
		fmt.Fprintf(w, "- %s\n", render.Visible(s.Text))
		if s.Command != "" {
			fmt.Fprintf(w, "    %s\n", render.Visible(s.Command))
		}
	}
	for _, n := range p.Notes {
		a.note("%s", render.Visible(n))
	}
}

// carryOut shows a plan, asks, and does it.
func (a *app) carryOut(ctx context.Context, p *claudecode.Plan, yes bool, question string) error {
	a.showPlan(a.planWriter(), p)
	if len(p.Steps) == 0 {
		return nil
	}
	if err := a.ask(ctx, yes, unasked, question); err != nil {
		return err
	}
	if err := p.Run(ctx); err != nil {
		return explainInstall(err)
	}
	return nil
}

func (a *app) showDone(p *claudecode.Plan, installed bool, note string) error {
	if len(p.Left) > 0 {
		note = noClaude
	}
	if a.json {
		a.printJSON(resultOf(p, installed, note))
		return nil
	}
	a.note("%s", note)
	for _, line := range p.Left {
		a.printf("%s\n", line)
	}
	return nil
}

func explainInstall(err error) error {
	f := &failure{code: "install_failed", exit: exitFailed, text: err.Error(), hint: "mend that and run the command again; what is done already is left out"}
	switch {
	case errors.Is(err, claudecode.ErrOther):
		f.hint = "claude mcp remove claudemesh --scope user, then claudemesh install"
	case errors.Is(err, claudecode.ErrPlugin):
		f.hint = "claudemesh uninstall, then claudemesh install --mcp-only"
	}
	return f
}

// setup is this claudemesh as Claude Code is to start it, and Claude Code.
// Claude Code does not pass its environment on, so that a directory of one's own
// stands in the arguments.
func (a *app) setup() (claudecode.Setup, error) {
	dir, err := a.dir()
	if err != nil {
		return claudecode.Setup{}, err
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) { // else install makes it
		if _, err := profile.Open(dir); err != nil {
			return claudecode.Setup{}, err
		}
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return claudecode.Setup{}, err
	}
	cwd, err := os.Getwd()
	if err != nil {
		return claudecode.Setup{}, err
	}
	command := []string{binary()}
	if dir != filepath.Join(home, ".claudemesh") {
		command = append(command, "--config-dir", dir)
	}
	claude, err := exec.LookPath("claude")
	if err != nil {
		claude = ""
	}
	return claudecode.Setup{
		Dir: dir, Command: command, Product: version.String(),
		Client: claudecode.Find(claude, home, a.getenv("CLAUDE_CONFIG_DIR"), cwd),
	}, nil
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
