package vectors_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/claudemesh/claudemesh/internal/vectors"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// TestSize: the set is as large as it is said to be, and each case can be
// named and read.
func TestSize(t *testing.T) {
	t.Parallel()
	names, negative, cases := map[string]bool{}, 0, all(t)
	for _, c := range cases {
		if names[c.Name] || c.Name == "" {
			t.Errorf("two cases are named %q", c.Name)
		}
		names[c.Name] = true
		if c.Class != "" {
			negative++
		}
		if kinds[c.Kind] == "" || verifiers[c.Kind] == nil {
			t.Errorf("%s: nothing says what a %q is", c.Name, c.Kind)
		}
		if !wire.Code(c.Class).Known() && c.Class != "" && c.Class != string(badKey) && linkClasses[class(c.Class)] == "" {
			t.Errorf("%s: nothing explains the class %q", c.Name, c.Class)
		}
	}
	for _, name := range vectors.Files {
		for kind, text := range must(vectors.Read(name))(t).Kinds {
			if text != kinds[kind] {
				t.Errorf("%s says of %q: %s", name, kind, text)
			}
		}
	}
	t.Logf("%d cases, %d of them negative", len(cases), negative)
	if len(cases) < 250 || negative < 150 {
		t.Errorf("%d cases, %d of them negative; want 250 and 150", len(cases), negative)
	}
}

// beyond are codes that stand in the verifiers' packages and are refusals of
// something else than what comes from outside.
var beyond = map[string]string{
	string(wire.CodeTooLarge): "what a sender is told of its own body",
}

// TestEveryCode: every code that a verifier may return has a case.
func TestEveryCode(t *testing.T) {
	t.Parallel()
	has := map[string]bool{}
	for _, c := range all(t) {
		has[c.Class] = true
	}
	values := constants(t, "../wire/codes.go")
	used := 0
	for _, pattern := range []string{"../trust/*.go", "../seal/*.go", "../wire/codec.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatal(pattern, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			for _, name := range codesIn(t, file) {
				used++
				if code := values[name]; !has[code] && beyond[code] == "" {
					t.Errorf("%s: %s (%q) has no case", file, name, code)
				}
			}
		}
	}
	if used < 50 {
		t.Errorf("found only %d uses of codes", used)
	}
	for c := range linkClasses {
		if !has[string(c)] {
			t.Errorf("class %q has no case", c)
		}
	}
}

func parse(t *testing.T, file string) *ast.File {
	t.Helper()
	return must(parser.ParseFile(token.NewFileSet(), file, nil, 0))(t)
}

// constants are the codes by the names of their constants.
func constants(t *testing.T, file string) map[string]string {
	t.Helper()
	out := map[string]string{}
	ast.Inspect(parse(t, file), func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && len(v.Values) == 1 && strings.HasPrefix(v.Names[0].Name, "Code") {
			if lit, ok := v.Values[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
				out[v.Names[0].Name] = must(strconv.Unquote(lit.Value))(t)
			}
		}
		return true
	})
	return out
}

// codesIn are the names of the codes that a file speaks of.
func codesIn(t *testing.T, file string) (out []string) {
	t.Helper()
	ast.Inspect(parse(t, file), func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && strings.HasPrefix(id.Name, "Code") && id.Name != "Code" {
			out = append(out, id.Name)
		}
		return true
	})
	return out
}

// TestMutants: a verifier that accepts a case it must refuse, refuses it for
// another reason, refuses what is valid or makes something else of it is caught.
func TestMutants(t *testing.T) {
	t.Parallel()
	another := wire.Faultf(wire.CodeStaleMembers, "")
	for _, c := range all(t) {
		out, err := verifiers[c.Kind](c.In)
		type answer struct {
			out any
			err error
		}
		mutants := map[string]answer{
			"refuses it for another reason": {out, another}, "fails without a class": {out, errors.New("x")}, "yields something else": {"x", err},
		}
		if c.Class != "" {
			mutants["accepts it"] = answer{out, nil}
		}
		for what, m := range mutants {
			if judge(c, func(json.RawMessage) (any, error) { return m.out, m.err }) == nil {
				t.Errorf("%s: nobody notices a verifier that %s", c.Name, what)
			}
		}
	}
}
