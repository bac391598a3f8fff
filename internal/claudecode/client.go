package claudecode

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Client is the Claude Code of this user.
type Client struct {
	Path    string // of the claude program; "" when it is not on PATH
	Home    string // its directory, ~/.claude
	State   string // its file of the user's MCP servers, ~/.claude.json
	Project string // the working directory, whose .mcp.json counts too
}

// Find is the Claude Code of a user with this home directory; configDir is the
// value of CLAUDE_CONFIG_DIR, or "".
func Find(path, home, configDir, project string) Client {
	if configDir != "" {
		return Client{path, configDir, filepath.Join(configDir, ".claude.json"), project}
	}
	return Client{path, filepath.Join(home, ".claude"), filepath.Join(home, ".claude.json"), project}
}

func (c Client) settings() string { return filepath.Join(c.Home, "settings.json") }

// server is an MCP server as Claude Code stores it.
type server struct {
	Command string   `json:"command"`
	Args    []string `json:"args"`
}

func (s *server) argv() []string { return append([]string{s.Command}, s.Args...) }

// ours says whether a server is claudemesh on the same configuration directory,
// by whatever path.
func (s *server) ours(command []string) bool {
	name := strings.TrimSuffix(filepath.Base(s.Command), ".exe")
	return name == ServerName && slices.Equal(s.Args, with(command, "mcp")[1:])
}

// situation is what Claude Code has of ours.
type situation struct {
	user        *server  // the server registered for the user
	elsewhere   []string // where else one of the name is registered, with how it goes
	marketplace string   // the folder of the marketplace of our name, "" when there is none
	plugin      *installed
}

// installed is the plugin at user scope as claude plugin list prints it.
type installed struct {
	ID      string `json:"id"`
	Version string `json:"version"`
	Scope   string `json:"scope"`
	Enabled bool   `json:"enabled"`
}

// look asks claude for plugins and marketplaces, and reads the registered
// servers in its files: asking for those would start them.
func (c Client) look(ctx context.Context) (s situation, err error) {
	if err := c.readServers(&s); err != nil {
		return s, err
	}
	if c.Path == "" {
		return s, nil
	}
	var plugins []installed
	if err := c.list(ctx, &plugins, "plugin", "list", "--json"); err != nil {
		return s, err
	}
	for _, p := range plugins {
		if p.ID == pluginID && p.Scope == "user" {
			s.plugin = &p
		}
	}
	var markets []struct{ Name, Source, Path, Repo, URL string }
	if err := c.list(ctx, &markets, "plugin", "marketplace", "list", "--json"); err != nil {
		return s, err
	}
	for _, m := range markets {
		if m.Name == ServerName {
			s.marketplace = m.Path + m.Repo + m.URL // one of them
		}
	}
	return s, nil
}

func (c Client) list(ctx context.Context, into any, args ...string) error {
	out, err := c.run(ctx, args...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("claude %s: it printed no JSON; update Claude Code", strings.Join(args, " "))
	}
	return nil
}

// readServers finds the servers of our name in all scopes but other projects' files.
func (c Client) readServers(s *situation) error {
	var state struct {
		Servers  map[string]*server `json:"mcpServers"`
		Projects map[string]struct {
			Servers map[string]*server `json:"mcpServers"`
		} `json:"projects"`
	}
	if err := readJSON(c.State, &state); err != nil {
		return err
	}
	s.user = state.Servers[ServerName]
	for dir, p := range state.Projects {
		if p.Servers[ServerName] != nil {
			s.elsewhere = append(s.elsewhere, Quote([]string{"cd", dir})+" && claude mcp remove claudemesh --scope local")
		}
	}
	slices.Sort(s.elsewhere)
	var project struct {
		Servers map[string]*server `json:"mcpServers"`
	}
	path := filepath.Join(c.Project, ".mcp.json")
	if err := readJSON(path, &project); err == nil && project.Servers[ServerName] != nil {
		s.elsewhere = append(s.elsewhere, "claude mcp remove claudemesh --scope project")
	}
	return nil
}

// samePlace says whether two paths lead to one place; it need not be there any more.
func samePlace(a, b string) bool { return a != "" && resolve(a) == resolve(b) }

func resolve(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	dir := filepath.Dir(path)
	if dir == path {
		return path
	}
	return filepath.Join(resolve(dir), filepath.Base(path))
}

// readJSON reads a file of Claude Code's; one that is absent leaves v as it is.
func readJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		return fmt.Errorf("read Claude Code's servers in %s: %w", path, err)
	}
	return nil
}

// WithModules is the first version of Claude Code that loads a plugin's module.
const WithModules = "2.1.287"

// Version asks claude for its version, and says whether it loads modules.
func (c Client) Version(ctx context.Context) (version string, modules bool, err error) {
	out, err := c.run(ctx, "--version")
	if err != nil {
		return "", false, err
	}
	version, _, _ = strings.Cut(strings.TrimSpace(string(out)), " ")
	return version, !newer(WithModules, version), nil
}
