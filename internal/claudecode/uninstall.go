package claudecode

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// Uninstall plans to take away what Install added and nothing else; a plan
// without steps says that there is nothing. What Install removed does not come back.
func (s Setup) Uninstall(ctx context.Context) (*Plan, error) {
	have, err := s.Client.look(ctx)
	if err != nil {
		return nil, err
	}
	r, err := s.readRecord()
	if err != nil {
		return nil, err
	}
	a := r.Claude[s.Client.Home]
	if a == nil {
		a = &added{}
	}
	p := &Plan{}
	s.planLine(p, a)
	mine := samePlace(have.marketplace, folder(s.Dir))
	switch {
	case s.Client.Path == "" && a.Plugin:
		p.Left = append(p.Left, "claude plugin uninstall "+pluginID+" --scope user", "claude plugin marketplace remove "+ServerName)
	case have.plugin != nil && (mine || have.marketplace == "" && a.Plugin):
		p.claude(s, "uninstall the plugin", nil, "plugin", "uninstall", pluginID, "--scope", "user")
	}
	if mine {
		p.claude(s, "remove the marketplace", nil, "plugin", "marketplace", "remove", ServerName)
	}
	if a.Server != nil && have.user != nil && slices.Equal(have.user.argv(), a.Server) {
		p.claude(s, "remove the MCP server", nil, "mcp", "remove", ServerName, "--scope", "user")
	}
	if a.Before != nil {
		p.step("remove what is left of it in "+s.Client.Home, func(context.Context) error { return s.tidy(a.Before) })
	}
	return p, s.planFolder(p, r)
}

func (s Setup) planLine(p *Plan, a *added) {
	path := s.Client.settings()
	o, err := readSettings(path)
	if a.StatusLine == "" || err != nil || statusLineCommand(o.value("statusLine")) != a.StatusLine {
		return
	}
	p.step("take the status line out of "+path, func(context.Context) error {
		return editSettings(path, func(o *object) []byte {
			if statusLineCommand(o.value("statusLine")) != a.StatusLine {
				return nil
			}
			return o.remove(o.index("statusLine"))
		})
	})
}

func statusLineCommand(v jsontext.Value) string {
	var line struct{ Command string }
	if json.Unmarshal(v, &line) != nil {
		return ""
	}
	return line.Command
}

// planFolder plans the end of the folder, unless another Claude Code of this
// user has the plugin too.
func (s Setup) planFolder(p *Plan, r *record) error {
	dir := folder(s.Dir)
	if _, err := os.Lstat(dir); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	delete(r.Claude, s.Client.Home)
	if len(r.Claude) > 0 {
		p.step("keep "+dir+" for another directory of Claude Code", func(context.Context) error { return s.saveRecord(r) })
		return nil
	}
	p.step("delete "+dir, func(context.Context) error {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		if r.MadeDir {
			_ = os.Remove(s.Dir) // unless something is in it by now
		}
		return nil
	})
	return nil
}

// leftovers is what claude plugin makes in its directory and leaves there empty,
// innermost first.
var leftovers = []string{
	"plugins/cache", "plugins/data", "plugins/marketplaces", "plugins/installed_plugins.json", "plugins/known_marketplaces.json", "plugins",
}

// tidy takes away the plugin's copy in Claude Code's cache and, of what was not
// there before, what is empty now; and gives settings.json its text back where
// it says the same again.
func (s Setup) tidy(b *before) error {
	if err := os.RemoveAll(filepath.Join(s.Client.Home, "plugins", "cache", ServerName)); err != nil {
		return err
	}
	for _, name := range leftovers {
		path := filepath.Join(s.Client.Home, filepath.FromSlash(name))
		if slices.Contains(b.Absent, name) && (filepath.Ext(name) == "" || emptyList(path)) {
			_ = os.Remove(path) // a directory stays when anything is in it
		}
	}
	return s.tidySettings(b)
}

// emptyList says whether a file of Claude Code's lists no plugin and no marketplace.
func emptyList(path string) bool {
	data, err := os.ReadFile(path)
	return err == nil && (same(data, []byte(`{}`)) || same(data, []byte(`{"version":2,"plugins":{}}`)))
}

func (s Setup) tidySettings(b *before) error {
	path := s.Client.settings()
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	was := &object{}
	if b.Settings != nil {
		var err error
		if was, err = parseObject([]byte(*b.Settings)); err != nil {
			return nil // it did not parse then: nothing to go back to
		}
	}
	empty := false
	err := editSettings(path, func(o *object) []byte {
		changed := false
		for _, key := range []string{"enabledPlugins", "extraKnownMarketplaces"} {
			if was.value(key) == nil && same(o.value(key), []byte("{}")) {
				o, changed = o.without(key), true
			}
		}
		switch {
		case b.Settings == nil:
			empty = len(o.members) == 0
		case same(o.text, was.text):
			return was.text
		}
		if !changed {
			return nil
		}
		return o.text
	})
	if err == nil && empty {
		return os.Remove(path)
	}
	return err
}
