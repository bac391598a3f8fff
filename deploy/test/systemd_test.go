package deploytest

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const unitName = "claudemesh-broker.service"

// maxExposure is what systemd may rate the unit at most, of 100, in any form.
// What is left is chiefly that it talks to the internet.
const maxExposure = 14

// directives returns the settings of a unit's text; repeated ones follow one another.
func directives(text string) map[string][]string {
	out := map[string][]string{}
	for _, line := range strings.Split(text, "\n") {
		if name, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			out[name] = append(out[name], value)
		}
	}
	return out
}

// lay makes a directory of units with ours, started with the program that was
// built, and the drop-ins.
func lay(t *testing.T, dropIns ...string) string {
	t.Helper()
	dir := t.TempDir()
	text := strings.Replace(read(t, "../"+unitName), "ExecStart=/usr/local/bin/claudemesh-broker", "ExecStart="+program, 1)
	check(t, os.WriteFile(filepath.Join(dir, unitName), []byte(text), 0o600))
	check(t, os.Mkdir(filepath.Join(dir, unitName+".d"), 0o700))
	for _, name := range dropIns {
		check(t, os.WriteFile(filepath.Join(dir, unitName+".d", name), []byte(read(t, "../"+unitName+".d/"+name)), 0o600))
	}
	return dir
}

// analyze runs systemd-analyze, which CI must have.
func analyze(t *testing.T, dir string, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || strings.Contains(stderr.String(), dir) || strings.Contains(stderr.String(), unitName) {
		t.Errorf("systemd-analyze %v: %v\n%s%s", args, err, stderr.String(), out)
	}
	return out
}

var forms = map[string][]string{"file": nil, "postgres": {"postgres.conf"}, "port 443": {"port443.conf"}, "both": {"postgres.conf", "port443.conf"}}

func TestUnit(t *testing.T) {
	for form, dropIns := range forms {
		t.Run(form, func(t *testing.T) {
			dir := lay(t, dropIns...)
			analyze(t, dir, "verify", "--man=no", filepath.Join(dir, unitName))
			analyze(t, dir, "security", "--offline=true", "--threshold="+strconv.Itoa(maxExposure), filepath.Join(dir, unitName))
		})
	}
}

// Every drop-in belongs to a form above, and every variable is read.
func TestUnitSettings(t *testing.T) {
	files, err := filepath.Glob("../" + unitName + ".d/*")
	check(t, err)
	for _, path := range files {
		if !slices.Contains(forms["both"], filepath.Base(path)) {
			t.Errorf("%s is not tested", path)
		}
	}
	text := read(t, "../"+unitName)
	for _, path := range append(files, "../"+unitName) {
		d := directives(read(t, path))
		loaded := strings.Join(append(d["LoadCredential"], directives(text)["LoadCredential"]...), " ")
		for _, setting := range d["Environment"] {
			name, value, _ := strings.Cut(setting, "=")
			knownEnv(t, path, name)
			if key, ok := strings.CutPrefix(value, "%d/"); ok && !strings.Contains(loaded, key+":/etc/claudemesh/"+key) {
				t.Errorf("%s: %s is no credential", path, value)
			}
		}
		for _, credential := range d["LoadCredential"] {
			_, file, _ := strings.Cut(credential, ":")
			if !strings.Contains(read(t, path), "sudo install -m 600 /dev/stdin "+file) {
				t.Errorf("%s: no command makes %s", path, file)
			}
		}
	}
	if stop := duration(t, directives(text)["TimeoutStopSec"][0]+"s"); stop <= stopWithin {
		t.Errorf("killed after %s", stop)
	}
}

// A port below 1024 is all that a capability is for.
func TestUnitCapabilities(t *testing.T) {
	const bind = "CAP_NET_BIND_SERVICE"
	for path, want := range map[string]string{"../" + unitName: "", "../" + unitName + ".d/port443.conf": bind} {
		d := directives(read(t, path))
		for _, name := range []string{"AmbientCapabilities", "CapabilityBoundingSet"} {
			if !slices.Equal(d[name], []string{want}) {
				t.Errorf("%s: %s is %q, want %q", path, name, d[name], want)
			}
		}
	}
}
