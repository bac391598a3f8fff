package trust

import (
	"encoding/base64"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func testLink() Link {
	return Link{Broker: "wss://mesh.example/ws", BrokerKey: pub("broker"), Owner: pub("owner"), Secret: secret("open")}
}

func TestLinkForms(t *testing.T) {
	t.Parallel()
	l := testLink()
	for _, s := range []string{l.String(), l.Web("https://mesh.example"), l.Web("https://mesh.example/"), l.Web("http://127.0.0.1:8080"),
		"  " + l.String() + "\n"} {
		if got, err := ParseLink(s); err != nil || got != l {
			t.Errorf("%s: %v", s, err)
		}
	}
	if want := "https://mesh.example/i/" + inviteID("open").String() + "#"; !strings.HasPrefix(l.Web("https://mesh.example/"), want) {
		t.Errorf("%s, want %s", l.Web("https://mesh.example/"), want)
	}
}

func TestLinkDamage(t *testing.T) {
	t.Parallel()
	b64 := func(json string) string { return linkPrefix + base64.RawURLEncoding.EncodeToString([]byte(json)) }
	payload := strings.TrimPrefix(testLink().String(), linkPrefix)
	raw, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		t.Fatal(err)
	}
	edit := func(from, to string) string {
		if !strings.Contains(string(raw), from) {
			t.Fatalf("%s holds no %s", raw, from)
		}
		return b64(strings.Replace(string(raw), from, to, 1))
	}
	broker := func(u string) string { return edit("wss://mesh.example/ws", u) }
	secret64 := base64.StdEncoding.EncodeToString(bytes32(testLink().Secret))
	const notLink, damaged, noBroker, badKey = "starts with", "damaged", "names no ws", "bad key"
	for _, tt := range []struct{ name, link, want string }{
		{"nothing", "", notLink},
		{"a word", "hello", notLink},
		{"another scheme", "icx://join/" + payload, notLink},
		{"an upper case scheme", "IC://join/" + payload, notLink},
		{"ftp", "ftp://mesh.example/i/x#" + payload, notLink},
		{"another page", "https://mesh.example/j/x#" + payload, notLink},
		{"no URL", "https://mesh.example/%zz", notLink},
		{"no fragment", "https://mesh.example/i/" + inviteID("open").String(), "lost the part"},
		{"an empty fragment", "https://mesh.example/i/x#", "lost the part"},
		{"no payload", linkPrefix, damaged},
		{"cut in the middle", linkPrefix + payload[:len(payload)/2], damaged},
		{"cut by one", linkPrefix + payload[:len(payload)-1], damaged},
		{"a line break within", linkPrefix + payload[:9] + " " + payload[9:], damaged},
		{"standard base64", linkPrefix + base64.StdEncoding.EncodeToString([]byte(`{"v":2,"broker":"???>>>"}`)), damaged},
		{"padding", linkPrefix + payload + "=", damaged},
		{"words after it", linkPrefix + payload + " and more", damaged},
		{"no JSON", b64("hello"), damaged},
		{"an array", b64("[]"), damaged},
		{"a string", b64(`"x"`), damaged},
		{"bytes after the JSON", b64(string(raw) + "x"), damaged},
		{"a key twice", edit(`{"v":2,`, `{"v":2,"v":2,`), damaged},
		{"invalid UTF-8", broker("wss://\xff/ws"), damaged},
		{"version 1", edit(`"v":2`, `"v":1`), "another version"},
		{"version 3", edit(`"v":2`, `"v":3`), "another version"},
		{"no version", edit(`"v":2,`, ``), "another version"},
		{"a version as text", edit(`"v":2`, `"v":"2"`), damaged},
		{"an owner key in capitals", edit(pub("owner").String(), strings.ToUpper(pub("owner").String())), damaged},
		{"a short owner key", edit(pub("owner").String(), pub("owner").String()[2:]), damaged},
		{"an owner key of zeros", edit(pub("owner").String(), strings.Repeat("0", 64)), badKey},
		{"an owner key of small order", edit(pub("owner").String(), "01"+strings.Repeat("0", 62)), badKey},
		{"a broker key of small order", edit(pub("broker").String(), "01"+strings.Repeat("0", 62)), badKey},
		{"no broker key", edit(`"brokerKey":"`+pub("broker").String()+`",`, ""), badKey},
		{"a short secret", edit(secret64, base64.StdEncoding.EncodeToString(make([]byte, 31))), badKey},
		{"a long secret", edit(secret64, base64.StdEncoding.EncodeToString(make([]byte, 33))), badKey},
		{"no secret", edit(secret64, ""), badKey},
		{"no broker", broker(""), noBroker},
		{"http", broker("http://mesh.example/ws"), noBroker},
		{"https", broker("https://mesh.example/ws"), noBroker},
		{"a file", broker("file:///etc/passwd"), noBroker},
		{"userinfo", broker("wss://me:secret@mesh.example/ws"), noBroker},
		{"a user", broker("wss://me@mesh.example/ws"), noBroker},
		{"no host", broker("wss:///ws"), noBroker},
		{"only a port", broker("wss://:443/ws"), noBroker},
		{"opaque", broker("wss:mesh.example"), noBroker},
		{"no URL as broker", broker("wss://mesh example/ws"), noBroker},
		{"a line break in the broker", broker(`wss://mesh.example/\nx`), noBroker},
		{"oversized", linkPrefix + payload + strings.Repeat("A", maxLink), "too long"},
		{"oversized broker", broker("wss://" + strings.Repeat("a", maxLink) + "/"), "too long"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l, err := ParseLink(tt.link)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%+v, %v; want %q", l.Broker, err, tt.want)
			}
			if err != nil && len(payload) > 40 && strings.Contains(err.Error(), secret64[:12]) {
				t.Error("the error tells the secret")
			}
		})
	}
}

func TestLinkRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		l := Link{
			Broker: rapid.SampledFrom([]string{"ws", "wss"}).Draw(rt, "scheme") + "://" +
				rapid.StringMatching(`([a-z0-9-]{1,20}(\.[a-z]{2,8}){0,3}|\[::1\])(:[1-9][0-9]{1,3})?(/[a-zA-Z0-9_~<>&+é]{0,20}){0,3}`).Draw(rt, "host"),
			BrokerKey: SecretKeyFromSeed(draw32(rt, "broker")).Public(),
			Owner:     SecretKeyFromSeed(draw32(rt, "owner")).Public(),
			Secret:    draw32(rt, "secret"),
		}
		for _, s := range []string{l.String(), l.Web("https://mesh.example")} {
			if got, err := ParseLink(s); err != nil || got != l {
				rt.Fatalf("%s: %v", s, err)
			}
		}
	})
}

func draw32(rt *rapid.T, what string) [32]byte {
	return [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(rt, what))
}

func TestSecretDerivations(t *testing.T) {
	t.Parallel()
	s := secret("open")
	all := [][32]byte{s, s.InviteKey().Seed(), s.BlobKey(), PreviousKey(s)}
	for i := range all {
		for j := range i {
			if all[i] == all[j] {
				t.Errorf("derivations %d and %d are the same", i, j)
			}
		}
	}
	first, second := NewSecret(), NewSecret()
	one, other := NewSecretKey().Seed(), NewSecretKey().Seed()
	if first == second || one == other {
		t.Error("two draws are the same")
	}
}

func bytes32(b [32]byte) []byte { return b[:] }
