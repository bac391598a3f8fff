package main_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/process"
	"github.com/claudemesh/claudemesh/internal/wire"
)

func (d *desk) mode() mailbox.Mode {
	d.Helper()
	a, err := d.box.Agent(context.Background(), os.Getpid())
	if err != nil {
		d.Fatal(err)
	}
	return a.Mode
}

func TestMode(t *testing.T) {
	t.Parallel()
	d := newDesk(t).open()
	parent := strconv.Itoa(os.Getppid())
	d.put(mailbox.Agent{Process: process.Of(os.Getppid()), Mode: mailbox.Off, Cwd: d.dir, Seats: []mailbox.AgentSeat{{Name: "acme", Self: "alice/api"}}})
	d.put(mailbox.Agent{Process: process.Process{PID: 1, Started: 7}, Mode: mailbox.Push, Cwd: d.dir}) // has ended
	own := d.env
	other := append(append([]string{}, own...), "CLAUDE_PID=", "CLAUDE_CODE_SESSION_ID=")
	for _, c := range []struct {
		env  []string
		args []string
		out  string // or the error
		code int
	}{
		{own, []string{"mode"}, "push  alice/web, pid " + strconv.Itoa(os.Getpid()), 0},
		{own, []string{"mode", "notice"}, "notice  alice/web", 0},
		{own, []string{"mode", "notice"}, "notice  alice/web", 0},
		{own, []string{"mode", "--session", "alice/api"}, "off  alice/api, pid " + parent, 0},
		{own, []string{"mode", "--session", "api"}, "off  alice/api", 0},
		{own, []string{"mode", "--session", parent, "inbox"}, "inbox  alice/api", 0},
		{own, []string{"mode", "--session", "carol"}, `no agent here is called "carol"`, 5},
		{own, []string{"mode", "loud"}, `no mode is called "loud"`, 2},
		{own, []string{"mode", "pusch"}, "try: claudemesh mode push", 2},
		{other, []string{"mode"}, "alice/web, pid", 6},
		{other, []string{"mode", "off", "--session", "web"}, "off  alice/web", 0},
	} {
		d.env = c.env
		if out, errs, code := d.run("", c.args...); code != c.code || !strings.Contains(out+errs, c.out) {
			t.Errorf("%q: exit %d, %s%s; want %d, %s", c.args, code, out, errs, c.code, c.out)
		}
	}
	if d.mode() != mailbox.Off {
		t.Errorf("mode %s", d.mode())
	}
	cmd := d.command("--json", "mode") // the only one in its directory
	cmd.Dir, cmd.Env = d.dir, append(other, "PWD="+d.dir)
	out, err := cmd.Output()
	var got struct {
		PID   int
		Names []string
		Mode  string
		Wake  string
	}
	if err != nil || json.Unmarshal(out, &got) != nil || got.PID != os.Getppid() || got.Names[0] != "alice/api" || got.Mode != "inbox" || got.Wake != "none" {
		t.Errorf("%s %v", out, err)
	}
}

func TestModeWithoutAgents(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	if _, errs, code := d.run("", "mode"); code != 3 {
		t.Errorf("exit %d, %s", code, errs)
	}
	if _, err := os.Stat(filepath.Join(d.dir, "mailbox.db")); err == nil {
		t.Error("a mailbox was made")
	}
	d.open()
	if err := d.box.ForgetAgents(context.Background(), []int{os.Getpid()}); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := d.run("", "mode", "push"); code != 5 || !strings.Contains(errs, "start claude") {
		t.Errorf("exit %d, %s", code, errs)
	}
}

func TestStatusline(t *testing.T) {
	t.Parallel()
	d := newDesk(t).open()
	line := func(stdin string, env ...string) string {
		d.Helper()
		d := *d
		d.env = append(append([]string{}, d.env...), env...)
		out, errs, code := d.run(stdin, "statusline")
		if code != 0 || errs != "" {
			t.Errorf("exit %d, %s", code, errs)
		}
		return out
	}
	expect := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	expect(line(ofSession), "acme · 3 online\n")
	d.receive(1, "one")
	d.receive(2, "two")
	expect(line(""), "acme · 3 online · 2 unread\n")
	// Its parent is this process; with neither that nor a session it would be nobody's.
	expect(line(ofSession, "CLAUDE_PID=1"), "acme · 3 online · 2 unread\n")
	a := mailbox.Agent{Process: process.Of(os.Getppid()), Session: "s1", Seats: []mailbox.AgentSeat{
		{Name: "acme\x1b[31m<", Key: wire.Key{4}, Online: true}, {Name: "home", Key: wire.Key{5}, Online: true, Peers: 1},
	}}
	a.Server = process.Self()
	d.put(a)
	expect(line(ofSession, "CLAUDE_PID=1"), `acme\u{001B}[31m&lt; · 0 online, home · 1 online`+"\n")
	a.Seats[1].Online = false
	d.put(a)
	expect(line(ofSession, "CLAUDE_PID=1"), `acme\u{001B}[31m&lt; · 0 online, home · offline`+"\n")
	a.Server.Started++ // it has died
	d.put(a)
	expect(line(ofSession, "CLAUDE_PID=1"), `acme\u{001B}[31m&lt; · offline, home · offline`+"\n")
	if err := d.box.ForgetAgents(context.Background(), []int{os.Getpid(), os.Getppid()}); err != nil {
		t.Fatal(err)
	}
	expect(line(ofSession), "")
}
