package claudecode

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// PluginID names the plugin at its marketplace.
const PluginID = ServerName + "@" + ServerName

// maxSettings bounds a file of Claude Code that is read, in bytes: one of them holds
// a history of every project.
const maxSettings = 64 << 20

// Has is what a user's Claude Code has of us, by its own files.
type Has struct {
	Plugin bool // installed and enabled
	Server bool // registered by hand at user scope
}

// Look reads what Claude Code has, without starting it. config is the directory that
// CLAUDE_CONFIG_DIR names, or "".
func Look(home, config string) Has {
	state, settings := filepath.Join(home, ".claude.json"), filepath.Join(home, ".claude", "settings.json")
	if config != "" {
		state, settings = filepath.Join(config, ".claude.json"), filepath.Join(config, "settings.json")
	}
	var servers struct {
		MCPServers map[string]json.RawMessage `json:"mcpServers"`
	}
	var plugins struct {
		EnabledPlugins map[string]any `json:"enabledPlugins"`
	}
	readJSON(state, &servers)
	readJSON(settings, &plugins)
	_, server := servers.MCPServers[ServerName]
	return Has{Plugin: plugins.EnabledPlugins[PluginID] == true, Server: server}
}

// readJSON leaves v as it is when the file is absent or makes no sense.
func readJSON(path string, v any) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	if raw, err := io.ReadAll(io.LimitReader(f, maxSettings)); err == nil {
		_ = json.Unmarshal(raw, v)
	}
}

// channelFlag takes a list of channels; written with = it takes one, and not the
// arguments after it.
const channelFlag = "--dangerously-load-development-channels"

// ChannelArgs are the arguments that have claude load our channel, after asking its
// user; none where the arguments name channels already.
func (h Has) ChannelArgs(args []string) []string {
	named := func(arg string) bool {
		name, _, _ := strings.Cut(arg, "=")
		return name == channelFlag || name == "--channels"
	}
	switch {
	case slices.ContainsFunc(args, named):
		return nil
	case h.Plugin:
		return []string{channelFlag + "=plugin:" + PluginID}
	}
	return []string{channelFlag + "=server:" + ServerName}
}
