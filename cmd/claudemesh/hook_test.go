package main_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/process"
	"github.com/claudemesh/claudemesh/internal/wire"
)

const ofSession = `{"session_id":"s1","hook_event_name":"Stop","cwd":"/w"}`

// desk is a config directory with a mailbox, and this process as the agent that hooks serve.
type desk struct {
	testing.TB
	dir string
	env []string
	box mailbox.Mailbox
}

func newDesk(t testing.TB) *desk {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "mesh")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d := &desk{TB: t, dir: dir, env: append(os.Environ(), "CLAUDEMESH_CONFIG_DIR="+dir, "HOME="+t.TempDir(),
		"CLAUDE_PID="+strconv.Itoa(os.Getpid()), "CLAUDE_CODE_SESSION_ATTENDED=1")}
	return d
}

// open makes the mailbox, and the agent's record in it.
func (d *desk) open() *desk {
	d.Helper()
	var err error
	if d.box, err = mailbox.Open(context.Background(), filepath.Join(d.dir, "mailbox.db")); err != nil {
		d.Fatal(err)
	}
	d.Cleanup(func() { _ = d.box.Close() })
	d.put(mailbox.Agent{Process: process.Self(), Mode: mailbox.Push, Cwd: "/work/web", Server: process.Self(), Seats: []mailbox.AgentSeat{
		{Mesh: wire.ID{1}, Name: "acme", Key: wire.Key{1}, Member: wire.Key{2}, Self: "alice/web", Online: true, Peers: 3},
	}})
	return d
}

func (d *desk) put(a mailbox.Agent) {
	d.Helper()
	if err := d.box.PutAgent(context.Background(), a); err != nil {
		d.Fatal(err)
	}
}

func (d *desk) receive(n byte, text string) {
	d.Helper()
	_, _, err := d.box.Receive(context.Background(), []mailbox.Incoming{{
		Mesh: wire.ID{1}, Recipient: wire.Key{1}, SenderMember: wire.Key{7}, SenderSession: wire.Key{8}, SenderName: "bob/api",
		ID: wire.ID{n, 1}, Mode: wire.ModeDM, Priority: wire.PriorityNext, Text: text, Sent: 5, Expires: 1 << 50, Received: 5,
	}})
	if err != nil {
		d.Fatal(err)
	}
}

func (d *desk) free() int {
	d.Helper()
	msgs, _, err := d.box.List(context.Background(), mailbox.Query{Recipients: []wire.Key{{1}}, Now: time.Now().UnixMilli()})
	if err != nil {
		d.Fatal(err)
	}
	return len(msgs)
}

func (d *desk) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	d.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, filepath.Join(binDir, "claudemesh"), args...)
	cmd.Env = d.env
	return cmd
}

// run runs the program and returns what it prints and its exit code.
func (d *desk) run(stdin string, args ...string) (out, errs string, code int) {
	d.Helper()
	cmd := d.command(args...)
	var o, e bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &o, &e
	if err := cmd.Run(); cmd.ProcessState == nil {
		d.Fatal(err)
	}
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

// silent checks that a hook says nothing and does no harm.
func (d *desk) silent(stdin string, args ...string) {
	d.Helper()
	if out, errs, code := d.run(stdin, args...); out != "" || errs != "" || code != 0 {
		d.Errorf("%q: %q, %q, exit %d", args, out, errs, code)
	}
}

// log returns what the audit log holds.
func (d *desk) log() string {
	d.Helper()
	path := filepath.Join(d.dir, "hooks.log")
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	if info.Mode().Perm() != 0o600 {
		d.Errorf("the log has mode %v", info.Mode())
	}
	text, _ := os.ReadFile(path)
	return string(text)
}

func TestHookWithoutAMesh(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.silent(ofSession, "hook", "Stop")
	d.silent(ofSession, "hook", "rewake")
	d.silent(ofSession, "statusline")
	gone := filepath.Join(d.dir, "gone")
	d.silent(ofSession, "--config-dir", gone, "hook", "SessionStart")
	d.silent("garbage", "--config-dir="+gone, "hook", "rewake")
	if entries, err := os.ReadDir(d.dir); len(entries) > 0 || err != nil {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// Who has left every mesh is as one who joined none.
func TestHookAfterLeaving(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	if err := os.WriteFile(filepath.Join(d.dir, "config.json"), []byte(`{"version":1,"meshes":[]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	d.silent(ofSession, "hook", "rewake")
	d.silent(ofSession, "hook", "Stop")
	if _, err := os.Stat(filepath.Join(d.dir, "mailbox.db")); err == nil {
		t.Error("a mailbox was made")
	}
}

func TestHookPrompt(t *testing.T) {
	t.Parallel()
	d := newDesk(t).open()
	d.silent(ofSession, "hook", "UserPromptSubmit")
	d.receive(1, "the schema changed")
	out, errs, code := d.run(ofSession, "hook", "UserPromptSubmit")
	var answer map[string]map[string]string
	if err := json.Unmarshal([]byte(out), &answer); err != nil || errs != "" || code != 0 {
		t.Fatalf("%s %s %v", out, errs, err)
	}
	said := answer["hookSpecificOutput"]
	if said["hookEventName"] != "UserPromptSubmit" || !strings.Contains(said["additionalContext"], "the schema changed") {
		t.Errorf("%v", said)
	}
	d.silent(ofSession, "hook", "Stop") // which proves that it was read
	if owed, err := d.box.Unreceipted(context.Background(), wire.ID{1}, wire.Key{1}, 0); len(owed) != 1 || err != nil {
		t.Errorf("owed %v, %v", owed, err)
	}
	if d.log() != "" {
		t.Errorf("log: %s", d.log())
	}
}

func TestHookRewake(t *testing.T) {
	t.Parallel()
	d := newDesk(t).open()
	d.env = append(d.env, "CLAUDEMESH_CONFIG_DIR=relative") // its warning must not reach the model
	d.receive(1, "wake up")
	out, errs, code := d.run(ofSession, "--config-dir", d.dir, "hook", "rewake")
	if out != "" || code != 2 || !strings.HasPrefix(errs, `<peer-message from="bob/api" mesh="acme"`) || !strings.HasSuffix(errs, "wake up\n</peer-message>") {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
	d.env = append(d.env, "CLAUDE_CODE_SESSION_ATTENDED=0")
	d.receive(2, "one-shot")
	d.silent(ofSession, "--config-dir", d.dir, "hook", "rewake")
	if d.free() != 1 {
		t.Error("it took the message")
	}
}

func TestHookRewakeTerminated(t *testing.T) {
	t.Parallel()
	d := newDesk(t).open()
	cmd := d.command("hook", "rewake")
	cmd.Stdin = strings.NewReader(ofSession)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for { // a test's timeout ends it
		a, err := d.box.Agent(context.Background(), os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if a.Waiter.Alive() {
			if a.Waiter.PID != cmd.Process.Pid || a.Wake() != mailbox.ByRewake {
				t.Fatalf("%+v", a.Waiter)
			}
			break
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if d.log() != "" {
		t.Errorf("log: %s", d.log())
	}
}

// Whatever is wrong, a hook ends with 0, prints nothing, and says so in its log.
func TestHookFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		stdin string
		event string
		spoil func(*desk)
		want  string
	}{
		"garbage":       {"garbage", "Stop", nil, "invalid character"},
		"no session":    {"{}", "Stop", nil, "names no session"},
		"unknown event": {ofSession, "Future", nil, `no event is called "Future"`},
		"too large":     {`{"prompt":"` + strings.Repeat("secret", 200_000), "UserPromptSubmit", nil, "larger than 1 MiB"},
		"rewake":        {"garbage", "rewake", nil, "invalid character"},
		"newer": {ofSession, "Stop", func(d *desk) {
			d.exec("INSERT INTO schema_version (version_id, is_applied) VALUES (99, 1)")
		}, "newer claudemesh"},
		"damaged": {ofSession, "Stop", func(d *desk) {
			_ = d.box.Close()
			if err := os.WriteFile(filepath.Join(d.dir, "mailbox.db"), []byte("not a mailbox, but a secret"), 0o600); err != nil {
				d.Fatal(err)
			}
		}, "is damaged"},
		"open to others": {ofSession, "Stop", func(d *desk) {
			if err := os.Chmod(d.dir, 0o755); err != nil {
				d.Fatal(err)
			}
		}, "chmod 700"},
		"locked": {ofSession, "Stop", func(d *desk) { d.exec("BEGIN IMMEDIATE") }, "given up after 2s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t).open()
			if c.spoil != nil {
				c.spoil(d)
			}
			d.silent(c.stdin, "hook", c.event)
			log := d.log()
			if !strings.Contains(log, c.want) || strings.Count(log, "\n") != 1 || strings.Contains(log, "secret") {
				t.Errorf("log: %q, want %q", log, c.want)
			}
		})
	}
}

// exec runs a statement on a connection of its own, which lives as long as the test.
func (d *desk) exec(statement string) {
	d.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(d.dir, "mailbox.db"))
	if err != nil {
		d.Fatal(err)
	}
	d.Cleanup(func() { _ = db.Close() })
	db.SetMaxOpenConns(1)
	if _, err := db.Exec(statement); err != nil {
		d.Fatal(err)
	}
}

// What nobody hears goes back.
func TestHookUnheard(t *testing.T) {
	t.Parallel()
	d := newDesk(t).open()
	d.receive(1, "do not lose me")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	for _, args := range [][]string{{"hook", "UserPromptSubmit"}, {"hook", "rewake"}} {
		if args[1] == "rewake" {
			d.silent(ofSession, "hook", "SessionEnd") // idle again
			a, err := d.box.ChangeAgent(context.Background(), os.Getpid(), func(a *mailbox.Agent) error { a.Status = "idle"; return nil })
			if err != nil || len(a.Shown) > 0 {
				t.Fatal(a.Shown, err)
			}
		}
		cmd := d.command(args...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(ofSession), w, w
		if err := cmd.Run(); err != nil {
			t.Errorf("%v: %v", args, err)
		}
		if d.free() != 1 {
			t.Errorf("%v: the message is not back", args)
		}
	}
	w.Close()
	if log := d.log(); strings.Count(log, "\n") != 2 || strings.Contains(log, "lose me") {
		t.Errorf("log: %s", log)
	}
}

func TestHookLogIsBounded(t *testing.T) {
	t.Parallel()
	d := newDesk(t).open()
	old := bytes.Repeat([]byte("an old line\n"), 30_000)
	if err := os.WriteFile(filepath.Join(d.dir, "hooks.log"), old, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		d.silent("garbage", "hook", "Stop")
	}
	if log := d.log(); strings.Count(log, "\n") != 2 {
		t.Errorf("%d bytes", len(log))
	}
}

func TestHookHelp(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	if out, _, code := d.run("", "hook", "--help"); code != 0 || !strings.Contains(out, "PostToolBatch") {
		t.Errorf("exit %d: %s", code, out)
	}
	if _, errs, code := d.run("", "hook"); code != 2 || !strings.Contains(errs, "EVENT is missing") {
		t.Errorf("exit %d: %s", code, errs)
	}
}

// BenchmarkHook runs whole processes: hooks with nothing to say and the status
// line, beside the least that a Go program takes.
func BenchmarkHook(b *testing.B) {
	dir := b.TempDir()
	source, bare := filepath.Join(dir, "bare.go"), filepath.Join(dir, "bare")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o600); err != nil {
		b.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-o", bare, source).CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	d := newDesk(b).open()
	for i := range byte(5) {
		d.receive(i, "rung already")
		if _, err := d.box.MarkOffered(context.Background(), int64(i)+1, 1); err != nil {
			b.Fatal(err)
		}
	}
	mesh := filepath.Join(binDir, "claudemesh")
	for _, c := range []struct {
		name string
		argv []string
	}{
		{"bare", []string{bare}},
		{"no-mesh", []string{mesh, "--config-dir", dir, "hook", "Stop"}},
		{"quiet", []string{mesh, "hook", "PostToolBatch"}},
		{"statusline", []string{mesh, "statusline"}},
	} {
		b.Run(c.name, func(b *testing.B) {
			var took []time.Duration
			for b.Loop() {
				cmd := exec.Command(c.argv[0], c.argv[1:]...)
				cmd.Env, cmd.Stdin = d.env, strings.NewReader(ofSession)
				begin := time.Now()
				if err := cmd.Run(); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(begin))
			}
			slices.Sort(took)
			for name, at := range map[string]int{"p50-ms": len(took) / 2, "p95-ms": len(took) * 95 / 100} {
				b.ReportMetric(float64(took[at].Microseconds())/1000, name)
			}
		})
	}
	if log := d.log(); log != "" {
		b.Error(fmt.Errorf("hooks failed: %s", log))
	}
}
