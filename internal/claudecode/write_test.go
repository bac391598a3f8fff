package claudecode

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func install(t *testing.T, dir, product string) {
	t.Helper()
	version := pluginVersion(product)
	files := render(awkward, version)
	if err := write(folder(dir), stamp{version, awkward, sum(files)}, files); err != nil {
		t.Fatal(err)
	}
}

// contents is every file below dir, by its path.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if mode := info.Mode().Perm(); mode != 0o600 && runtime.GOOS != "windows" {
			t.Errorf("%s has mode %o", path, mode)
		}
		data, err := os.ReadFile(path)
		all[strings.TrimPrefix(path, dir)] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	dir, want := t.TempDir(), t.TempDir()
	install(t, want, "v1.2.0")
	if err := Refresh(dir, "v1.2.0"); err != nil || len(contents(t, dir)) != 0 {
		t.Fatalf("it wrote a plugin that nobody installed (%v)", err)
	}
	install(t, dir, "v1.1.0")
	other := filepath.Join(folder(dir), ServerName, "hooks", "old.js")
	for _, path := range []string{other, filepath.Join(folder(dir), "installed.json")} {
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Refresh(dir, "v1.2.0"); err != nil {
		t.Fatal(err)
	}
	got := contents(t, dir)
	if got["/claude/installed.json"] != "x" {
		t.Error("the record is gone")
	}
	delete(got, "/claude/installed.json")
	equal(t, got, contents(t, want))
	if err := Refresh(dir, "v1.1.0"); err != nil { // an older binary that still runs
		t.Fatal(err)
	}
	got = contents(t, dir)
	delete(got, "/claude/installed.json")
	equal(t, got, contents(t, want))
}

// A refresh that has nothing to do touches nothing.
func TestRefreshIsIdle(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	install(t, dir, "v1.2.0")
	gone := filepath.Join(folder(dir), ServerName, ".mcp.json")
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	if err := Refresh(dir, "v1.2.0"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(gone); !errors.Is(err, fs.ErrNotExist) {
		t.Error("it reads more than the stamp")
	}
	if err := os.WriteFile(filepath.Join(folder(dir), stampName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Refresh(dir, "v1.2.0"); err == nil || !strings.Contains(err.Error(), "claudemesh install") {
		t.Errorf("a damaged stamp: %v", err)
	}
}

func TestReplaceFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real"), filepath.Join(dir, "link")
	if err := os.WriteFile(real, []byte("old"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, link); err != nil {
		t.Skip(err)
	}
	if err := replaceFile(link, []byte("new"), 0o640); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(real)
	if info, _ := os.Lstat(link); err != nil || string(data) != "new" || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("%q, %v, %v", data, err, info.Mode())
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("%v, %v", entries, err)
	}
}

func equal(t *testing.T, got, want map[string]string) {
	t.Helper()
	for path := range want {
		if got[path] != want[path] {
			t.Errorf("%s: %q, want %q", path, got[path], want[path])
		}
	}
	for path := range got {
		if _, ok := want[path]; !ok {
			t.Errorf("%s is too many", path)
		}
	}
}

func TestQuote(t *testing.T) {
	t.Parallel()
	s := Setup{Dir: "/x", Command: []string{"/opt/my tools/claudemesh", "--config-dir", "it's"}}
	want := [][]string{
		{`claude mcp add claudemesh --scope user -- '/opt/my tools/claudemesh' --config-dir 'it'\''s' mcp`},
		{"claude plugin marketplace add /x/claude", "claude plugin install claudemesh@claudemesh --scope user"},
	}
	for i, o := range []Options{{MCPOnly: true}, {}} {
		if got := s.Commands(o); !slices.Equal(got, want[i]) {
			t.Errorf("got  %q\nwant %q", got, want[i])
		}
	}
}
