package claudecode

import (
	"slices"
	"strings"
)

// Has is what a user's Claude Code has of us, by its own files.
type Has struct {
	Plugin bool // installed and enabled
	Server bool // registered by hand at user scope
}

// Has reads what Claude Code has, without starting it. A file that makes no sense
// says that it has nothing.
func (c Client) Has() Has {
	var s situation
	_ = c.readServers(&s)
	var plugins struct {
		Enabled map[string]any `json:"enabledPlugins"`
	}
	_ = readJSON(c.settings(), &plugins)
	return Has{Plugin: plugins.Enabled[pluginID] == true, Server: s.user != nil}
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
		return []string{channelFlag + "=plugin:" + pluginID}
	}
	return []string{channelFlag + "=server:" + ServerName}
}
