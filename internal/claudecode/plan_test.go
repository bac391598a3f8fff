package claudecode

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// steps is a plan as words: the claude commands, and the first word of what is done to files.
func steps(p *Plan) string {
	var words []string
	for _, s := range p.Steps {
		word, _, _ := strings.Cut(s.Text, " ")
		if s.Command != "" {
			word = strings.TrimPrefix(s.Command, "claude ")
		}
		words = append(words, word)
	}
	return strings.Join(words, "; ")
}

func TestPlanPlugin(t *testing.T) {
	t.Parallel()
	s := setupIn(t)
	s.Client.Path = "claude"
	dir := folder(s.Dir)
	add, inst := "plugin marketplace add "+dir, "plugin install claudemesh@claudemesh --scope user"
	ours := &server{awkward[0], with(awkward[1:], "mcp")}
	for name, c := range map[string]struct {
		have  situation
		want  string
		notes int
	}{
		"nothing":          {situation{}, "write; " + add + "; " + inst, 0},
		"by hand":          {situation{user: ours}, "write; mcp remove claudemesh --scope user; " + add + "; " + inst, 0},
		"by another path":  {situation{user: &server{"/old/claudemesh", ours.Args}}, "write; mcp remove claudemesh --scope user; " + add + "; " + inst, 0},
		"another's":        {situation{user: &server{"/x/other", ours.Args}}, "write; " + add + "; " + inst, 1},
		"another profile":  {situation{user: &server{"claudemesh", []string{"mcp"}}}, "write; " + add + "; " + inst, 1},
		"another folder":   {situation{marketplace: "/elsewhere", plugin: &installed{Enabled: true, Version: "1.2.3"}}, "write; " + add, 0},
		"half":             {situation{marketplace: dir}, "write; " + inst, 0},
		"disabled":         {situation{marketplace: dir, plugin: &installed{Version: "1.2.3"}}, "write; " + inst, 0},
		"older":            {situation{marketplace: dir, plugin: &installed{Enabled: true, Version: "1.2.2"}}, "write; plugin update claudemesh@claudemesh --scope user", 0},
		"in a project too": {situation{marketplace: dir, plugin: &installed{Enabled: true, Version: "1.2.3"}, elsewhere: []string{"x"}}, "write", 1},
	} {
		p := &Plan{}
		s.planPlugin(p, c.have)
		if got := steps(p); got != c.want || len(p.Notes) != c.notes {
			t.Errorf("%s: %s, %q", name, got, p.Notes)
		}
	}
}

func TestPlanServer(t *testing.T) {
	t.Parallel()
	s := setupIn(t)
	s.Client.Path = "claude"
	add, remove := strings.TrimPrefix(s.Commands(Options{MCPOnly: true})[0], "claude "), "mcp remove claudemesh --scope user; "
	args := with(awkward[1:], "mcp")
	for name, c := range map[string]struct {
		have situation
		want string
		err  error
	}{
		"nothing":   {situation{}, add, nil},
		"equal":     {situation{user: &server{awkward[0], args}}, "", nil},
		"moved":     {situation{user: &server{"/old/claudemesh", args}}, remove + add, nil},
		"another's": {situation{user: &server{"/x/other", args}}, "", ErrOther},
		"plugin":    {situation{marketplace: folder(s.Dir), plugin: &installed{}}, "", ErrPlugin},
	} {
		p := &Plan{}
		err := s.planServer(p, c.have)
		if got := steps(p); got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
}

func TestReadServers(t *testing.T) {
	t.Parallel()
	s := setupIn(t)
	put(t, s.Client.State, `{"mcpServers":{"claudemesh":{"type":"stdio","command":"claudemesh","args":["mcp"],"env":{}}},
		"projects":{"/a b":{"mcpServers":{"claudemesh":{"command":"x"}}},"/c":{"allowedTools":[]}}}`, 0o600)
	put(t, filepath.Join(s.Client.Project, ".mcp.json"), `{"mcpServers":{"claudemesh":{"command":"x"}}}`, 0o600)
	have, err := s.Client.look(t.Context())
	if err != nil || Quote(have.user.argv()) != "claudemesh mcp" {
		t.Fatalf("%+v, %v", have.user, err)
	}
	if got := strings.Join(have.elsewhere, "|"); got != "cd '/a b' && claude mcp remove claudemesh --scope local|claude mcp remove claudemesh --scope project" {
		t.Error(got)
	}
	put(t, s.Client.State, `{`, 0o600)
	if _, err := s.Client.look(t.Context()); err == nil {
		t.Error("what does not parse is taken for nothing")
	}
}

// Where claude is absent the files are written and its commands are left to the user.
func TestWithoutClaude(t *testing.T) {
	t.Parallel()
	s := setupIn(t)
	plan, err := s.Install(t.Context(), Options{})
	if err != nil || steps(plan) != "write" || strings.Join(plan.Left, ";") != strings.Join(s.Commands(Options{}), ";") {
		t.Fatalf("%v, %+v", err, plan)
	}
	run(t, plan)
	if plan, err = s.Install(t.Context(), Options{}); err != nil || steps(plan) != "" || len(plan.Left) != 2 {
		t.Errorf("%v, %+v", err, plan)
	}
	if plan, err = s.Uninstall(t.Context()); err != nil || len(plan.Left) != 2 {
		t.Fatalf("%v, %+v", err, plan)
	}
	run(t, plan)
	if _, err := os.Stat(s.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: %v", s.Dir, err)
	}
	if plan, err = s.Uninstall(t.Context()); err != nil || len(plan.Left)+len(plan.Steps) != 0 {
		t.Errorf("%v, %+v", err, plan)
	}
}

// One folder serves several directories of Claude Code; the last takes it away.
func TestTwoClaudes(t *testing.T) {
	t.Parallel()
	a := setupIn(t)
	b := a
	b.Client.Home = t.TempDir()
	for _, s := range []Setup{a, b} {
		put(t, s.Client.settings(), "{}", 0o600)
		plan, err := s.Install(t.Context(), Options{StatusLine: true})
		if err != nil {
			t.Fatal(err)
		}
		run(t, plan)
	}
	for i, s := range []Setup{a, b} {
		plan, err := s.Uninstall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		run(t, plan)
		if _, err := os.Stat(folder(a.Dir)); (err == nil) != (i == 0) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

func TestRunEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	p := &Plan{}
	p.step("one", func(context.Context) error { cancel(); return nil })
	p.step("two", func(context.Context) error { t.Error("it goes on"); return nil })
	if err := p.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestSamePlace(t *testing.T) {
	t.Parallel()
	real := filepath.Join(t.TempDir(), "real")
	link := real + "-link"
	if err := os.Mkdir(real, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, link); err != nil {
		t.Skip(err)
	}
	gone := func(dir string) string { return filepath.Join(dir, "gone", "claude") }
	if !samePlace(real, link) || !samePlace(gone(real), gone(link)) || samePlace(real, gone(real)) || samePlace("", "") {
		t.Error("places are told apart wrongly")
	}
}
