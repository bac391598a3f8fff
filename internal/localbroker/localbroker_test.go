package localbroker_test

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/claudemesh/claudemesh/internal/brokerfile"
	"github.com/claudemesh/claudemesh/internal/localbroker"
	"github.com/claudemesh/claudemesh/internal/meshtest"
	"github.com/claudemesh/claudemesh/internal/process"
)

// program is the real broker, built once for the run.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "localbroker-test")
	if err != nil {
		panic(err)
	}
	program = filepath.Join(dir, localbroker.Program)
	if runtime.GOOS == "windows" {
		program += ".exe"
	}
	if out, err := exec.Command("go", "build", "-o", program, "../../cmd/claudemesh-broker").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// in returns a local broker that is stopped at the end of the test.
func in(t *testing.T) *localbroker.Broker {
	t.Helper()
	b := localbroker.In(filepath.Join(t.TempDir(), "broker"))
	check(t, os.Mkdir(b.Dir(), 0o700))
	check(t, b.Remember(meshtest.Loopback()))
	t.Cleanup(func() {
		if _, _, err := b.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return b
}

func start(t *testing.T, b *localbroker.Broker) brokerfile.Running {
	t.Helper()
	r, err := b.Start(t.Context(), program)
	check(t, err)
	check(t, b.Remember(r.URL))
	return r
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestStartStop(t *testing.T) {
	t.Parallel()
	if none := localbroker.In(filepath.Join(t.TempDir(), "broker")); none.Exists() || none.URL() != "" {
		t.Error("there is something before the first start")
	}
	b := in(t)
	if _, ok := b.Running(); ok || b.Exists() {
		t.Error("it runs before the first start")
	}
	if _, ran, err := b.Stop(t.Context()); ran || err != nil {
		t.Errorf("stopped what does not run: %v, %v", ran, err)
	}
	r := start(t, b)
	if got, ok := b.Running(); !ok || got != r || !b.Exists() || b.URL() != r.URL {
		t.Errorf("%+v, %v, want %+v", got, ok, r)
	}
	token, err := brokerfile.ReadToken(b.TokenPath())
	check(t, err)
	log, err := os.ReadFile(b.LogPath())
	check(t, err)
	if strings.Contains(string(log), token) || strings.Contains(string(log), "admin token") {
		t.Errorf("the token is in the log: %s", log)
	}
	private(t, b.Dir())
	if was, ran, err := b.Stop(t.Context()); was != r || !ran || err != nil || r.Alive() {
		t.Errorf("%+v, %v, %v", was, ran, err)
	}
	if again := start(t, b); again.URL != r.URL || again.Process == r.Process {
		t.Errorf("%+v after %+v", again, r)
	}
	if kept, err := brokerfile.ReadToken(b.TokenPath()); err != nil || kept != token {
		t.Errorf("another token: %v", err)
	}
}

// private: nothing is open to other users.
func private(t *testing.T, dir string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		return
	}
	check(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	}))
}

// One that was killed left its run file, which names nobody; so does one whose
// number another process has.
func TestStale(t *testing.T) {
	t.Parallel()
	b := in(t)
	r := start(t, b)
	p, err := os.FindProcess(r.PID)
	check(t, err)
	check(t, p.Kill())
	for r.Alive() { // the test's timeout ends it
		runtime.Gosched()
	}
	if _, ok := b.Running(); ok {
		t.Error("a killed broker runs")
	}
	other := brokerfile.Running{Process: process.Self(), URL: r.URL}
	other.Started++
	check(t, other.Write(filepath.Join(b.Dir(), "run.json")))
	if _, ran, err := b.Stop(t.Context()); ran || err != nil { // or this test were gone
		t.Errorf("stopped another process: %v, %v", ran, err)
	}
	if again := start(t, b); again.URL != r.URL {
		t.Errorf("%s, want %s", again.URL, r.URL)
	}
}

func TestPortTaken(t *testing.T) {
	t.Parallel()
	b := in(t)
	r := start(t, b)
	_, _, err := b.Stop(t.Context())
	check(t, err)
	u, err := url.Parse(r.URL)
	check(t, err)
	ln, err := net.Listen("tcp", u.Host)
	check(t, err)
	defer ln.Close()
	if again := start(t, b); again.URL == r.URL || b.URL() != again.URL {
		t.Errorf("%s at a taken port", again.URL)
	}
}

// Without anything remembered it takes the usual port, or another where that is taken.
func TestFirstPort(t *testing.T) {
	t.Parallel()
	b := in(t)
	check(t, os.Remove(filepath.Join(b.Dir(), "url")))
	if r := start(t, b); !strings.HasPrefix(r.URL, "ws://127.0.0.1:") || b.URL() != r.URL {
		t.Errorf("%s, remembered %s", r.URL, b.URL())
	}
}

// A broker that cannot start says why, and nothing of it stays.
func TestFails(t *testing.T) {
	t.Parallel()
	b := in(t)
	check(t, os.MkdirAll(b.Database(), 0o700)) // a directory in the file's place
	_, err := b.Start(t.Context(), program)
	if !errors.Is(err, localbroker.ErrNotReady) || !strings.Contains(err.Error(), "mesh.db") {
		t.Errorf("%v", err)
	}
	if _, ok := b.Running(); ok {
		t.Error("it runs")
	}
}

// Who gives up while the broker starts leaves none behind.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	b := in(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Start(ctx, program); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, ok := b.Running(); ok {
		t.Error("it runs")
	}
}

func TestLog(t *testing.T) {
	t.Parallel()
	b := in(t)
	check(t, os.WriteFile(b.LogPath(), make([]byte, 2<<20), 0o600))
	start(t, b)
	if st, err := os.Stat(b.LogPath()); err != nil || st.Size() > 1<<20 {
		t.Errorf("the log was not put aside: %v, %v", st, err)
	}
	if st, err := os.Stat(b.LogPath() + ".1"); err != nil || st.Size() != 2<<20 {
		t.Errorf("the old one: %v, %v", st, err)
	}
}

func TestLock(t *testing.T) {
	t.Parallel()
	b := in(t)
	release, err := b.Lock(t.Context())
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Lock(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("locked twice: %v", err)
	}
	check(t, release())
	release, err = b.Lock(t.Context())
	check(t, err)
	check(t, release())
}

func TestFind(t *testing.T) {
	if got, err := localbroker.Find(filepath.Join(filepath.Dir(program), "claudemesh")); err != nil || got != program {
		t.Errorf("beside: %s, %v", got, err)
	}
	t.Setenv("PATH", filepath.Dir(program))
	elsewhere := filepath.Join(t.TempDir(), "claudemesh")
	if got, err := localbroker.Find(elsewhere); err != nil || got != program {
		t.Errorf("on PATH: %s, %v", got, err)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := localbroker.Find(elsewhere); !errors.Is(err, localbroker.ErrNoProgram) {
		t.Errorf("%v", err)
	}
}

// What either manager is given is what it reads back, whatever the paths hold.
func TestServiceFiles(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), `a b"c%d$e\<&>`)
	if runtime.GOOS == "windows" {
		t.Skip("no such names")
	}
	b := localbroker.In(filepath.Join(dir, ".claudemesh", "broker"))
	unit, err := b.Service(localbroker.User{OS: "linux", Home: dir})
	check(t, err)
	check(t, b.WriteService(t.Context(), unit, program))
	text := read(t, unit.Path)
	if want := filepath.Join(dir, ".config", "systemd", "user", "claudemesh-broker.service"); unit.Path != want {
		t.Errorf("%s, want %s", unit.Path, want)
	}
	if want := `a b\"c%%d$$e\\<&>/.claudemesh/broker/mesh.db" "--listen" "127.0.0.1:`; !strings.Contains(text, want) {
		t.Errorf("no %s in\n%s", want, text)
	}
	agent, err := b.Service(localbroker.User{OS: "darwin", Home: dir, UID: 501})
	check(t, err)
	check(t, b.WriteService(t.Context(), agent, program))
	var texts []string
	d := xml.NewDecoder(strings.NewReader(read(t, agent.Path)))
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		check(t, err)
		if s, ok := token.(xml.CharData); ok {
			texts = append(texts, string(s))
		}
	}
	for _, want := range []string{program, b.Database(), b.TokenPath(), b.LogPath(), "com.claudemesh.broker"} {
		if !strings.Contains(strings.Join(texts, "\x00"), want) {
			t.Errorf("no %s in %q", want, texts)
		}
	}
	other, err := localbroker.In(filepath.Join(dir, "other")).Service(localbroker.User{OS: "linux", Home: dir})
	if err != nil || other.Name == unit.Name {
		t.Errorf("%s, %v", other.Name, err)
	}
	if _, err := b.Service(localbroker.User{OS: "plan9", Home: dir}); !errors.Is(err, localbroker.ErrNoService) {
		t.Errorf("%v", err)
	}
	bad := localbroker.In(filepath.Join(dir, "a\nExecStartPre=x"))
	if s, err := bad.Service(localbroker.User{OS: "linux", Home: dir}); err != nil || !errors.Is(bad.WriteService(t.Context(), s, program), localbroker.ErrBadPath) {
		t.Errorf("a path with a line break was taken: %v", err)
	}
}

// directives returns the settings of a unit, each with all its values.
func directives(unit string) map[string][]string {
	out := map[string][]string{}
	for line := range strings.Lines(unit) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(name, "#") {
			out[name] = append(out[name], value)
		}
	}
	return out
}

// What the user's unit denies, the system's in deploy/ denies too, and both are
// restarted and stopped alike.
func TestServiceOfSystem(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	b := localbroker.In(filepath.Join(home, ".claudemesh", "broker"))
	unit, err := b.Service(localbroker.User{OS: "linux", Home: home})
	check(t, err)
	check(t, b.WriteService(t.Context(), unit, program))
	system := directives(read(t, "../../deploy/claudemesh-broker.service"))
	compared := 0
	for name, values := range directives(read(t, unit.Path)) {
		if slices.Contains([]string{"Description", "ExecStart", "WantedBy"}, name) {
			continue
		}
		for _, v := range values {
			compared++
			if !slices.Contains(system[name], v) {
				t.Errorf("the user's unit has %s=%s, the system's %q", name, v, system[name])
			}
		}
	}
	if compared < 10 {
		t.Errorf("%d settings compared", compared)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	check(t, err)
	return string(raw)
}
