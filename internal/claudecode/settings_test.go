package claudecode

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestObject(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ before, after string }{
		{"{}", "{\n  \"new\": 1\n}"},
		{"{}\n", "{\n  \"new\": 1\n}\n"},
		{`{"a":1}`, `{"a":1,"new": 1}`},
		{"{\n\t\"b\": [1,\n2],\n\t\"a\": {\"x\" : \"}\"}\n}\n", "{\n\t\"b\": [1,\n2],\n\t\"a\": {\"x\" : \"}\"},\n\t\"new\": 1\n}\n"},
		{"{ \"a\": 1.50, \"\\u00e9\": 12345678901234567890 }", "{ \"a\": 1.50, \"\\u00e9\": 12345678901234567890, \"new\": 1 }"},
		{"{\r\n  \"a\": 1\r\n}", "{\r\n  \"a\": 1,\r\n  \"new\": 1\r\n}"},
	} {
		o, err := parseObject([]byte(c.before))
		if err != nil {
			t.Fatal(err)
		}
		after := o.add("new", "1")
		if string(after) != c.after {
			t.Errorf("%q: %q, want %q", c.before, after, c.after)
		}
		o, err = parseObject(after)
		if err != nil {
			t.Fatalf("%v: %q", err, after)
		}
		if back := o.remove(o.index("new")); string(back) != c.before {
			t.Errorf("%q came back as %q", c.before, back)
		}
	}
}

func TestObjectRemoveFirst(t *testing.T) {
	t.Parallel()
	o, err := parseObject([]byte("{\n  \"a\": 1,\n  \"b\": 2\n}"))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(o.remove(0)); got != "{\n  \"b\": 2\n}" {
		t.Errorf("%q", got)
	}
}

func TestObjectRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "[]", "null", "{", `{"a":1,}`, "{} {}", `{"a":1,"a":2}`, "// c\n{}", "\ufeff{}", `{"a":01}`} {
		if _, err := parseObject([]byte(text)); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

// FuzzObject: what is added and taken out again leaves no trace, and all else as it was.
func FuzzObject(f *testing.F) {
	f.Add([]byte("{}"))
	f.Add([]byte("{\n  \"a\": {\"b\": [1, \"}\"]},\n  \"c\": null\n}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		o, err := parseObject(text)
		if err != nil || o.value("new") != nil {
			return
		}
		o2, err := parseObject(o.add("new", `{"x": "y"}`))
		if err != nil || len(o2.members) != len(o.members)+1 {
			t.Fatalf("%v: %q", err, o.add("new", "1"))
		}
		back := o2.remove(o2.index("new"))
		if len(o.members) > 0 && !bytes.Equal(back, text) {
			t.Errorf("%q came back as %q", text, back)
		}
		for i := range o.members {
			rest, err := parseObject(o.remove(i))
			if err != nil || len(rest.members) != len(o.members)-1 {
				t.Errorf("without %d: %v", i, err)
			}
		}
	})
}

func setupIn(t *testing.T) Setup {
	t.Helper()
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, ".claude"), 0o700); err != nil {
		t.Fatal(err)
	}
	return Setup{Dir: filepath.Join(home, ".claudemesh"), Command: awkward, Product: "v1.2.3", Client: Find("", home, "", home)}
}

func TestStatusLine(t *testing.T) {
	t.Parallel()
	for _, before := range []string{"", "{}", "{\n\t\"model\": \"opus\"\n}"} {
		s := setupIn(t)
		path := s.Client.settings()
		if before != "" {
			put(t, path, before, 0o640)
		}
		plan, err := s.Install(t.Context(), Options{StatusLine: true})
		if err != nil {
			t.Fatal(err)
		}
		run(t, plan)
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), `"refreshInterval": 5`) || !strings.Contains(string(text), quoteJSON(s.statusLine())) {
			t.Fatalf("%s, %v", text, err)
		}
		if info, err := os.Stat(path); before != "" && runtime.GOOS != "windows" && (err != nil || info.Mode().Perm() != 0o640) {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
		plan, err = s.Uninstall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		run(t, plan)
		if text, err := os.ReadFile(path); string(text) != before || (err == nil) != (before != "") {
			t.Errorf("%q came back as %q, %v", before, text, err)
		}
		if _, err := os.Stat(s.Dir); err == nil {
			t.Error("the directory that install made stays")
		}
	}
}

func TestStatusLineOfOnesOwn(t *testing.T) {
	t.Parallel()
	for text, ok := range map[string]bool{`{"statusLine":{"type":"command","command":"mine"}}`: true, "{,}": false} {
		s := setupIn(t)
		put(t, s.Client.settings(), text, 0o600)
		plan, err := s.Install(t.Context(), Options{StatusLine: true})
		if (err == nil) != ok || ok && len(plan.Notes) != 1 {
			t.Errorf("%s: %v, %+v", text, err, plan)
		}
		if ok {
			run(t, plan)
		}
		if got, err := os.ReadFile(s.Client.settings()); err != nil || string(got) != text {
			t.Errorf("%s became %s, %v", text, got, err)
		}
	}
}

// What was changed between install and uninstall stays; only what claude left empty goes.
func TestTidySettings(t *testing.T) {
	t.Parallel()
	was := "{\n\t\"a\": 1, \"enabledPlugins\": {}\n}"
	for _, c := range []struct {
		before    *string
		now, want string
	}{
		{&was, `{"enabledPlugins": {}, "a": 1, "extraKnownMarketplaces": {}}`, was},
		{&was, `{"enabledPlugins": {}, "a": 1, "b": 2, "extraKnownMarketplaces": {}}`, `{"enabledPlugins": {}, "a": 1, "b": 2}`},
		{&was, `{"enabledPlugins": {}, "a": 1, "extraKnownMarketplaces": {"x": {}}}`, `{"enabledPlugins": {}, "a": 1, "extraKnownMarketplaces": {"x": {}}}`},
		{nil, `{"enabledPlugins": {}, "b": 2}`, `{"b": 2}`},
		{nil, `{"enabledPlugins": {}, "extraKnownMarketplaces": {}}`, ""},
	} {
		s := setupIn(t)
		put(t, s.Client.settings(), c.now, 0o600)
		if err := s.tidy(&before{Settings: c.before}); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(s.Client.settings()); string(got) != c.want {
			t.Errorf("%s became %q, want %q", c.now, got, c.want)
		}
	}
}

func put(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, p *Plan) {
	t.Helper()
	if err := p.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
}
