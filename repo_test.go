// Package claudemesh_test holds the rules about the repository itself.
package claudemesh_test

import (
	"bufio"
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/claudemesh/claudemesh/"

// deps returns every package that a package of ours links, tests aside.
func deps(t *testing.T, pkg string) []string {
	t.Helper()
	out, err := exec.Command("go", "list", "-deps", module+pkg).Output()
	if err != nil {
		t.Fatalf("go list %s: %v", pkg, err)
	}
	return strings.Fields(string(out))
}

// TestLayers holds who may import whom. That the broker cannot decrypt is a
// fact of the import graph.
func TestLayers(t *testing.T) {
	for _, rule := range []struct{ pkg, never, why string }{
		{"broker", "internal/seal", "the broker cannot read what it carries"},
		{"broker", "internal/sqlite", "the store stands behind its interface"},
		{"broker", "internal/postgres", "likewise"},
		{"broker", "internal/bus", "the bus stands behind its interface"},
		{"broker", "internal/mailbox", "a mailbox is a peer's"},
		{"client", "broker", "a peer needs no broker to link"},
		{"client", "internal/sqlite", "nor its store"},
		{"client", "internal/postgres", "likewise"},
		{"client", "internal/profile", "gateways keep their own files"},
		{"cmd/claudemesh", "internal/sqlite", "the CLI links no broker store"},
		{"cmd/claudemesh", "internal/postgres", "likewise"},
		{"internal/wire", "internal/trust", "wire knows bytes, not rules"},
		{"internal/wire", "internal/seal", "wire knows bytes, not rules"},
		{"internal/trust", "internal/seal", "trust needs no envelopes"},
		{"internal/localbroker", "broker", "it runs the broker's program"},
		{"internal/localbroker", "client", "it knows processes, and nothing of meshes"},
		{"internal/backup", "client", "it knows names, bytes and a passphrase"},
		{"internal/claudecode", "client", "it knows Claude Code and nothing of the network"},
		{"internal/claudecode", "internal/wire", "it knows Claude Code and nothing of the network"},
	} {
		if slices.Contains(deps(t, rule.pkg), module+rule.never) {
			t.Errorf("%s links %s: %s", rule.pkg, rule.never, rule.why)
		}
	}
}

// sources calls fn for every Go file of ours.
func sources(t *testing.T, fn func(path string, src []byte)) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || d.Name() == "bin" || d.Name() == "dist" || (strings.HasPrefix(d.Name(), ".") && path != ".")) {
			return filepath.SkipDir
		}
		if !d.IsDir() && strings.HasSuffix(path, ".go") {
			src, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fn(path, src)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestSize: a file is read in one sitting, a function fits a screen or two.
func TestSize(t *testing.T) {
	sources(t, func(path string, src []byte) {
		if n := bytes.Count(src, []byte("\n")); n > 600 {
			t.Errorf("%s has %d lines; at most 600", path, n)
		}
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, src, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line + 1; n > 70 {
				t.Errorf("%s: %s has %d lines; at most 70", path, fn.Name.Name, n)
			}
		}
	})
}

// TestPackageDocs: every package says in one place why it exists.
func TestPackageDocs(t *testing.T) {
	docs := map[string]int{}
	sources(t, func(path string, src []byte) {
		dir := filepath.Dir(path)
		if _, ok := docs[dir]; !ok {
			docs[dir] = 0
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, src, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		if f.Doc != nil && !strings.HasSuffix(path, "_test.go") {
			docs[dir]++
		}
	})
	for dir, n := range docs {
		if n != 1 && dir != "." {
			t.Errorf("%s has %d package comments; want one", dir, n)
		}
	}
}

// TestNoSleep: outside tests nothing waits by sleeping.
func TestNoSleep(t *testing.T) {
	sources(t, func(path string, src []byte) {
		forTests := func(pkg string) bool { return strings.HasPrefix(path, "internal/"+pkg+"/") }
		if strings.HasSuffix(path, "_test.go") || slices.ContainsFunc([]string{"meshtest", "storetest", "pgtest", "clustertest"}, forTests) {
			return
		}
		s := bufio.NewScanner(bytes.NewReader(src))
		for n := 1; s.Scan(); n++ {
			if strings.Contains(s.Text(), "time.Sleep(") {
				t.Errorf("%s:%d sleeps", path, n)
			}
		}
	})
}

// TestNamedTests: a test that docs/security.md names exists.
func TestNamedTests(t *testing.T) {
	defined := map[string]bool{}
	sources(t, func(path string, src []byte) {
		for _, m := range testFunc.FindAllSubmatch(src, -1) {
			defined[string(m[1])] = true
		}
	})
	page, err := os.ReadFile(filepath.Join("docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	names := testName.FindAllString(string(page), -1)
	if len(names) < 20 {
		t.Errorf("only %d tests are named", len(names))
	}
	for _, name := range names {
		if !defined[name] {
			t.Errorf("docs/security.md names %s, which is no test", name)
		}
	}
}

var (
	testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Z]\w*)\(`)
	testName = regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w*`)
)
