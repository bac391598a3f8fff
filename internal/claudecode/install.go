package claudecode

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Setup is one claudemesh that Claude Code is to know.
type Setup struct {
	Dir     string   // its configuration directory, absolute
	Command []string // how it is started: the program, then what stands before a command's name
	Product string   // its version
	Client  Client
}

// Options of Install.
type Options struct {
	MCPOnly    bool // the server alone, by claude mcp add
	StatusLine bool // also the status line, where none is set
}

// Step is one thing to do.
type Step struct {
	Text    string `json:"text"`
	Command string `json:"command"` // of claude, for a shell; "" for what is done to files
	do      func(context.Context) error
}

// Plan is what is to be done, in order, and what there is to know besides.
type Plan struct {
	Steps []Step
	Left  []string // commands to run where claude is, since it is not on PATH
	Notes []string
}

// Run does the steps and ends with the first that fails.
func (p *Plan) Run(ctx context.Context) error {
	for _, s := range p.Steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.do(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (p *Plan) step(text string, do func(context.Context) error) {
	p.Steps = append(p.Steps, Step{Text: text, do: do})
}

// claude adds a command of claude, after which note is taken of what it is
// about to add.
func (p *Plan) claude(s Setup, text string, note func(*added), args ...string) {
	line := Quote(append([]string{"claude"}, args...))
	if s.Client.Path == "" {
		p.Left = append(p.Left, line)
		return
	}
	p.Steps = append(p.Steps, Step{Text: text, Command: line, do: func(ctx context.Context) error {
		if note != nil {
			if err := s.note(note); err != nil {
				return err
			}
		}
		_, err := s.Client.run(ctx, args...)
		return err
	}})
}

// serverArgs, marketArgs and pluginArgs are what claude is given.
func (s Setup) serverArgs() []string {
	return append([]string{"mcp", "add", ServerName, "--scope", "user", "--"}, s.server()...)
}

func (s Setup) marketArgs() []string {
	return []string{"plugin", "marketplace", "add", folder(s.Dir)}
}

var pluginArgs = []string{"plugin", "install", pluginID, "--scope", "user"}

// server is the command of the MCP server.
func (s Setup) server() []string { return with(s.Command, "mcp") }

// Commands are the commands of claude that Install comes down to where nothing
// is installed, as lines for a shell.
func (s Setup) Commands(o Options) []string {
	if o.MCPOnly {
		return []string{Quote(with([]string{"claude"}, s.serverArgs()...))}
	}
	return []string{Quote(with([]string{"claude"}, s.marketArgs()...)), Quote(with([]string{"claude"}, pluginArgs...))}
}

// Written reports whether the plugin of this version is in its folder.
func (s Setup) Written() bool {
	version := pluginVersion(s.Product)
	files := render(s.Command, version)
	return written(folder(s.Dir), stamp{version, s.Command, sum(files)}, files)
}

// Install plans what is missing; a plan without steps says that nothing is.
func (s Setup) Install(ctx context.Context, o Options) (*Plan, error) {
	have, err := s.Client.look(ctx)
	if err != nil {
		return nil, err
	}
	p := &Plan{}
	if o.MCPOnly {
		err = s.planServer(p, have)
	} else {
		s.planPlugin(p, have)
	}
	if err == nil && o.StatusLine {
		err = s.planStatusLine(p)
	}
	return p, err
}

// planPlugin plans the plugin. Claude Code silently drops a plugin's server that
// equals one registered by hand, and runs both when they differ: the plugin
// replaces one that is ours.
func (s Setup) planPlugin(p *Plan, have situation) {
	version := pluginVersion(s.Product)
	if dir := folder(s.Dir); !s.Written() {
		p.step(fmt.Sprintf("write the plugin, version %s, to %s", version, dir), func(context.Context) error {
			err := s.note(func(a *added) { a.Plugin = a.Plugin || s.Client.Path == "" }) // others are to install it then
			if err != nil {
				return err
			}
			files := render(s.Command, version)
			return write(dir, stamp{version, s.Command, sum(files)}, files)
		})
	}
	switch {
	case have.user == nil:
	case have.user.ours(s.Command):
		p.claude(s, "remove the server that was registered by hand, since the plugin brings it", nil, "mcp", "remove", ServerName, "--scope", "user")
	default:
		p.Notes = append(p.Notes, fmt.Sprintf("another server is registered as %s and stays beside the plugin's; it runs: %s", ServerName, Quote(have.user.argv())))
	}
	noted := func(a *added) { s.remember(a); a.Plugin = true }
	if !samePlace(have.marketplace, folder(s.Dir)) {
		text := "add that folder as a marketplace of plugins"
		if have.marketplace != "" {
			text += ", in the place of " + have.marketplace
		}
		p.claude(s, text, noted, s.marketArgs()...)
	}
	switch {
	case have.plugin == nil || !have.plugin.Enabled:
		p.claude(s, "install the plugin for all projects of this user", noted, pluginArgs...)
	case have.plugin.Version != version:
		p.claude(s, "tell Claude Code of the new version", noted, "plugin", "update", pluginID, "--scope", "user")
	}
	for _, line := range have.elsewhere {
		p.Notes = append(p.Notes, "a project registers a server of this name too, and there the plugin's may be dropped; run: "+line)
	}
}

// ErrOther is another server where ours should be.
var ErrOther = errors.New("there is another server of the name " + ServerName)

// ErrPlugin is the plugin where the server alone should be.
var ErrPlugin = errors.New("the plugin is installed, and it brings the server")

func (s Setup) planServer(p *Plan, have situation) error {
	switch {
	case have.plugin != nil && samePlace(have.marketplace, folder(s.Dir)):
		return ErrPlugin
	case have.user == nil:
	case Quote(have.user.argv()) == Quote(s.server()):
		return nil
	case have.user.ours(s.Command):
		p.claude(s, "remove the older registration: "+Quote(have.user.argv()), nil, "mcp", "remove", ServerName, "--scope", "user")
	default:
		return fmt.Errorf("%w; it runs %q", ErrOther, Quote(have.user.argv()))
	}
	p.claude(s, "register the MCP server for all projects of this user", func(a *added) { a.Server = s.server() }, s.serverArgs()...)
	return nil
}

// statusLine is the command of the status line, for a shell.
func (s Setup) statusLine() string { return Quote(with(s.Command, "statusline")) }

func (s Setup) planStatusLine(p *Plan) error {
	path := s.Client.settings()
	o, err := readSettings(path)
	if err != nil {
		return err
	}
	if v := o.value("statusLine"); v != nil {
		if statusLineCommand(v) != s.statusLine() {
			p.Notes = append(p.Notes, "a status line of your own is set in "+path+"; it stays")
		}
		return nil
	}
	p.step("set the status line in "+path, func(context.Context) error {
		if err := s.note(func(a *added) { s.remember(a); a.StatusLine = s.statusLine() }); err != nil {
			return err
		}
		return editSettings(path, func(o *object) []byte {
			if o.value("statusLine") != nil {
				return nil
			}
			return o.add("statusLine", `{ "type": "command", "command": `+quoteJSON(s.statusLine())+`, "padding": 0, "refreshInterval": 5 }`)
		})
	})
	return nil
}

// readSettings parses settings.json; no file is an empty object.
func readSettings(path string) (*object, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = []byte("{}\n"), nil
	}
	if err != nil {
		return nil, err
	}
	o, err := parseObject(text)
	if err != nil {
		return nil, fmt.Errorf("%s does not parse and is left alone: %w", path, err)
	}
	return o, nil
}

// editSettings replaces settings.json, whose mode stays; nil changes nothing.
func editSettings(path string, edit func(*object) []byte) error {
	o, err := readSettings(path)
	if err != nil {
		return err
	}
	text := edit(o)
	if text == nil {
		return nil
	}
	mode := fs.FileMode(0o600)
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	return replaceFile(path, text, mode)
}
