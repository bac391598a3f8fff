package profile_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/profile"
	"github.com/claudemesh/claudemesh/internal/wire"
)

func TestMain(m *testing.M) {
	if job := os.Getenv("PROFILE_TEST_CHILD"); job != "" {
		if err := child(job, os.Getenv("PROFILE_TEST_DIR"), os.Getenv("PROFILE_TEST_ARG")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// child is another process on a profile.
func child(job, dir, arg string) error {
	p, err := profile.Open(dir)
	if err != nil {
		return err
	}
	switch job {
	case "add":
		n, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		for i := range 5 {
			if err := p.Add(membership(n*100+i, fmt.Sprintf("mesh-%d-%d", n, i))); err != nil {
				return err
			}
		}
	case "keyring": // the machine's own
		return profile.CheckKeyring()
	case "churn":
		n, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		return churn(p, n)
	case "seat": // holds it until its stdin ends
		s, err := p.TakeSeat(meshA, arg, "box", "")
		if err != nil {
			return err
		}
		fmt.Println(s.Number)
		_, _ = io.Copy(io.Discard, os.Stdin)
		return s.Close()
	default:
		return errors.New("unknown job")
	}
	return nil
}

// churn adds six meshes and removes every other one again.
func churn(p *profile.Profile, n int) error {
	for i := range 6 {
		m := membership(n*100+i, fmt.Sprintf("mesh-%d-%d", n, i))
		if err := p.Add(m); err != nil {
			return err
		}
		if i%2 == 1 {
			if err := p.Remove(m.MeshID); err != nil {
				return err
			}
		}
	}
	return nil
}

func command(t *testing.T, job string, p *profile.Profile, arg string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	check(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "PROFILE_TEST_CHILD="+job, "PROFILE_TEST_DIR="+p.Dir(), "PROFILE_TEST_ARG="+arg)
	return cmd
}

var meshA, meshB = wire.ID{1}, wire.ID{2}

func membership(n int, name string) client.Membership {
	return client.Membership{Mesh: name, MeshID: wire.ID{0: byte(n >> 8), 1: byte(n), 15: 1}, Broker: "wss://b.example", Member: "alice",
		MemberSeed: client.Secret{1}, Role: "member", Generation: 1,
		Certificate: wire.Certificate{}, Genesis: wire.Signed{Body: wire.Blob{}}}
}

func open(t *testing.T) *profile.Profile {
	t.Helper()
	p, err := profile.Open(filepath.Join(t.TempDir(), "profile"))
	check(t, err)
	return p
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T comparable](t testing.TB, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func fails(t testing.TB, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Fatalf("error %v, want %q in it", err, text)
	}
}

func skipWithoutModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes")
	}
}

// say joins values by spaces.
func say(v ...any) string { return strings.TrimSuffix(fmt.Sprintln(v...), "\n") }
