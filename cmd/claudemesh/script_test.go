package main_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// binDir holds the real binaries, built once for the run.
var binDir string

func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Lookup("test.fuzz").Value.String() != "" { // each of the fuzzer's processes would build them
		os.Exit(m.Run())
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "claudemesh-test")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		binDir = dir
		build := exec.Command("go", "build", "-o", dir+string(filepath.Separator), ".", "../claudemesh-broker")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// members are the commands that run claudemesh with a directory of that name.
var members = []string{"alice", "bob", "carol", "nobody"}

func TestScripts(t *testing.T) {
	t.Parallel()
	cmds := map[string]func(*testscript.TestScript, bool, []string){
		"broker": cmdBroker, "mesh": cmdMesh, "agent": cmdAgent, "localbroker": cmdLocalBroker, "let": cmdLet, "jsonhas": cmdJSONHas, "jsonkeys": cmdJSONKeys,
	}
	for _, name := range members {
		cmds[name] = func(ts *testscript.TestScript, neg bool, args []string) {
			claudemesh(ts, 0, name, args)
		}
	}
	for _, code := range []int{1, 2, 3, 4, 5, 6, 7, 130} {
		cmds["exit"+strconv.Itoa(code)] = func(ts *testscript.TestScript, neg bool, args []string) {
			claudemesh(ts, code, args[0], args[1:])
		}
	}
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"), Cmds: cmds,
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", binDir+string(filepath.ListSeparator)+os.Getenv("PATH"))
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("BIN", binDir)
			e.Setenv("CLAUDEMESH_TOKEN", "secret-token")
			e.Values["world"] = &world{agents: map[string]*agent{}}
			e.Defer(e.Values["world"].(*world).end)
			e.Defer(func() { killLocalBrokers(e.WorkDir) })
			return nil
		},
	})
}

// world is what runs beside a script.
type world struct {
	broker *exec.Cmd
	listen string
	agents map[string]*agent
}

func worldOf(ts *testscript.TestScript) *world { return ts.Value("world").(*world) }

func (w *world) end() {
	for _, a := range w.agents {
		a.stop()
	}
	w.killBroker()
}

func (w *world) killBroker() {
	if w.broker != nil {
		_ = w.broker.Process.Kill()
		_ = w.broker.Wait()
		w.broker = nil
	}
}

// claudemesh runs the program for a member and checks its exit code.
func claudemesh(ts *testscript.TestScript, want int, name string, args []string) {
	argv := append([]string{"--config-dir", filepath.Join(ts.Getenv("WORK"), name)}, args...)
	if name == "claudemesh" {
		argv = args
	}
	err := ts.Exec("claudemesh", argv...)
	got := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("claudemesh: %v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// broker start|kill: a real broker on a free port; after a kill -9 it comes back on the same one.
func cmdBroker(ts *testscript.TestScript, _ bool, args []string) {
	w := worldOf(ts)
	switch args[0] {
	case "kill":
		w.killBroker()
	case "start":
		if w.listen == "" {
			w.listen = "127.0.0.1:0"
		}
		url := w.startBroker(ts, args[1:])
		w.listen = strings.TrimSuffix(strings.TrimPrefix(url, "ws://"), "/ws")
		ts.Setenv("CLAUDEMESH_BROKER_URL", url)
		ts.Setenv("HOSTPORT", w.listen)
	default:
		ts.Fatalf("broker start|kill")
	}
}

func (w *world) startBroker(ts *testscript.TestScript, more []string) (url string) {
	work := ts.Getenv("WORK")
	log := filepath.Join(work, "broker.log")
	f, err := os.Create(log)
	ts.Check(err)
	defer f.Close()
	args := append([]string{"--db", filepath.Join(work, "mesh.db"), "--listen", w.listen, "--admin-token", "secret-token"}, more...)
	w.broker = exec.Command(filepath.Join(binDir, "claudemesh-broker"), args...)
	w.broker.Stdout, w.broker.Stderr = f, f
	ts.Check(w.broker.Start())
	for range 3000 {
		raw, _ := os.ReadFile(log)
		if _, rest, ok := strings.Cut(string(raw), "listening on ws://"); ok && strings.Contains(rest, "\n") {
			return "ws://" + strings.Fields(rest)[0]
		}
		time.Sleep(20 * time.Millisecond)
	}
	raw, _ := os.ReadFile(log)
	ts.Fatalf("the broker did not start:\n%s", raw)
	return ""
}

// mesh NAME...: alice founds acme at a new broker, and these members join it.
func cmdMesh(ts *testscript.TestScript, _ bool, names []string) {
	cmdBroker(ts, false, []string{"start"})
	claudemesh(ts, 0, "alice", []string{"new", "acme", "--as", "alice"})
	if len(names) == 0 {
		return
	}
	claudemesh(ts, 0, "alice", []string{"invite", "--uses", strconv.Itoa(len(names))})
	link := strings.TrimSpace(ts.ReadFile("stdout"))
	for _, name := range names {
		claudemesh(ts, 0, name, []string{"join", link, "--as", name})
	}
}

// let VAR FILE [PATH|/REGEXP/]: the first line of a file, a value of its JSON,
// or what matches in it, becomes a variable.
func cmdLet(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile(args[1])
	if len(args) == 3 && strings.HasPrefix(args[2], "/") {
		ts.Setenv(args[0], regexp.MustCompile(strings.Trim(args[2], "/")).FindString(text))
		return
	}
	if len(args) == 3 {
		v, err := lookUp(text, args[2])
		ts.Check(err)
		ts.Setenv(args[0], fmt.Sprint(v))
		return
	}
	line, _, _ := strings.Cut(text, "\n")
	ts.Setenv(args[0], line)
}

// jsonhas FILE PATH [VALUE]: the path exists and has that value; # is a length.
func cmdJSONHas(ts *testscript.TestScript, neg bool, args []string) {
	v, err := lookUp(ts.ReadFile(args[0]), args[1])
	ok := err == nil && (len(args) == 2 || fmt.Sprint(v) == args[2])
	if ok == neg {
		ts.Fatalf("%s is %v (%v)", args[1], v, err)
	}
}

// jsonkeys FILE PATH KEY...: the object there has these keys and no others.
func cmdJSONKeys(ts *testscript.TestScript, _ bool, args []string) {
	v, err := lookUp(ts.ReadFile(args[0]), args[1])
	ts.Check(err)
	object, ok := v.(map[string]any)
	if !ok {
		ts.Fatalf("%s is no object", args[1])
	}
	var got []string
	for k := range object {
		got = append(got, k)
	}
	want := slices.Clone(args[2:])
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		ts.Fatalf("%s has %v, want %v", args[1], got, want)
	}
}

func lookUp(text, path string) (any, error) {
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return nil, fmt.Errorf("%w in %q", err, text)
	}
	for step := range strings.SplitSeq(strings.Trim(path, "."), ".") {
		if step == "" {
			continue
		}
		switch x := v.(type) {
		case map[string]any:
			next, ok := x[step]
			if !ok {
				return nil, fmt.Errorf("no %s", step)
			}
			v = next
		case []any:
			if step == "#" {
				v = len(x)
				continue
			}
			i, err := strconv.Atoi(step)
			if err != nil || i >= len(x) {
				return nil, fmt.Errorf("no %s among %d", step, len(x))
			}
			v = x[i]
		default:
			return nil, fmt.Errorf("no %s in %v", step, v)
		}
	}
	return v, nil
}
