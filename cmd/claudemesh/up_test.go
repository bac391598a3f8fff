package main_test

import (
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/claudemesh/claudemesh/internal/brokerfile"
	"github.com/claudemesh/claudemesh/internal/localbroker"
	"github.com/claudemesh/claudemesh/internal/meshtest"
)

// localbroker kill: kill -9 the broker that up started for a member.
// localbroker port DIR: remember a port that no other test is given.
// localbroker hog URL: listen at its address until the script ends.
func cmdLocalBroker(ts *testscript.TestScript, _ bool, args []string) {
	switch args[0] {
	case "kill":
		if n := killLocalBrokers(ts.Getenv("WORK")); n != 1 {
			ts.Fatalf("%d local brokers, want one", n)
		}
	case "port":
		dir := filepath.Join(ts.Getenv("WORK"), args[1], "broker")
		ts.Check(os.MkdirAll(dir, 0o700))
		ts.Check(os.Chmod(filepath.Dir(dir), 0o700))
		ts.Check(localbroker.In(dir).Remember(meshtest.Loopback()))
	case "hog":
		u, err := url.Parse(args[1])
		ts.Check(err)
		ln, err := net.Listen("tcp", u.Host)
		ts.Check(err)
		ts.Defer(func() { _ = ln.Close() })
	default:
		ts.Fatalf("localbroker kill|port|hog")
	}
}

// killLocalBrokers kills the brokers that up left in the background, and returns when they are gone.
func killLocalBrokers(work string) (n int) {
	files, _ := filepath.Glob(filepath.Join(work, "*", "broker", "run.json"))
	hidden, _ := filepath.Glob(filepath.Join(work, ".claudemesh", "broker", "run.json"))
	for _, path := range append(files, hidden...) {
		r, alive := brokerfile.ReadRunning(path)
		if !alive {
			continue
		}
		n++
		if p, err := os.FindProcess(r.PID); err == nil {
			_ = p.Kill()
		}
		for r.Alive() { // the test's timeout ends it
			time.Sleep(10 * time.Millisecond)
		}
	}
	return n
}
