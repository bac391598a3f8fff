//go:build unix

package main_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// serveAlone starts claudemesh mcp with standard input held open, by way of a
// shell that runs script, and returns where its output ends with it.
func serveAlone(t *testing.T, script string) (out *os.File, sh *exec.Cmd) {
	t.Helper()
	in, hold, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hold.Close(); _ = in.Close(); _ = out.Close() })
	sh = exec.Command("sh", "-c", script)
	sh.Env = append(os.Environ(), "PROGRAM="+filepath.Join(binDir, "claudemesh"), "CLAUDEMESH_CONFIG_DIR="+filepath.Join(t.TempDir(), "new"))
	sh.Stdout, sh.ExtraFiles = theirs, []*os.File{in}
	if err := sh.Start(); err != nil {
		t.Fatal(err)
	}
	_ = theirs.Close()
	return out, sh
}

// ends waits until all who hold the other end of a pipe are gone.
func ends(t *testing.T, out *os.File) string {
	t.Helper()
	if err := out.SetReadDeadline(time.Now().Add(15 * time.Second)); err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(out)
	if err != nil {
		t.Errorf("the server goes on: %v", err)
	}
	return string(raw)
}

// The server ends with the process that started it, though its standard input stays open.
func TestMCPEndsWithItsParent(t *testing.T) {
	t.Parallel()
	out, sh := serveAlone(t, `"$PROGRAM" mcp <&3 & pid=$!; sleep 1; kill -0 $pid`)
	if err := sh.Wait(); err != nil {
		t.Fatal(err)
	}
	ends(t, out)
}

func TestMCPEndsOnSIGTERM(t *testing.T) {
	t.Parallel()
	out, sh := serveAlone(t, `"$PROGRAM" mcp <&3 & pid=$!; sleep 1; kill -TERM $pid; wait $pid; echo "code $?"`)
	if got := ends(t, out); !strings.Contains(got, "code 0") {
		t.Errorf("output %q", got)
	}
	_ = sh.Wait()
}
