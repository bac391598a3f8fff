package main

import (
	"net/url"
	"strings"
	"testing"

	"github.com/claudemesh/claudemesh/internal/postgres"
)

// FuzzDatabase: what --db names is a file or a URL, and is shown without a password.
func FuzzDatabase(f *testing.F) {
	for _, s := range []string{"mesh.db", "postgres://a:hush-hush@db/m", "postgres://db/m?password=hush-hush", "mysql://x", "postgres://a:hu%zzsh@db/", "POSTGRES://a:b@c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := parseDatabase("db", s)
		if err != nil {
			return
		}
		if (d.url != "") != postgres.IsURL(s) || d.url == "" && d.file != s {
			t.Fatalf("%q is %+v", s, d)
		}
		u, err := url.Parse(d.url)
		if err != nil {
			if shown := d.String(); shown != "postgres" {
				t.Fatalf("%q is shown as %q", s, shown)
			}
			return
		}
		inURL, _ := u.User.Password()
		for _, pass := range []string{inURL, u.Query().Get("password")} {
			if len(pass) > 8 && strings.Contains(d.String(), pass) && !strings.Contains(u.Host+u.Path+u.Query().Get("host"), pass) {
				t.Fatalf("%q is shown as %q", s, d)
			}
		}
	})
}
