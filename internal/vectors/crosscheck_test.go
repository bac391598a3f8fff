package vectors_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/internal/vectors"
)

// libsodium runs crosscheck.mjs on a directory of vectors and returns what it
// prints and whether it is content. Without node or the package it skips the
// test; under CI it must not.
func libsodium(t *testing.T, dir string) (out string, content bool) {
	t.Helper()
	lack := func(reason string) {
		t.Helper()
		if os.Getenv("CI") != "" {
			t.Fatal(reason)
		}
		t.Skip(reason)
	}
	for _, program := range []string{"node", "npm", "sh"} {
		if _, err := exec.LookPath(program); err != nil {
			lack("needs " + program + ": " + err.Error())
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	install := exec.CommandContext(ctx, "sh", "install.sh")
	install.Env = append(os.Environ(), "npm_config_fetch_retries=1", "npm_config_fetch_timeout=20000")
	if b, err := install.CombinedOutput(); err != nil {
		lack("libsodium-wrappers cannot be had: " + err.Error() + "\n" + string(b))
	}
	b, err := exec.CommandContext(ctx, "node", "crosscheck.mjs", dir).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1) {
		t.Fatalf("%v\n%s", err, b)
	}
	return string(b), err == nil
}

// TestLibsodium holds the set against libsodium by a second implementation.
func TestLibsodium(t *testing.T) {
	out, content := libsodium(t, "testdata")
	if !content {
		t.Error(out)
	}
	t.Log(out)
}

// TestLibsodiumSeesDamage breaks every case that the cross-check looks into,
// and it must find each.
func TestLibsodiumSeesDamage(t *testing.T) {
	dir := t.TempDir()
	b, err := os.ReadFile("testdata/mesh.json")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "mesh.json"), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	var broken []string
	for _, name := range vectors.Files {
		f := must(vectors.Read(name))(t)
		f.Cases = slices.DeleteFunc(f.Cases, func(c vectors.Case) bool { return !damage(&c) })
		for i := range f.Cases {
			damage(&f.Cases[i])
			broken = append(broken, "FAIL "+name+".json "+f.Cases[i].Name+": ")
		}
		if err := os.WriteFile(filepath.Join(dir, name+".json"), lay(f), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if len(broken) < 500 {
		t.Errorf("only %d cases can be broken", len(broken))
	}
	out, content := libsodium(t, dir)
	if content {
		t.Error("damaged vectors pass")
	}
	for _, line := range broken {
		if !strings.Contains(out, line) {
			t.Errorf("not seen: %s", line)
		}
	}
}

var (
	sigDigit   = regexp.MustCompile(`"sig":"([0-9a-f])`)
	firstValue = regexp.MustCompile(`:"?([0-9A-Za-z])[^u]`) // but null's
)

// byRule are the kinds whose refusals libsodium has nothing to say of.
var byRule = []string{"genesis", "certificate", "capability", "close", "removal", "role", "pause", "roster", "standing", "link", "frame", "message"}

// damage makes a case wrong: a refusal is said to be valid, what is valid to
// yield something else or to be signed otherwise. It reports whether it could.
func damage(c *vectors.Case) bool {
	rule, story := slices.Contains(byRule, c.Kind), c.Kind == "roster" || c.Kind == "standing"
	switch {
	case story:
		c.Class = ""
		return alter(&c.In, sigDigit)
	case c.Class != "" && rule && c.Class != badSignature:
		return false
	case c.Class != "":
		c.Class = ""
		return true
	case c.Out != nil:
		return alter(&c.Out, firstValue)
	}
	return alter(&c.In, sigDigit)
}

// alter changes the character that the pattern finds.
func alter[B ~[]byte](b *B, where *regexp.Regexp) bool {
	at := where.FindSubmatchIndex(*b)
	if at == nil {
		return false
	}
	c := slices.Clone(*b)
	c[at[2]] = map[bool]byte{true: '2', false: '1'}[c[at[2]] == '1']
	*b = c
	return true
}
