package brokerfile

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/claudemesh/claudemesh/internal/process"
)

func TestReadToken(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "token")
	for text, want := range map[string]string{"abc\n": "abc", " abc ": "abc", "": "", "\n": "", "a b": "", strings.Repeat("x", maxFile+1): ""} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadToken(path); got != want || (err == nil) != (want != "") {
			t.Errorf("%.20q: %q, %v", text, got, err)
		}
	}
	if _, err := ReadToken(path + "x"); err == nil {
		t.Error("a token was read where there is none")
	}
}

func TestRunning(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "run.json")
	if r, alive := ReadRunning(path); alive || r != (Running{}) {
		t.Errorf("no file: %+v, %v", r, alive)
	}
	want := Running{process.Self(), "ws://127.0.0.1:1/ws", "v1"}
	if err := want.Write(path); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	if r, alive := ReadRunning(path); !alive || r != want {
		t.Errorf("%+v, %v, want %+v", r, alive, want)
	}
	other := want
	other.Started++ // the number went to another process
	if err := other.Write(path); err != nil {
		t.Fatal(err)
	}
	if r, alive := ReadRunning(path); alive || r != (Running{}) {
		t.Errorf("another process: %+v, %v", r, alive)
	}
	for _, text := range []string{"", "{", "[]", `{"pid":-1,"started":1}`, strings.Repeat(" ", maxFile) + "{}"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if r, alive := ReadRunning(path); alive || r != (Running{}) {
			t.Errorf("%.20q: %+v, %v", text, r, alive)
		}
	}
}
