package profile_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/claudemesh/claudemesh/internal/profile"
)

func TestRunning(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "mesh")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	p, err := profile.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if p.Running() {
		t.Error("running before anyone announced itself")
	}
	first, err := p.Announce()
	if err != nil {
		t.Fatal(err)
	}
	second, err := p.Announce()
	if err != nil {
		t.Fatal(err)
	}
	for i, release := range []func() error{first, second} {
		if !p.Running() {
			t.Errorf("not running with %d left", 2-i)
		}
		if err := release(); err != nil {
			t.Error(err)
		}
	}
	if p.Running() {
		t.Error("running after everyone left")
	}
}
