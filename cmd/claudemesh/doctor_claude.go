package main

import (
	"context"
	"strings"

	"github.com/claudemesh/claudemesh/internal/claudecode"
)

// checkClaude looks at Claude Code: its version, and whether it has what
// install gives it.
func (a *app) checkClaude(ctx context.Context) []finding {
	setup, err := a.setup()
	if err != nil {
		return []finding{wrong("claude", err)}
	}
	if setup.Client.Path == "" {
		return []finding{{"claude", warning, "the claude command is not on PATH", "install Claude Code, or put its directory on PATH"}}
	}
	version, recent, err := setup.Client.Version(ctx)
	if err != nil {
		return []finding{{"claude", broken, err.Error(), "claude doctor"}}
	}
	found := ok("claude", "Claude Code %s at %s", version, setup.Client.Path)
	if !recent {
		found.Text += " cannot load the plugin's module: messages wait for the next turn"
		found.Verdict, found.Mend = warning, "update Claude Code to "+claudecode.WithModules+" or later"
	}
	return []finding{found, checkInstalled(ctx, setup)}
}

// checkInstalled says what install would still do.
func checkInstalled(ctx context.Context, setup claudecode.Setup) finding {
	plan, err := setup.Install(ctx, claudecode.Options{})
	if err != nil {
		return finding{"plugin", broken, err.Error(), "mend that, then claudemesh install"}
	}
	switch {
	case len(plan.Steps) > 0:
		var missing []string
		for _, s := range plan.Steps {
			missing = append(missing, s.Text)
		}
		return finding{"plugin", warning, "claudemesh install would: " + strings.Join(missing, "; "), "claudemesh install"}
	case len(plan.Notes) > 0:
		return finding{"plugin", warning, plan.Notes[0], "claudemesh uninstall, or as it says"}
	}
	return ok("plugin", "installed, and as this program would write it")
}
