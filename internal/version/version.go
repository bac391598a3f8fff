// Package version says which build this is, for --version, /health and MCP alike.
package version

import "runtime/debug"

// version is stamped by the Makefile (-ldflags -X); a plain build has none.
var version string

// String is the version, with commit and date where the build knows them.
func String() string {
	v, commit, date, dirty := version, "", "", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		if v == "" {
			v = info.Main.Version
		}
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				commit = s.Value[:min(12, len(s.Value))]
			case "vcs.time":
				date = s.Value
			case "vcs.modified":
				if s.Value == "true" {
					dirty = "+"
				}
			}
		}
	}
	if v == "" || v == "(devel)" {
		v = "dev"
	}
	if commit != "" {
		v += " (" + commit + dirty + ", " + date + ")"
	}
	return v
}
