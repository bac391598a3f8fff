// Package pgtest runs private, throw-away Postgres clusters for tests.
//
// A package whose tests want one writes
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
//
// and each test takes a database of the package's cluster with Database. Tests
// that stop the server start one of their own with Start.
package pgtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// bg is the context of what may outlive a test's own, such as a clean-up.
var bg = context.Background()

// shared is the cluster of the test binary.
var shared struct {
	mu     sync.Mutex
	server *Server
}

// Main runs a package's tests, stops the cluster they shared and looks for
// goroutines that were left behind. It returns the exit code.
func Main(m *testing.M) int {
	code := m.Run()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.server != nil {
		if err := shared.server.destroy(); err != nil {
			fmt.Fprintln(os.Stderr, "pgtest:", err)
			code = max(code, 1)
		}
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "goleak:", err)
			code = 1
		}
	}
	return code
}

// Shared returns the cluster of the test binary, which Main stops. Do not stop it.
func Shared(t testing.TB) *Server {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.server == nil {
		s, err := start(binaries(t), Options{})
		if err != nil {
			t.Fatal(err)
		}
		shared.server = s
	}
	return shared.server
}

// Database makes a database in the shared cluster; see Server.Database.
func Database(t testing.TB) (url string) {
	t.Helper()
	return Shared(t).Database(t)
}

// Options configure a cluster. The zero value works.
type Options struct {
	TCP      bool     // listens at Server.Addr too
	Settings []string // name=value, over pgtest's own
}

// Start starts a cluster that is destroyed when t ends.
func Start(t testing.TB, opts Options) *Server {
	t.Helper()
	s, err := start(binaries(t), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.destroy(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// binaries returns the directory of the server's programs: that of the postgres
// on PATH, or the newest version's where Debian has them. A test without them
// is skipped, but on Linux in CI it fails.
func binaries(t testing.TB) (dir string) {
	t.Helper()
	if path, err := exec.LookPath("postgres"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			return filepath.Dir(path)
		}
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres") // the pattern is good
	if len(found) == 0 {
		if os.Getenv("CI") != "" && runtime.GOOS == "linux" {
			t.Fatal("Postgres is not installed")
		}
		t.Skip("Postgres is not installed")
	}
	version := func(path string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path)))) // 0 is older than any
		return n
	}
	return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) }))
}
