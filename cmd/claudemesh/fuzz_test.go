package main

import (
	"io"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// FuzzSpan: a duration is no longer than its days and the longest time there
// is allow, and never below zero.
func FuzzSpan(f *testing.F) {
	for _, s := range []string{"7d", "1d12h", "90s", "", "d", "65535d", "1d2562047h", "-1h", "1.5h", "7dd"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := parseSpan(s); d < 0 || err != nil && d != 0 {
			t.Fatalf("%q is %v, %v", s, d, err)
		}
	})
}

// FuzzBroker: what is taken as a broker's address is a socket URL without a
// password that the client takes, and is itself again.
func FuzzBroker(f *testing.F) {
	for _, s := range []string{"mesh.example.com", "localhost:7900", "https://mesh.example.com/x/", "ws://[::1]:1/ws", "wss://u:p@h", "wss://h/?q", "h#f", "[::1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := normalizeBroker(s)
		if err != nil {
			return
		}
		u, err := url.Parse(got)
		if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" || !strings.HasSuffix(u.Path, wire.PathWS) {
			t.Fatalf("%q became %q", s, got)
		}
		if err := client.CheckBroker(got, true); err != nil {
			t.Fatalf("%q became %q: %v", s, got, err)
		}
		if again, err := normalizeBroker(got); err != nil || again != got {
			t.Fatalf("%q became %q, then %q: %v", s, got, again, err)
		}
	})
}

// FuzzGroups: groups are valid names, in order, each once, and are read again
// from what a session hands down.
func FuzzGroups(f *testing.F) {
	for _, s := range []string{"", "backend:lead,review", "@a,b:", "a,a", ":x", "a:b:c", " b , a "} {
		f.Add(s, "dev")
		f.Add(s, "")
	}
	f.Fuzz(func(t *testing.T, text, role string) {
		groups, err := parseGroups(text, role)
		if err != nil {
			return
		}
		for i, g := range groups {
			if !trust.ValidName(g.Name) || g.Role != "" && !trust.ValidName(g.Role) || i > 0 && groups[i-1].Name >= g.Name {
				t.Fatalf("%q is %+v", text, groups)
			}
		}
		for _, v := range (session{groups: groups}).environ() {
			again, err := parseGroups(strings.TrimPrefix(v, envGroups+"="), "")
			if err != nil || len(again) != len(groups) {
				t.Fatalf("%q is handed down as %q: %v", text, v, err)
			}
		}
	})
}

// FuzzOrigin: what a repository's configuration says of its origin is named
// without a password.
func FuzzOrigin(f *testing.F) {
	for _, s := range []string{"https://u:hush-hush@host/a.git", "git@host:a/b.git", "ssh://u:hush-hush@host:22/a", "/srv/a.git", "u:hush-hush@%zz", "https://u:hush%zzhush@host/a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, u string) {
		got := originName("[core]\n\turl = x\n[remote \"origin\"]\n\turl = " + u + "\n")
		if p, err := url.Parse(strings.TrimSpace(u)); err == nil && p.Host != "" && p.User != nil {
			if pass, _ := p.User.Password(); len(pass) > 8 && !strings.Contains(p.Host+p.Path, pass) && strings.Contains(got, pass) {
				t.Fatalf("%q is named %q", u, got)
			}
		}
	})
}

// FuzzInput: a message is what came in but for one line break at its end, and a
// line is the first that is not blank, however they arrive.
func FuzzInput(f *testing.F) {
	for _, s := range []string{"", "hello", "hello\r\n", "\n\n link \n more", strings.Repeat("x", wire.MaxBodyBytes+3)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, in := range []func(io.Reader) io.Reader{iotest.HalfReader, iotest.DataErrReader} {
			got, err := readMessage(in(strings.NewReader(s)))
			if len(got) > wire.MaxBodyBytes || err == nil && !strings.HasPrefix(s, got) || len(s)-len(got) > 2 && err == nil {
				t.Fatalf("%q is read as %q: %v", s, got, err)
			}
			line, err := readLine(in(strings.NewReader(s)))
			if (err == nil) != (line != "") || strings.ContainsAny(line, "\n") || line != strings.TrimSpace(line) || !strings.Contains(s, line) {
				t.Fatalf("%q is read as the line %q: %v", s, line, err)
			}
		}
	})
}
