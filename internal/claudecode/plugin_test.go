package claudecode

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

// awkward is a command that needs quoting everywhere.
var awkward = []string{`/opt/my "tools"/claudemesh`, "--config-dir", `C:\it's <here>`}

// The tree in the repository is the plugin for a claudemesh on PATH.
func TestRenderDefault(t *testing.T) {
	t.Parallel()
	files := render([]string{ServerName}, "0.0.0")
	for _, f := range files[1:] {
		want, err := os.ReadFile(filepath.Join("plugin", strings.TrimPrefix(f.path, ServerName+"/")))
		if err != nil || !bytes.Equal(f.data, want) {
			t.Errorf("%s differs from the repository's (%v)", f.path, err)
		}
	}
}

// TestRenderGolden holds the files that depend on the command and the version.
func TestRenderGolden(t *testing.T) {
	t.Parallel()
	var got bytes.Buffer
	plain := render([]string{ServerName}, "0.0.0")
	for i, f := range render(awkward, "1.2.3") {
		if !bytes.Equal(f.data, plain[i].data) {
			got.WriteString("-- " + f.path + " --\n")
			got.Write(f.data)
		}
	}
	golden := filepath.Join("testdata", "rendered.golden")
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%v; got\n%s", err, got.Bytes())
	}
}

type hook struct {
	Type        string
	Command     string
	Args        []string
	AsyncRewake bool
	Timeout     int
}

// Every hook and the server start our command, and no file names another.
func TestRenderedCommands(t *testing.T) {
	t.Parallel()
	files := map[string][]byte{}
	for _, f := range render(awkward, "1.2.3") {
		files[f.path] = f.data
		if strings.HasSuffix(f.path, ".json") && !json.Valid(f.data) {
			t.Errorf("%s is no JSON:\n%s", f.path, f.data)
		}
	}
	var mcp struct {
		Servers map[string]struct {
			server
			Env map[string]string `json:"env"`
		} `json:"mcpServers"`
	}
	parse(t, files["claudemesh/.mcp.json"], &mcp)
	s := mcp.Servers[ServerName]
	if setup := (Setup{Command: awkward}); !slices.Equal(s.argv(), setup.server()) || s.Env["CLAUDEMESH_PLUGIN"] != "1" {
		t.Errorf("server %q, env %v", s.argv(), s.Env)
	}
	var hooks struct {
		Modules []string
		Hooks   map[string][]struct{ Hooks []hook }
	}
	parse(t, files["claudemesh/hooks/hooks.json"], &hooks)
	if !slices.Equal(hooks.Modules, []string{"./register.js"}) {
		t.Errorf("modules %q", hooks.Modules)
	}
	rewakes := map[string]bool{"SessionStart": true, "Stop": true}
	for _, event := range []string{"SessionStart", "UserPromptSubmit", "PostToolBatch", "Stop", "SessionEnd"} {
		list := hooks.Hooks[event][0].Hooks
		if want := with(awkward[1:], "hook", event); list[0].Command != awkward[0] || !slices.Equal(list[0].Args, want) || list[0].AsyncRewake {
			t.Errorf("%s: %+v", event, list[0])
		}
		if got := len(list) == 2 && list[1].AsyncRewake && list[1].Timeout == 86400 && slices.Equal(list[1].Args, with(awkward[1:], "hook", "rewake")); got != rewakes[event] {
			t.Errorf("%s: %+v", event, list)
		}
	}
	if len(hooks.Hooks) != 5 {
		t.Errorf("%d events", len(hooks.Hooks))
	}
}

func parse(t *testing.T, data []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
}

// What reaches the model stays below what Claude Code cuts.
func TestSkill(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("plugin", "skills", "claudemesh", "SKILL.md"))
	if err != nil || len(text) >= 2048 || !bytes.HasPrefix(text, []byte("---\nname: claudemesh\ndescription: ")) {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	for _, want := range []string{"list_peers", "reply_to", "not your user", "Thanks need no", "`now`", "`next`", "`low`"} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("it lacks %q", want)
		}
	}
}

func TestPluginVersion(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"v0.1.0 (3f2a9c0d1e5b, 2026-11-23T09:00:00Z)": "0.1.0",
		"v1.2.3-4-gabcdef-dirty":                      "1.2.3-4-gabcdef-dirty",
		"v0.0.0-20261123-abc+dirty (x, y)":            "0.0.0-20261123-abc",
		"dev (845e7e2, 2026-11-23T09:00:00Z)":         "0.0.0-dev",
		"dev":                                         "0.0.0-dev",
		"845e7e2-dirty":                               "0.0.0-dev-845e7e2-dirty",
		"v01.2":                                       "0.0.0-dev-v01-2",
	} {
		if got := pluginVersion(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestNewer(t *testing.T) {
	t.Parallel()
	rising := []string{"0.0.0-dev", "0.0.0", "0.1.0-rc1", "0.1.0", "0.1.1-4-gabc", "0.2.0", "0.10.0", "1.0.0"}
	for i, a := range rising {
		for j, b := range rising {
			if newer(a, b) != (i > j) {
				t.Errorf("newer(%s, %s) is %v", a, b, i <= j)
			}
		}
	}
	if newer("0.0.0-dev-b", "0.0.0-dev-a") {
		t.Error("builds without a version are ordered")
	}
}
