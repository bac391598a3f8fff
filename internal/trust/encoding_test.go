package trust

import "testing"

// T's layout, spelled out once by hand.
func TestEncoding(t *testing.T) {
	t.Parallel()
	got := string(T("ds", []byte("ab"), nil, U64(258)))
	want := "claudemesh/v2/ds\x00" + "\x00\x00\x00\x02ab" + "\x00\x00\x00\x00" + "\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x01\x02"
	if got != want {
		t.Errorf("%q", got)
	}
	if H("ds") != sum("claudemesh/v2/ds\x00") {
		t.Error("H")
	}
}
