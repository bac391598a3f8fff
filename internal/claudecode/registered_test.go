package claudecode

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestHas(t *testing.T) {
	t.Parallel()
	home, config := t.TempDir(), t.TempDir()
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if h := Find("", home, "", home).Has(); h != (Has{}) {
		t.Errorf("nothing there: %+v", h)
	}
	write(filepath.Join(home, ".claude.json"), `{"mcpServers":{"claudemesh":{"command":"claudemesh"}}}`)
	if h := Find("", home, "", home).Has(); h != (Has{Server: true}) {
		t.Errorf("the server: %+v", h)
	}
	write(filepath.Join(home, ".claude", "settings.json"), `{"enabledPlugins":{"claudemesh@claudemesh":true,"x@y":["1"]}}`)
	if h := Find("", home, "", home).Has(); h != (Has{Server: true, Plugin: true}) {
		t.Errorf("both: %+v", h)
	}
	if h := Find("", home, config, home).Has(); h != (Has{}) {
		t.Errorf("another directory: %+v", h)
	}
	write(filepath.Join(config, "settings.json"), `{"enabledPlugins":{"claudemesh@claudemesh":true}}`)
	write(filepath.Join(config, ".claude.json"), `{"mcpServers":[]}`)
	if h := Find("", home, config, home).Has(); h != (Has{Plugin: true}) {
		t.Errorf("there: %+v", h)
	}
	write(filepath.Join(config, "settings.json"), `{"enabledPlugins":{"claudemesh@claudemesh":false}}`)
	if h := Find("", home, config, home).Has(); h != (Has{}) {
		t.Errorf("a disabled plugin: %+v", h)
	}
}

func TestChannelArgs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		has  Has
		args []string
		want []string
	}{
		{Has{}, nil, []string{"--dangerously-load-development-channels=server:claudemesh"}},
		{Has{Plugin: true, Server: true}, []string{"--continue"}, []string{"--dangerously-load-development-channels=plugin:claudemesh@claudemesh"}},
		{Has{}, []string{"--channels", "plugin:a@b"}, nil},
		{Has{}, []string{"--dangerously-load-development-channels=server:x"}, nil},
	} {
		if got := c.has.ChannelArgs(c.args); !slices.Equal(got, c.want) {
			t.Errorf("%+v %v: %v, want %v", c.has, c.args, got, c.want)
		}
	}
}
