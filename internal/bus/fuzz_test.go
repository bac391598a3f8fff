package bus

import (
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"testing"
)

// FuzzSpec: what is no bus is refused without a word of it, for it may hold a
// password; of what is one, every part is a server's URL.
func FuzzSpec(f *testing.F) {
	for _, s := range []string{
		"nats://u:s3cret@host:4222", "tls://a, nats://b", "nats://good,http://u:s3cret@bad", "nats://u:s3cret@%zz", "nats://", "",
		"postgres://u:s3cret@host:port/x", "postgres://u:s3cret@host/x?connect_timeout=s3cret", "host=x password='s3cret",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		switch err := checkURLs(s); {
		case err == nil:
			for part := range strings.SplitSeq(s, ",") {
				if u, err := url.Parse(strings.TrimSpace(part)); err != nil || u.Host == "" {
					t.Fatalf("%q is taken: %v", s, err)
				}
			}
		case !errors.Is(err, ErrSpec) || err.Error() != ErrSpec.Error()+": the URL cannot be parsed":
			t.Fatalf("%q: %v", s, err)
		}
		for _, word := range []string{"service", "passfile", "ssl"} {
			if strings.Contains(s, word) {
				return // it names files, which would be read
			}
		}
		b, err := Postgres(s, slog.New(slog.DiscardHandler))
		if err != nil && err.Error() != "bus: the database URL cannot be parsed" {
			t.Fatalf("%q: %v", s, err)
		}
		if err == nil {
			_ = b.Close()
		}
	})
}
