package main

import (
	"os"
	"strings"
	"testing"

	"github.com/urfave/cli/v3"
)

// TestDocs: docs/operations.md knows every flag with its environment variable,
// and every command.
func TestDocs(t *testing.T) {
	raw, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(raw)
	for _, f := range append(serveFlags(), limitFlags()...) {
		name := f.Names()[0]
		if !strings.Contains(doc, "--"+name) {
			t.Errorf("--%s is not documented", name)
		}
		if v := "CLAUDEMESH_BROKER_" + envName(name); !strings.Contains(doc, v) && !strings.Contains(doc, "`"+envName(name)+"`") {
			t.Errorf("%s is not documented", v)
		}
	}
	walk(command(nil, nil), func(c *cli.Command) {
		if !c.HideHelp && !strings.Contains(doc, c.Name) {
			t.Errorf("command %s is not documented", c.Name)
		}
	})
}
