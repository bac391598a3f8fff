package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/claudemesh/claudemesh/internal/meshtest"
	"github.com/claudemesh/claudemesh/internal/profile"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// TestCaught: status and doctor say what a broker is caught at.
func TestCaught(t *testing.T) {
	t.Parallel()
	w := meshtest.New(t, nil)
	m := w.Found("acme", "alice")
	relay := w.Relay()
	m.Broker = relay.URL
	relay.Hook(func(_ bool, f wire.Frame) []wire.Frame {
		if l, ok := f.(*wire.MembersList); ok {
			eve := trust.NewSecretKey()
			l.Certificates = append(l.Certificates, wire.Certificate{trust.SignFounder(eve, eve.Public(), "eve", 1)})
		}
		return []wire.Frame{f}
	})
	for command, want := range map[string]string{
		"status": "caught  the broker shows what does not hold, and nothing of it was taken: a signature does not verify (bad_signature, times: ",
		"doctor": "fail  acme       the broker shows what does not hold, and nothing of it was taken: a signature does not verify (bad_signature",
	} {
		dir := filepath.Join(t.TempDir(), "alice")
		p, err := profile.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Add(m); err != nil {
			t.Fatal(err)
		}
		var out, errw bytes.Buffer
		args := []string{"claudemesh", "--config-dir", dir, command}
		run(t.Context(), args, strings.NewReader(""), &out, &errw, func(string) string { return "" })
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s says\n%s%s", command, &out, &errw)
		}
	}
}
