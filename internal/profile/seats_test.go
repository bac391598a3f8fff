package profile_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/claudemesh/claudemesh/internal/profile"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// dirs makes directories below a new one and returns their paths.
func dirs(t *testing.T, names ...string) (paths []string) {
	t.Helper()
	root := t.TempDir()
	for _, n := range names {
		paths = append(paths, filepath.Join(root, n))
		check(t, os.MkdirAll(paths[len(paths)-1], 0o700))
	}
	return paths
}

func take(t *testing.T, p *profile.Profile, mesh wire.ID, dir, mailbox, name string) *profile.Seat {
	t.Helper()
	s, err := p.TakeSeat(mesh, dir, mailbox, name)
	check(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestSeatComesBack(t *testing.T) {
	p, d := open(t), dirs(t, "api")[0]
	a := take(t, p, meshA, d, "box", "")
	b := take(t, p, meshA, d, "box", "")
	equal(t, say(a.Number, a.Label, b.Number, b.Label), "1 api 2 api-2")
	if a.Key.Public() == b.Key.Public() {
		t.Fatal("two seats have one key")
	}
	other := take(t, p, meshB, d, "box", "")
	equal(t, say(other.Number, other.Label, other.Key.Public() == a.Key.Public()), "1 api false")
	check(t, a.Close())
	check(t, a.Close())
	again := take(t, p, meshA, d, "box", "") // the lowest free one
	equal(t, say(again.Number, again.Label, again.Key.Public() == a.Key.Public(), again.Dir == a.Dir), "1 api true true")
	check(t, again.Close())
	lost := take(t, p, meshA, d, "new box", "")
	equal(t, say(lost.Number, lost.Label, lost.Key.Public() == a.Key.Public()), "1 api false")
	check(t, lost.Close())
	back := take(t, p, meshA, d, "box", "") // the old key does not return
	equal(t, back.Key.Public() == a.Key.Public(), false)

	list, err := p.Seats(meshA, d)
	check(t, err)
	equal(t, len(list), 2)
	equal(t, list[0], profile.SeatInfo{Number: 1, Label: "api", Key: back.Key.Public(), Dir: a.Dir, Mailbox: "box"})
	equal(t, list[1].Key, b.Key.Public())
	check(t, p.RemoveSeats(meshA))
	list, err = p.AllSeats(meshA)
	equal(t, say(len(list), err), "0 <nil>")
	list, err = p.AllSeats(meshB)
	equal(t, say(len(list), err), "1 <nil>")
	fresh := take(t, p, meshA, d, "box", "")
	equal(t, say(fresh.Number, fresh.Key.Public() == back.Key.Public()), "1 false")
}

func TestSymlinkedDirectoryIsOne(t *testing.T) {
	p, d := open(t), dirs(t, "api")[0]
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(d, link); err != nil {
		t.Skip(err)
	}
	a := take(t, p, meshA, d, "box", "")
	b := take(t, p, meshA, link, "box", "")
	equal(t, say(b.Number, b.Label, a.Dir == b.Dir), "2 api-2 true")
	list, err := p.Seats(meshA, link+"/.")
	equal(t, say(len(list), err), "2 <nil>")
}

func TestLabelsAreUnique(t *testing.T) {
	p := open(t)
	d := dirs(t, "work/api", "play/api", "third/api", "x")
	label := func(dir, name string) string {
		return take(t, p, meshA, dir, "box", name).Label
	}
	first := take(t, p, meshA, d[0], "box", "")
	equal(t, first.Label, "api")
	second := take(t, p, meshA, d[1], "box", "")
	equal(t, second.Label, "api-2")
	equal(t, label(d[0], ""), "api-3") // seat 2, and api-2 is taken
	equal(t, label(d[2], ""), "api-4")
	check(t, first.Close())
	check(t, second.Close())
	equal(t, label(d[1], ""), "api-2") // stable since stored
	equal(t, label(d[0], ""), "api")
}

func TestNamedSeats(t *testing.T) {
	p, d := open(t), dirs(t, "api")[0]
	a := take(t, p, meshA, d, "box", "")
	check(t, a.Close())
	b := take(t, p, meshA, d, "box", "web") // over the stored label
	c := take(t, p, meshA, d, "box", "web")
	equal(t, say(b.Label, c.Label, b.Key.Public() == a.Key.Public()), "web web-2 true")
	check(t, b.Close())
	equal(t, take(t, p, meshA, d, "box", "").Label, "web") // and stored
	long := strings.Repeat("n", 32)
	equal(t, take(t, p, meshA, d, "box", long).Label, long[:30]+"-3")
	for _, bad := range []string{"Web", "-x", "a b", "../x", strings.Repeat("n", 33)} {
		_, err := p.TakeSeat(meshA, d, "box", bad)
		fails(t, err, "[a-z0-9][a-z0-9._-]{0,31}")
	}
	_, err := p.TakeSeat(meshA, filepath.Join(d, "gone"), "box", "")
	fails(t, err, "gone")
}

func TestDamagedSeat(t *testing.T) {
	p, d := open(t), dirs(t, "api", "other")
	check(t, take(t, p, meshA, d[0], "box", "").Close())
	files, _ := filepath.Glob(filepath.Join(p.Dir(), "seats", meshA.String(), "*.json"))
	good, err := os.ReadFile(files[0])
	check(t, err)
	for _, c := range []struct{ text, want string }{
		{"", "malformed"},
		{"{", "malformed"},
		{`{"version":9}`, "newer"},
		{strings.Replace(string(good), `"seat":1`, `"seat":2`, 1), "seat 2"},
		{strings.Replace(string(good), `"label":"api"`, `"label":"A b"`, 1), "lacks"},
		{strings.Replace(string(good), `"seat":1`, `"seat":1,"seat":1`, 1), "duplicate"},
	} {
		check(t, os.WriteFile(files[0], []byte(c.text), 0o600))
		_, err := p.TakeSeat(meshA, d[0], "box", "")
		fails(t, err, c.want)
		fails(t, err, files[0])
		_, err = p.AllSeats(meshA)
		fails(t, err, files[0])
		check(t, take(t, p, meshA, d[1], "box", "").Close()) // others are not stopped
	}
	check(t, os.WriteFile(files[0], good, 0o600))
	equal(t, take(t, p, meshA, d[0], "box", "").Number, 1) // no error kept the lock
}

// holder is a child process that sits in a seat.
func holder(t *testing.T, p *profile.Profile, dir string) (cmd *exec.Cmd, number string, leave func()) {
	t.Helper()
	cmd = command(t, "seat", p, dir)
	stdin, err := cmd.StdinPipe()
	check(t, err)
	stdout, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	check(t, err)
	leave = func() { _ = stdin.Close(); _ = cmd.Wait() }
	t.Cleanup(leave)
	return cmd, strings.TrimSpace(line), leave
}

func TestSeatsOfProcesses(t *testing.T) {
	p, d := open(t), dirs(t, "api")[0]
	first, one, _ := holder(t, p, d)
	_, two, leave := holder(t, p, d)
	equal(t, one+two, "12")
	third := take(t, p, meshA, d, "box", "")
	equal(t, third.Number, 3)
	check(t, first.Process.Kill()) // kill -9: the kernel frees the seat
	_ = first.Wait()
	equal(t, take(t, p, meshA, d, "box", "").Number, 1)
	leave()
	equal(t, take(t, p, meshA, d, "box", "").Number, 2)
}
