package vectors_test

import (
	"encoding/base64"
	"strings"

	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/vectors"
)

func aLink() trust.Link {
	return trust.Link{Broker: "wss://mesh.example/ws", BrokerKey: pub("broker"), Owner: pub("owner"), Secret: secret("open")}
}

func linkCases() (out []vectors.Case) {
	const prefix = "ic://join/"
	l := aLink()
	yields := linkOut{l.Broker, l.BrokerKey, l.Owner, l.Secret[:]}
	for _, c := range []struct{ name, link string }{
		{"the short form", l.String()}, {"the web form", l.Web("https://mesh.example")}, {"of a broker without TLS", l.Web("http://127.0.0.1:8080")},
		{"white space around it", "  " + l.String() + "\n"},
	} {
		out = append(out, newCase("link", "link: "+c.name, "", linkIn{c.link}, yields))
	}
	b64 := func(json string) string { return prefix + base64.RawURLEncoding.EncodeToString([]byte(json)) }
	payload := strings.TrimPrefix(aLink().String(), prefix)
	raw, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		panic(err)
	}
	edit := func(from, to string) string {
		if !strings.Contains(string(raw), from) {
			panic("the link holds no " + from)
		}
		return b64(strings.Replace(string(raw), from, to, 1))
	}
	broker := func(u string) string { return edit("wss://mesh.example/ws", u) }
	open := secret("open")
	secret64 := base64.StdEncoding.EncodeToString(open[:])
	for _, c := range []struct{ name, link, class string }{
		{"nothing", "", "link_form"},
		{"a word", "hello", "link_form"},
		{"another scheme", "icx://join/" + payload, "link_form"},
		{"an upper case scheme", "IC://join/" + payload, "link_form"},
		{"ftp", "ftp://mesh.example/i/x#" + payload, "link_form"},
		{"another page", "https://mesh.example/j/x#" + payload, "link_form"},
		{"no URL", "https://mesh.example/%zz", "link_form"},
		{"no fragment", "https://mesh.example/i/" + inviteID("open").String(), "link_secret"},
		{"an empty fragment", "https://mesh.example/i/x#", "link_secret"},
		{"no payload", prefix, "link_damaged"},
		{"cut in the middle", prefix + payload[:len(payload)/2], "link_damaged"},
		{"cut by one", prefix + payload[:len(payload)-1], "link_damaged"},
		{"a line break within", prefix + payload[:9] + " " + payload[9:], "link_damaged"},
		{"standard base64", prefix + base64.StdEncoding.EncodeToString([]byte(`{"v":2,"broker":"???>>>"}`)), "link_damaged"},
		{"padding", prefix + payload + "=", "link_damaged"},
		{"words after it", prefix + payload + " and more", "link_damaged"},
		{"no JSON", b64("hello"), "link_damaged"},
		{"an array", b64("[]"), "link_damaged"},
		{"a string", b64(`"x"`), "link_damaged"},
		{"bytes after the JSON", b64(string(raw) + "x"), "link_damaged"},
		{"a key twice", edit(`{"v":2,`, `{"v":2,"v":2,`), "link_damaged"},
		{"invalid UTF-8", broker("wss://\xff/ws"), "link_damaged"},
		{"version 1", edit(`"v":2`, `"v":1`), "link_version"},
		{"version 3", edit(`"v":2`, `"v":3`), "link_version"},
		{"no version", edit(`"v":2,`, ``), "link_version"},
		{"a version as text", edit(`"v":2`, `"v":"2"`), "link_damaged"},
		{"an owner key in capitals", edit(pub("owner").String(), strings.ToUpper(pub("owner").String())), "link_damaged"},
		{"a short owner key", edit(pub("owner").String(), pub("owner").String()[2:]), "link_damaged"},
		{"an owner key of zeros", edit(pub("owner").String(), strings.Repeat("0", 64)), "link_key"},
		{"an owner key of small order", edit(pub("owner").String(), "01"+strings.Repeat("0", 62)), "link_key"},
		{"a broker key of small order", edit(pub("broker").String(), "01"+strings.Repeat("0", 62)), "link_key"},
		{"no broker key", edit(`"brokerKey":"`+pub("broker").String()+`",`, ""), "link_key"},
		{"a short secret", edit(secret64, base64.StdEncoding.EncodeToString(make([]byte, 31))), "link_key"},
		{"a long secret", edit(secret64, base64.StdEncoding.EncodeToString(make([]byte, 33))), "link_key"},
		{"no secret", edit(secret64, ""), "link_key"},
		{"no broker", broker(""), "link_broker"},
		{"http", broker("http://mesh.example/ws"), "link_broker"},
		{"https", broker("https://mesh.example/ws"), "link_broker"},
		{"a file", broker("file:///etc/passwd"), "link_broker"},
		{"userinfo", broker("wss://me:secret@mesh.example/ws"), "link_broker"},
		{"a user", broker("wss://me@mesh.example/ws"), "link_broker"},
		{"no host", broker("wss:///ws"), "link_broker"},
		{"only a port", broker("wss://:443/ws"), "link_broker"},
		{"opaque", broker("wss:mesh.example"), "link_broker"},
		{"no URL as broker", broker("wss://mesh example/ws"), "link_broker"},
		{"a line break in the broker", broker(`wss://mesh.example/\nx`), "link_broker"},
		{"oversized", prefix + payload + strings.Repeat("A", 4096), "link_too_long"},
		{"oversized broker", broker("wss://" + strings.Repeat("a", 4096) + "/"), "link_too_long"},
	} {
		out = append(out, newCase("link", "link: "+c.name, c.class, linkIn{c.link}, nil))
	}
	return out
}
