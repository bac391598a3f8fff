package deploytest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stopWithin is what a broker takes at most to stop; whoever stops it waits longer.
const stopWithin = 8 * time.Second

// program is the broker, built by TestMain.
var program string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "claudemesh-deploy-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "claudemesh-broker")
	build := exec.Command("go", "build", "-o", program, "./cmd/claudemesh-broker")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
		return 1
	}
	return m.Run()
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	check(t, err)
	return string(raw)
}

// help is what the broker says of itself.
func help(t *testing.T) string {
	t.Helper()
	out, err := exec.Command(program, "--help").Output()
	check(t, err)
	return string(out)
}

// knownEnv fails for variables that neither the broker nor Go's runtime reads.
func knownEnv(t *testing.T, where string, names ...string) {
	t.Helper()
	text := help(t)
	for _, name := range names {
		if name != "GOMEMLIMIT" && !strings.Contains(text, "[$"+name+"]") {
			t.Errorf("%s: the broker reads no %s", where, name)
		}
	}
}

// knownCommand fails for arguments whose first is no command of the broker.
func knownCommand(t *testing.T, where string, args ...string) {
	t.Helper()
	if len(args) > 0 && !strings.Contains(help(t), "\n   "+args[0]+" ") {
		t.Errorf("%s: the broker has no command %s", where, args[0])
	}
}

// start runs a broker on a file of its own and returns its address, HOST:PORT,
// and what stops it.
func start(t *testing.T, args ...string) (addr string, stop func()) {
	t.Helper()
	dir := t.TempDir()
	runFile := filepath.Join(dir, "run.json")
	cmd := exec.Command(program, append([]string{"--db", filepath.Join(dir, "mesh.db"), "--listen", "127.0.0.1:0", "--run-file", runFile}, args...)...)
	check(t, cmd.Start())
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			_ = cmd.Process.Signal(syscall.SIGTERM)
			_ = cmd.Wait()
		}
	}
	t.Cleanup(stop)
	var running struct{ URL string }
	within(t, "the broker's run file", func() bool {
		raw, err := os.ReadFile(runFile)
		return err == nil && json.Unmarshal(raw, &running) == nil
	})
	return strings.TrimSuffix(strings.TrimPrefix(running.URL, "ws://"), "/ws"), stop
}

// within polls.
func within(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// status asks for a path and returns the answer's status, 0 for none.
func status(t *testing.T, addr, path string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
	check(t, err)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// probed fails unless a broker that serves answers 200 on the paths.
func probed(t *testing.T, where string, paths ...string) {
	t.Helper()
	addr, _ := start(t)
	for _, path := range paths {
		if got := status(t, addr, path); got != http.StatusOK {
			t.Errorf("%s: the broker answers %s with %d", where, path, got)
		}
	}
}

// image is what the Dockerfile says of the image.
type image struct {
	env  map[string]string
	port string
	user string
}

func dockerfile(t *testing.T) image {
	t.Helper()
	text := read(t, "../../Dockerfile")
	text = text[strings.LastIndex(text, "\nFROM "):]
	img := image{env: map[string]string{}}
	for _, line := range strings.Split(text, "\n") {
		word, rest, _ := strings.Cut(line, " ")
		switch word {
		case "ENV":
			for _, pair := range strings.Fields(rest) {
				name, value, _ := strings.Cut(pair, "=")
				img.env[name] = value
			}
		case "EXPOSE":
			img.port = rest
		case "USER":
			img.user = rest
		}
	}
	if img.env["CLAUDEMESH_BROKER_LISTEN"] != ":"+img.port {
		t.Fatalf("the image listens on %q and exposes %q", img.env["CLAUDEMESH_BROKER_LISTEN"], img.port)
	}
	return img
}

// TestNamedFiles: the files that the documents send an operator to are there.
func TestNamedFiles(t *testing.T) {
	named := regexp.MustCompile(`\bdeploy/[\w./-]*\w`)
	for _, doc := range []string{"../../README.md", "../../docs/operations.md", "../../docs/scaling.md"} {
		for _, path := range named.FindAllString(read(t, doc), -1) {
			if _, err := os.Stat(filepath.Join("../..", path)); err != nil {
				t.Errorf("%s names %s: %v", doc, path, err)
			}
		}
	}
}

// TestMeasured: what docs/scaling.md computes from is what was measured last.
func TestMeasured(t *testing.T) {
	scaling, measured := read(t, "../../docs/scaling.md"), read(t, "../../docs/performance.md")
	for _, figure := range []string{"37.4 KiB", "20.6 MiB", "372 us", "12.5 to 14.4 s", "at most 165"} {
		if !strings.Contains(scaling, figure) || !strings.Contains(measured, figure) {
			t.Errorf("%s is not in both: compute anew", figure)
		}
	}
}
