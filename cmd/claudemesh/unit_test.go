package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/backup"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/process"
	"github.com/claudemesh/claudemesh/internal/profile"
	"github.com/claudemesh/claudemesh/internal/wire"
)

func TestExplain(t *testing.T) {
	t.Parallel()
	wrap := func(err error) error { return fmt.Errorf("outer: %w", err) }
	for _, c := range []struct {
		err  error
		code string
		exit int
	}{
		{errors.New("disk on fire"), "failed", 1},
		{usagef("x"), "usage", 2},
		{errNothingJoined, "not_joined", 3},
		{wrap(client.ErrNoMesh), "not_joined", 3},
		{wrap(profile.ErrNotJoined), "not_joined", 3},
		{wrap(profile.ErrJoined), "already_joined", 1},
		{wrap(profile.ErrMalformed), "malformed_config", 1},
		{wrap(profile.ErrNewer), "newer_version", 1},
		{wrap(profile.ErrKeyring), "keyring", 1},
		{wrap(profile.ErrRunning), "running", 7},
		{wrap(profile.ErrLink), "link", 7},
		{wrap(backup.ErrShort), "bad_passphrase", 2},
		{wrap(backup.ErrPassphrase), "wrong_passphrase", 7},
		{wrap(backup.ErrFormat), "bad_backup", 1},
		{wrap(backup.ErrTooNew), "newer_version", 1},
		{client.ErrSeveralMeshes, "several_meshes", 2},
		{client.ErrBadName, "bad_name", 2},
		{client.ErrForbidden, "forbidden", 7},
		{client.ErrNoMessage, "not_found", 5},
		{wrap(client.ErrUnreachable), "unreachable", 4},
		{context.Canceled, "interrupted", 130},
		{&client.TargetError{Reason: client.ReasonNotFound}, "not_found", 5},
		{&client.TargetError{Reason: client.ReasonAmbiguous}, "ambiguous", 6},
		{&client.TargetError{Reason: client.ReasonSelf}, "self", 7},
		{&client.TargetError{Reason: client.ReasonEmpty}, "empty", 5},
		{&client.TargetError{Reason: client.ReasonInvalid}, "usage", 2},
		{&client.Fault{Code: wire.CodeUnauthorized}, "unauthorized", 7},
		{wrap(&client.Fault{Code: wire.CodeRemoved}), "removed", 7},
		{&client.Fault{Code: wire.CodeInternal}, "internal", 1},
		{&client.Fault{Code: wire.CodeNotFound}, "not_found", 5},
		{&client.Fault{Code: wire.CodeQueueFull}, "queue_full", 7},
		// A final refusal on the way to the broker is more than an absent broker, a passing one is not.
		{fmt.Errorf("%w: %w", client.ErrUnreachable, &client.Fault{Code: wire.CodeRemoved}), "removed", 7},
		{fmt.Errorf("%w: %w", client.ErrUnreachable, &client.Fault{Code: wire.CodeShuttingDown}), "unreachable", 4},
		{wrap(websocket.CloseError{Code: websocket.StatusCode(wire.CloseRemoved)}), "removed", 7},
	} {
		if f := explain(c.err); f.code != c.code || f.exit != c.exit || f.text == "" {
			t.Errorf("%v: %s, exit %d, %q; want %s, exit %d", c.err, f.code, f.exit, f.text, c.code, c.exit)
		}
	}
}

// Every code that ends a command says what to do next.
func TestHints(t *testing.T) {
	t.Parallel()
	for code, f := range faults {
		if f.hint == "" || f.exit == 0 || !code.Known() {
			t.Errorf("%s: exit %d, hint %q, known %v", code, f.exit, f.hint, code.Known())
		}
	}
	for _, r := range rules {
		if r.hint == "" || r.exit == 0 || r.code == "" {
			t.Errorf("%v: %q, exit %d, hint %q", r.is, r.code, r.exit, r.hint)
		}
	}
}

func TestParseSpan(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]time.Duration{
		"7d": 7 * day, "12h": 12 * time.Hour, "30m": 30 * time.Minute, "90s": 90 * time.Second, "1d12h": 36 * time.Hour, "0d": 0,
		"1h30m": 90 * time.Minute,
	} {
		if got, err := parseSpan(in); err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "7", "d", "-1d", "-3h", "1d-3h", "+1h", "1w", "99999999999d", "1d1d", "soon", "9999999h9999999999h"} {
		if got, err := parseSpan(in); err == nil {
			t.Errorf("%s: %v, want an error", in, got)
		}
	}
}

func TestNormalizeBroker(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"wss://mesh.example.com/ws":    "wss://mesh.example.com/ws",
		"wss://mesh.example.com":       "wss://mesh.example.com/ws",
		"https://mesh.example.com/":    "wss://mesh.example.com/ws",
		"https://mesh.example.com/ws/": "wss://mesh.example.com/ws",
		"https://example.com/mesh":     "wss://example.com/mesh/ws",
		"http://127.0.0.1:7900":        "ws://127.0.0.1:7900/ws",
		"mesh.example.com":             "wss://mesh.example.com/ws",
		"mesh.example.com:8443":        "wss://mesh.example.com:8443/ws",
		"localhost:7900":               "ws://localhost:7900/ws",
		"127.0.0.1:7900/ws":            "ws://127.0.0.1:7900/ws",
		"[::1]:7900":                   "ws://[::1]:7900/ws",
		" ws://10.0.0.1:7900/ws ":      "ws://10.0.0.1:7900/ws",
	} {
		if got, err := normalizeBroker(in); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"", "ftp://x", "wss://", "wss://u:p@host", "wss://host?q=1", "wss://host#f", "ws://:80", "a b", "http://%zz"} {
		if got, err := normalizeBroker(in); err == nil {
			t.Errorf("%q: %s, want an error", in, got)
		}
	}
}

func TestSanitizeName(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"alice": "alice", "Alice Smith": "alice-smith", "": "me", "...": "me", "-x-": "x", "Ünal": "nal", "a@b.example": "a-b.example",
		strings.Repeat("a", 40): strings.Repeat("a", 32),
	} {
		if got := sanitizeName(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestReadMessage(t *testing.T) {
	t.Parallel()
	full := strings.Repeat("x", wire.MaxBodyBytes)
	for in, want := range map[string]string{"hi\n": "hi", "hi\r\n": "hi", "hi\n\n": "hi\n", "": "", full + "\n": full} {
		if got, err := readMessage(strings.NewReader(in)); err != nil || got != want {
			t.Errorf("%.10q: %.10q, %v", in, got, err)
		}
	}
	for _, in := range []string{full + "x", full + "\n\n", full + "xx\n"} {
		if _, err := readMessage(strings.NewReader(in)); err == nil {
			t.Error("more than 32 KiB was taken")
		}
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 17, 2, 0, 0, time.Local)
	key := client.Key{1}
	for want, s := range map[string]client.SentTarget{
		"accepted; bob/api is online": {Name: "bob/api", Key: key, State: client.Accepted, Online: true},
		"accepted; nobody at bob/api since 14:02 (3 h ago): the message waits for it": {
			Name: "bob/api", Key: key, State: client.Accepted, LastSeen: now.Add(-3 * time.Hour),
		},
		"refused for bob: the recipient's queue is full": {Name: "bob", Key: key, State: client.Bounced, Code: wire.CodeQueueFull},
	} {
		if got := describeTarget(s, client.Next, now); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	var all []client.SentTarget
	for i := range 14 {
		all = append(all, client.SentTarget{Target: "@team", State: client.Accepted, Online: i >= 3})
	}
	if got, want := describeGroup("@team", all), "@team: accepted for 14 peers, 3 of them offline"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestGitInfo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write("repo/.git/HEAD", "ref: refs/heads/fix/one\n")
	write("repo/.git/config", "[core]\n\turl = no\n[remote \"origin\"]\n\turl = https://user:secret@github.com/acme/api.git\n")
	write("repo/sub/file", "")
	write("ssh/.git/HEAD", "0123456789abcdef\n")
	write("ssh/.git/config", "[remote \"origin\"]\nurl=git@github.com:acme/web.git\n")
	write("tree/.git", "gitdir: ../repo/.git/worktrees/tree\n")
	write("repo/.git/worktrees/tree/HEAD", "ref: refs/heads/two\n")
	write("repo/.git/worktrees/tree/commondir", "../..\n")
	write("bare/.git/HEAD", "ref: refs/heads/main\n")
	for sub, want := range map[string]string{
		"repo": "github.com/acme/api fix/one", "repo/sub": "github.com/acme/api fix/one", "ssh": "github.com/acme/web ",
		"tree": "github.com/acme/api two", "bare": "bare main",
	} {
		repo, branch := gitInfo(filepath.Join(dir, sub))
		if got := repo + " " + branch; got != want {
			t.Errorf("%s: %q, want %q", sub, got, want)
		}
	}
}

// walk visits every command of the tree as it is after the library's setup.
func walk(t *testing.T, visit func(path string, c *cli.Command)) {
	t.Helper()
	a := &app{in: strings.NewReader(""), out: &bytes.Buffer{}, errw: &bytes.Buffer{}, getenv: func(string) string { return "" }}
	root := a.root()
	if err := root.Run(context.Background(), []string{"claudemesh"}); err != nil {
		t.Fatal(err)
	}
	var down func(prefix string, c *cli.Command)
	down = func(prefix string, c *cli.Command) {
		path := strings.TrimSpace(prefix + " " + c.Name)
		visit(path, c)
		for _, sub := range c.Commands {
			if sub.Name != "help" {
				down(path, sub)
			}
		}
	}
	down("", root)
}

// docs/cli.md has a section for every command, which mentions all its flags.
func TestDocumented(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(filepath.Join("..", "..", "docs", "cli.md"))
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for s := range strings.SplitSeq(string(raw), "\n## ") {
		head, body, _ := strings.Cut(s, "\n")
		sections[strings.Trim(head, "` ")] = body
	}
	walk(t, func(path string, c *cli.Command) {
		body, ok := "", false
		for _, head := range []string{path, path[:max(strings.LastIndexByte(path, ' '), 0)]} {
			if body, ok = sections[head]; ok {
				break
			}
		}
		if !ok || (path != "claudemesh" && !strings.Contains(body, path)) {
			t.Errorf("docs/cli.md has no section for %s", path)
		}
		for _, f := range c.Flags {
			if name := f.Names()[0]; name != "help" && !strings.Contains(body, "--"+name) {
				t.Errorf("docs/cli.md does not mention --%s of %s", name, path)
			}
		}
		if !strings.Contains(c.Description, "EXAMPLE:") || c.Usage == "" || c.OnUsageError == nil {
			t.Errorf("%s lacks an example, a usage line or OnUsageError", path)
		}
	})
	for code := range faults {
		if !slices.Contains([]int{1, 4, 5, 7}, faults[code].exit) {
			t.Errorf("%s: exit code %d is not documented", code, faults[code].exit)
		}
	}
}

func TestInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var out, errw bytes.Buffer
	a := &app{out: &out, errw: &errw}
	if code := a.finish(ctx, errors.New("cut short")); code != exitInterrupted || !strings.Contains(errw.String(), "interrupted") {
		t.Errorf("exit %d, %q", code, errw.String())
	}
}

// A courier notes its path in a write of its own, after that which marks the message read.
func TestProvenPathIsWaitedFor(t *testing.T) {
	t.Parallel()
	ctx, box, began := context.Background(), mailbox.NewMemory(), time.Now()
	if err := box.PutAgent(ctx, mailbox.Agent{Process: process.Self()}); err != nil {
		t.Fatal(err)
	}
	changes, path := make(chan struct{}), make(chan string, 1)
	go func() { path <- provenPath(ctx, box, changes, os.Getpid(), began) }()
	changes <- struct{}{} // taken once it has looked and found none
	_, err := box.ChangeAgent(ctx, os.Getpid(), func(a *mailbox.Agent) error {
		a.Proven = map[mailbox.Path]int64{mailbox.ByMod: began.UnixMilli()}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	close(changes) // it may have looked before, or between
	if got := <-path; got != "mod" {
		t.Errorf("by %q, want mod", got)
	}
}
