package deploytest

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
)

// flyConfig has the keys of fly.toml that ours use, as Fly documents them:
// https://fly.io/docs/reference/configuration. Any other key fails the test.
type flyConfig struct {
	App           string `toml:"app"`
	PrimaryRegion string `toml:"primary_region"`
	KillSignal    string `toml:"kill_signal"`
	KillTimeout   string `toml:"kill_timeout"`
	Build         struct {
		Dockerfile string `toml:"dockerfile"`
	} `toml:"build"`
	Deploy struct {
		ReleaseCommand string  `toml:"release_command"`
		Strategy       string  `toml:"strategy"` // rolling, immediate, canary, bluegreen
		MaxUnavailable float64 `toml:"max_unavailable"`
	} `toml:"deploy"`
	Env    map[string]string `toml:"env"`
	Mounts struct {
		Source      string `toml:"source"`
		Destination string `toml:"destination"`
	} `toml:"mounts"`
	HTTPService struct {
		InternalPort       int    `toml:"internal_port"`
		ForceHTTPS         bool   `toml:"force_https"`
		AutoStopMachines   string `toml:"auto_stop_machines"` // off, stop, suspend
		AutoStartMachines  bool   `toml:"auto_start_machines"`
		MinMachinesRunning int    `toml:"min_machines_running"`
		Concurrency        struct {
			Type      string `toml:"type"` // connections, requests
			SoftLimit int    `toml:"soft_limit"`
			HardLimit int    `toml:"hard_limit"`
		} `toml:"concurrency"`
		Checks []struct {
			Method      string `toml:"method"`
			Path        string `toml:"path"`
			Interval    string `toml:"interval"`
			Timeout     string `toml:"timeout"`
			GracePeriod string `toml:"grace_period"`
		} `toml:"checks"`
	} `toml:"http_service"`
	VM []struct {
		Size   string `toml:"size"`
		Memory string `toml:"memory"`
	} `toml:"vm"`
}

func duration(t *testing.T, s string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(s)
	check(t, err)
	return d
}

// fly reads a configuration and checks what both forms share.
func fly(t *testing.T, path string) flyConfig {
	t.Helper()
	var c flyConfig
	meta, err := toml.DecodeFile(path, &c)
	check(t, err)
	for _, key := range meta.Undecoded() {
		t.Errorf("%s: Fly documents no %s", path, key)
	}
	for name := range c.Env {
		knownEnv(t, path, name)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(path), c.Build.Dockerfile)); c.Build.Dockerfile == "" || err != nil {
		t.Errorf("%s: Dockerfile %q: %v", path, c.Build.Dockerfile, err)
	}
	if d := duration(t, c.KillTimeout); c.KillSignal != "SIGTERM" || d <= stopWithin || d > 5*time.Minute {
		t.Errorf("%s: %s, killed after %s", path, c.KillSignal, d)
	}
	s := c.HTTPService
	if strconv.Itoa(s.InternalPort) != dockerfile(t).port || !s.ForceHTTPS || s.AutoStopMachines != "off" {
		t.Errorf("%s: %+v", path, s)
	}
	if k := s.Concurrency; k.Type != "connections" || k.SoftLimit <= 0 || k.HardLimit <= k.SoftLimit {
		t.Errorf("%s: %+v", path, k)
	}
	if len(s.Checks) != 1 || s.Checks[0].Path != "/health/ready" || s.Checks[0].Method != "GET" {
		t.Fatalf("%s: checks %+v", path, s.Checks)
	}
	probed(t, path, s.Checks[0].Path)
	if duration(t, s.Checks[0].Timeout) > duration(t, s.Checks[0].Interval) || duration(t, s.Checks[0].GracePeriod) == 0 {
		t.Errorf("%s: %+v", path, s.Checks[0])
	}
	if len(c.VM) != 1 || !regexp.MustCompile(`^(shared-cpu|performance)-\d+x$`).MatchString(c.VM[0].Size) || !regexp.MustCompile(`^\d+[mg]b$`).MatchString(c.VM[0].Memory) {
		t.Errorf("%s: vm %+v", path, c.VM)
	}
	if c.Env["CLAUDEMESH_BROKER_PUBLIC_URL"] != "https://"+c.App+".fly.dev" || c.Env["CLAUDEMESH_BROKER_CLIENT_IP_HEADER"] != "Fly-Client-IP" {
		t.Errorf("%s: %v", path, c.Env)
	}
	return c
}

// One machine, whose volume holds the image's database.
func TestFlyFile(t *testing.T) {
	c := fly(t, "../../fly.toml")
	if c.Mounts.Source == "" || filepath.Dir(dockerfile(t).env["CLAUDEMESH_BROKER_DB"]) != c.Mounts.Destination {
		t.Errorf("mounts %+v", c.Mounts)
	}
	if c.HTTPService.MinMachinesRunning != 1 || c.Deploy.ReleaseCommand != "" {
		t.Errorf("%+v", c)
	}
}

// Two machines or more, whose database is a secret's.
func TestFlyPostgres(t *testing.T) {
	c := fly(t, "../fly-postgres.toml")
	if c.Mounts.Source != "" || c.HTTPService.MinMachinesRunning < 2 || c.Deploy.Strategy != "rolling" || c.Deploy.MaxUnavailable != 1 {
		t.Errorf("%+v", c)
	}
	knownCommand(t, "release_command", c.Deploy.ReleaseCommand)
	if c.Deploy.ReleaseCommand == "" {
		t.Error("no release command")
	}
	for _, secret := range []string{"CLAUDEMESH_BROKER_DB", "CLAUDEMESH_BROKER_ADMIN_TOKEN"} {
		knownEnv(t, "secrets", secret)
		if c.Env[secret] != "" {
			t.Errorf("%s stands in the file", secret)
		}
		if !regexp.MustCompile(`fly secrets set[^\n]*(\\\n# *[^\n]*)*` + secret + `=`).MatchString(read(t, "../fly-postgres.toml")) {
			t.Errorf("no command sets %s", secret)
		}
	}
}
