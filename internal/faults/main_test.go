package faults

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/claudemesh/claudemesh/internal/clustertest"
)

// TestMain: the test binary is a peer when it is asked to be, so that peers
// can be killed.
func TestMain(m *testing.M) {
	if path := os.Getenv(peerEnv); path != "" {
		os.Exit(peerMain(path))
	}
	flag.Parse()
	if testing.Short() && !clustertest.Long() {
		fmt.Println("without -short, the faults are tested here")
		os.Exit(0)
	}
	code := m.Run()
	clustertest.Clean()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}
