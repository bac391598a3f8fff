package profile_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/profile"
	"github.com/claudemesh/claudemesh/internal/wire"
)

func TestDefaultDir(t *testing.T) {
	tmp := t.TempDir()
	file := filepath.Join(tmp, "file")
	check(t, os.WriteFile(file, nil, 0o600))
	home := filepath.Join("/home", "u", ".claudemesh")
	for _, c := range []struct{ env, dir, warning string }{
		{"", home, ""},
		{tmp, tmp, ""},
		{filepath.Join(tmp, "new") + "/", filepath.Join(tmp, "new"), ""},
		{filepath.Join(tmp, "gone", "x"), home, "parent"},
		{"relative", home, "absolute"},
		{file, home, "not a directory"},
	} {
		dir, warning, err := profile.DefaultDir(func(string) string { return c.env }, func() (string, error) { return "/home/u", nil })
		check(t, err)
		equal(t, dir, c.dir)
		if (warning == "") != (c.warning == "") || !strings.Contains(warning, c.warning) {
			t.Errorf("%s: warning %q, want %q", c.env, warning, c.warning)
		}
	}
	_, _, err := profile.DefaultDir(func(string) string { return "" }, func() (string, error) { return "", errors.New("no home") })
	fails(t, err, "no home")
}

func TestConfigChanges(t *testing.T) {
	p := open(t)
	meshes, err := p.Meshes()
	equal(t, say(len(meshes), err), "0 <nil>")
	a, b := membership(1, "a"), membership(2, "b")
	a.OwnerSeed = client.Secret{7}
	a.Certificate = wire.Certificate{{Body: wire.Blob("x")}}
	a.Genesis = wire.Signed{Body: wire.Blob("g")}
	check(t, p.Add(a))
	check(t, p.Add(b))
	equal(t, errors.Is(p.Add(a), profile.ErrJoined), true)
	equal(t, errors.Is(p.Add(membership(3, "b")), profile.ErrNameTaken), true)
	other, err := profile.Open(p.Dir())
	check(t, err)
	meshes, err = other.Meshes()
	check(t, err)
	if want := []client.Membership{a, b}; !reflect.DeepEqual(meshes, want) {
		t.Fatalf("got\n%+v, want\n%+v", meshes, want)
	}
	equal(t, errors.Is(p.Remove(wire.ID{9}), profile.ErrNotJoined), true)
	check(t, p.Remove(b.MeshID))
	equal(t, errors.Is(p.Remove(b.MeshID), profile.ErrNotJoined), true)
	meshes, err = p.Meshes()
	check(t, err)
	equal(t, say(len(meshes), reflect.DeepEqual(meshes[0], a)), "1 true")
	equal(t, p.MailboxPath(), filepath.Join(p.Dir(), "mailbox.db"))
}

// A broker that moves takes its memberships with it, and no others.
func TestMove(t *testing.T) {
	t.Parallel()
	p := open(t)
	a, b := membership(1, "a"), membership(2, "b")
	b.Broker = "ws://127.0.0.1:1/ws"
	check(t, p.Add(a))
	check(t, p.Add(b))
	check(t, p.Move(b.Broker, "ws://127.0.0.1:2/ws"))
	got, err := p.Meshes()
	check(t, err)
	equal(t, say(len(got), got[0].Broker, got[1].Broker), say(2, a.Broker, "ws://127.0.0.1:2/ws"))
}

func TestModes(t *testing.T) {
	skipWithoutModes(t)
	p := open(t)
	check(t, p.Add(membership(1, "a")))
	s, err := p.TakeSeat(meshA, t.TempDir(), "box", "")
	check(t, err)
	check(t, s.Close())
	checkPrivate(t, p.Dir())
	config := filepath.Join(p.Dir(), "config.json")
	check(t, os.Chmod(config, 0o640))
	_, err = p.Meshes()
	fails(t, err, "chmod 600 '"+config+"'")
	fails(t, p.Add(membership(2, "b")), "chmod 600")
	seats, _ := filepath.Glob(filepath.Join(p.Dir(), "seats", "*", "*.json"))
	check(t, os.Chmod(seats[0], 0o604))
	_, err = p.AllSeats(meshA)
	fails(t, err, "chmod 600 '"+seats[0]+"'")
	check(t, os.Chmod(p.Dir(), 0o710))
	_, err = profile.Open(p.Dir())
	fails(t, err, "chmod 700 '"+p.Dir()+"'")
}

// checkPrivate walks a directory: 0700 and 0600, and nothing else.
func checkPrivate(t *testing.T, dir string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		return
	}
	check(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		check(t, err)
		info, err := e.Info()
		check(t, err)
		if want := map[bool]fs.FileMode{true: 0o700, false: 0o600}[e.IsDir()]; info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
		}
		return nil
	}))
}

// A crash before the rename leaves a temporary file and the old configuration.
func TestCrashBeforeRename(t *testing.T) {
	p := open(t)
	check(t, p.Add(membership(1, "a")))
	config := filepath.Join(p.Dir(), "config.json")
	check(t, os.WriteFile(config+".tmp-1", []byte(`{"version":1,"mes`), 0o600))
	meshes, err := p.Meshes()
	equal(t, say(len(meshes), err), "1 <nil>")
	check(t, p.Add(membership(2, "b")))
	meshes, err = p.Meshes()
	equal(t, say(len(meshes), err), "2 <nil>")
	info, err := os.Stat(config)
	check(t, err)
	equal(t, info.Mode().Perm(), 0o600)
	rest, err := filepath.Glob(config + ".tmp*")
	equal(t, say(rest, err), say([]string{config + ".tmp-1"}, nil)) // nothing else is left
	// A change that cannot be written leaves the file as it was.
	before, _ := os.ReadFile(config)
	fails(t, p.Add(membership(3, strings.Repeat("x", 5<<20))), "larger")
	fails(t, p.Add(client.Membership{Mesh: "c"}), "lacks")
	after, _ := os.ReadFile(config)
	equal(t, string(after), string(before))
}

func TestDamagedConfig(t *testing.T) {
	p := open(t)
	config := filepath.Join(p.Dir(), "config.json")
	check(t, p.Add(membership(1, "a")))
	good, err := os.ReadFile(config)
	check(t, err)
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "malformed"},
		{"text", "hello", "malformed"},
		{"cut", string(good[:len(good)/2]), "malformed"},
		{"no version", `{"meshes":[]}`, "no version"},
		{"duplicate key", `{"version":1,"meshes":[],"meshes":[]}`, "duplicate"},
		{"newer", `{"version":2,"meshes":"else"}`, "newer claudemesh"},
		{"bad type", `{"version":1,"meshes":[{"meshId":"zz"}]}`, "malformed"},
		{"no key", `{"version":1,"meshes":[{"mesh":"a","meshId":"01010101010101010101010101010101"}]}`, "lacks"},
		{"huge", `{"version":1,"x":"` + strings.Repeat("a", 4<<20) + `"}`, "larger than 4 MiB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			check(t, os.WriteFile(config, []byte(c.text), 0o600))
			_, err := p.Meshes()
			fails(t, err, c.want)
			fails(t, err, config)
			fails(t, p.Add(membership(2, "b")), c.want) // nothing is overwritten
			left, _ := os.ReadFile(config)
			equal(t, string(left), c.text)
		})
	}
}

func TestProcessesAdd(t *testing.T) {
	p := open(t)
	var wg sync.WaitGroup
	for n := range 8 {
		cmd := command(t, "add", p, say(n+1))
		wg.Go(func() {
			if text, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, text)
			}
		})
	}
	wg.Wait()
	meshes, err := p.Meshes()
	equal(t, say(len(meshes), err), "40 <nil>")
}

// Goroutines and processes that add and remove at once lose nothing of each other,
// and who reads meanwhile finds a whole file.
func TestChurn(t *testing.T) {
	p := open(t)
	check(t, p.Add(membership(1, "first")))
	var writers sync.WaitGroup
	for n := range 4 {
		cmd := command(t, "churn", p, say(n+1))
		writers.Go(func() {
			if text, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, text)
			}
		})
		writers.Go(func() {
			if err := churn(p, n+11); err != nil {
				t.Error(err)
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
			meshes, err := p.Meshes()
			check(t, err)
			if len(meshes) == 0 || meshes[0].Mesh != "first" {
				t.Fatalf("%d meshes were read", len(meshes))
			}
		}
	}
	meshes, err := p.Meshes()
	check(t, err)
	names := map[string]bool{}
	for _, m := range meshes {
		names[m.Mesh] = true
	}
	equal(t, say(len(meshes), len(names)), say(1+8*3, 1+8*3))
	for _, n := range []int{1, 2, 3, 4, 11, 12, 13, 14} {
		for i := range 6 {
			equal(t, names[fmt.Sprintf("mesh-%d-%d", n, i)], i%2 == 0)
		}
	}
	rest, err := filepath.Glob(filepath.Join(p.Dir(), "*.tmp*"))
	equal(t, say(len(rest), err), "0 <nil>")
}

// A file that is a link is not followed: not to read keys of another place, and not to write any there.
func TestLinks(t *testing.T) {
	p, elsewhere := open(t), filepath.Join(t.TempDir(), "file")
	check(t, p.Add(membership(1, "a")))
	seat, err := p.TakeSeat(meshA, t.TempDir(), "box", "")
	check(t, err)
	check(t, seat.Close())
	seats, _ := filepath.Glob(filepath.Join(p.Dir(), "seats", "*", "*.json"))
	for _, path := range []string{filepath.Join(p.Dir(), "config.json"), seats[0]} {
		check(t, os.Rename(path, elsewhere))
		if err := os.Symlink(elsewhere, path); err != nil {
			t.Skip(err)
		}
		before, err := os.ReadFile(elsewhere)
		check(t, err)
		_, err = p.Meshes()
		_, seatsErr := p.AllSeats(meshA)
		addErr := p.Add(membership(2, "b"))
		_, snapErr := p.Snapshot()
		if path == seats[0] {
			_, takeErr := p.TakeSeat(meshA, seat.Dir, "box", "")
			equal(t, say(errors.Is(seatsErr, profile.ErrLink), errors.Is(takeErr, profile.ErrLink)), "true true")
		} else {
			equal(t, say(errors.Is(err, profile.ErrLink), errors.Is(addErr, profile.ErrLink), errors.Is(snapErr, profile.ErrLink)), "true true true")
		}
		after, err := os.ReadFile(elsewhere)
		check(t, err)
		equal(t, string(after), string(before))
		check(t, os.Rename(elsewhere, path))
	}
}
