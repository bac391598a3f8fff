package sqlite

import (
	"net/url"
	"strings"
	"testing"
)

// FuzzDSN: no path reaches into the query, and the path is what it was.
func FuzzDSN(f *testing.F) {
	for _, s := range []string{"/var/lib/mesh.db", "mesh.db", "/a?_journal_mode=OFF#x", "/a%3fb", "//host/x", "/ü \x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		query, ok := strings.CutPrefix(dsn(path, commonQuery), "file:")
		if !ok {
			t.Fatalf("%q becomes %q", path, dsn(path, commonQuery))
		}
		escaped, query, _ := strings.Cut(query, "?")
		got, err := url.PathUnescape(escaped)
		if err != nil || query != commonQuery || strings.TrimPrefix(got, "//") != strings.TrimPrefix(path, "//") && got != "./"+path {
			t.Fatalf("%q becomes %q", path, dsn(path, commonQuery))
		}
	})
}
