package process

import (
	"os"
	"os/exec"
	"testing"
)

func TestAlive(t *testing.T) {
	t.Parallel()
	if self := Self(); self.PID != os.Getpid() || !self.Alive() {
		t.Errorf("self: %+v", self)
	}
	if (Process{}).Alive() || Of(0).Alive() || Of(-1).Alive() {
		t.Error("no process is alive")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^$", "-test.v")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	child := Of(cmd.Process.Pid)
	other := child
	other.Started++
	if other.Alive() {
		t.Error("another start is another process")
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if child.Alive() {
		t.Error("alive after its end")
	}
}

// A child that has ended and was not waited for does not run.
func TestZombie(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	child := Of(cmd.Process.Pid)
	for buf := make([]byte, 512); err == nil; { // until it has closed its output
		_, err = out.Read(buf)
	}
	for child.Alive() { // a test's timeout ends it
	}
	_ = cmd.Wait()
}
