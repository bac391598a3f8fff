package trust

import (
	"fmt"
	"strings"
	"testing"
)

// No secret key shows itself, whatever it is printed with.
func TestSecretKeyIsRedacted(t *testing.T) {
	t.Parallel()
	k := key("alice")
	s := k.Seed()
	hexes := []string{fmt.Sprintf("%x", s[:4]), fmt.Sprintf("%X", s[:4]), strings.Trim(fmt.Sprint(s[:4]), "[]"), string(s[:4])}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		for _, v := range []any{k, &k, struct{ K SecretKey }{k}, []SecretKey{k}} {
			out := fmt.Sprintf(verb, v)
			for _, h := range hexes {
				if strings.Contains(out, h) {
					t.Errorf("%s of %T shows the key", verb, v)
				}
			}
		}
	}
	if got := k.LogValue().String(); got != "[redacted]" {
		t.Error(got)
	}
	if (SecretKey{}).IsZero() != true || k.IsZero() {
		t.Error("IsZero")
	}
}
