package deploytest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage"
	"github.com/compose-spec/compose-go/v2/types"
)

// adapt returns the Caddyfile as the configuration that Caddy runs.
func adapt(t *testing.T, domain string) []byte {
	t.Helper()
	t.Setenv("DOMAIN", domain)
	raw, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(read(t, "../Caddyfile")), map[string]any{"filename": "Caddyfile"})
	check(t, err)
	for _, w := range warnings {
		t.Errorf("Caddyfile: %s", w)
	}
	return raw
}

// proxy runs Caddy in this process before the addresses instead of the
// brokers of compose.yml, and returns where it serves.
func proxy(t *testing.T, addrs ...string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	addr := ln.Addr().String()
	check(t, ln.Close())
	text := string(adapt(t, "http://"+addr))
	for i, to := range addrs {
		text = strings.ReplaceAll(text, fmt.Sprintf(`"broker%d:7900"`, i+1), fmt.Sprintf("%q", to))
	}
	var config map[string]any
	check(t, json.Unmarshal([]byte(text), &config))
	config["admin"] = map[string]any{"disabled": true, "config": map[string]any{"persist": false}}
	config["storage"] = map[string]any{"module": "file_system", "root": t.TempDir()}
	config["logging"] = map[string]any{"logs": map[string]any{"default": map[string]any{"level": "PANIC"}}}
	raw, err := json.Marshal(config)
	check(t, err)
	check(t, caddy.Load(raw, true))
	t.Cleanup(func() { _ = caddy.Stop() })
	return addr
}

// The proxy knows the brokers of compose.yml, and the certificate is the domain's.
func TestCaddyUpstreams(t *testing.T) {
	text := string(adapt(t, "mesh.example.com"))
	p := compose(t)
	var want []string
	for _, s := range brokers(p) {
		want = append(want, fmt.Sprintf(`{"dial":"%s:%s"}`, s.Name, dockerfile(t).port))
	}
	if !strings.Contains(text, `"upstreams":[`+strings.Join(want, ",")+`]`) {
		t.Errorf("upstreams are not %v:\n%s", want, text)
	}
	for _, part := range []string{`"host":["mesh.example.com"]`, `"listen":[":443"]`} {
		if !strings.Contains(text, part) {
			t.Errorf("no %s in\n%s", part, text)
		}
	}
	caddyService := p.Services["caddy"]
	if !slices.ContainsFunc(caddyService.Volumes, func(v types.ServiceVolumeConfig) bool {
		return v.Target == "/etc/caddy/Caddyfile" && strings.HasSuffix(v.Source, "/deploy/Caddyfile")
	}) {
		t.Errorf("compose mounts %v", caddyService.Volumes)
	}
}

// What peers ask for passes, WebSockets included; metrics do not. A broker may go.
func TestCaddyServes(t *testing.T) {
	first, stop := start(t)
	second, _ := start(t)
	addr := proxy(t, first, second)
	within(t, "the proxy", func() bool { return status(t, addr, "/health/ready") == http.StatusOK })
	for path, want := range map[string]int{
		"/health": 200, "/metrics": 404, "/metrics/": 404, "/Metrics": 404, "//metrics": 404, "/%6detrics": 404,
		"/i/../metrics": 404, "/i/%2e%2e/metrics": 404, "/v2/../metrics": 404, "/": 404,
	} {
		if got := status(t, addr, path); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
	if status(t, first, "/metrics") != http.StatusOK {
		t.Error("the broker itself has no /metrics: the test proves nothing")
	}
	if got := upgrade(t, addr); got != http.StatusSwitchingProtocols {
		t.Errorf("/ws answers a WebSocket with %d", got)
	}
	stop()
	for range 20 {
		if got := status(t, addr, "/health"); got != http.StatusOK {
			t.Errorf("with one broker of two: %d", got)
		}
	}
}

// upgrade asks for a WebSocket and returns the answer's status.
func upgrade(t *testing.T, addr string) int {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	check(t, err)
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", addr)
	check(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	check(t, err)
	return resp.StatusCode
}

// The header from which brokers take a client's address is the proxy's, not the client's.
func TestCaddyClientAddress(t *testing.T) {
	header := *brokers(compose(t))[0].Environment["CLAUDEMESH_BROKER_CLIENT_IP_HEADER"]
	got := make(chan []string, 1)
	seen := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/ws" {
			got <- r.Header.Values(header)
		}
	}))
	t.Cleanup(seen.Close)
	to := seen.Listener.Addr().String()
	addr := proxy(t, to, to)
	within(t, "the proxy", func() bool { return status(t, addr, "/health/ready") == http.StatusOK })
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/ws", nil)
	check(t, err)
	req.Header.Set(header, "192.0.2.1")
	resp, err := http.DefaultClient.Do(req)
	check(t, err)
	resp.Body.Close()
	select {
	case values := <-got:
		if !slices.Equal(values, []string{"127.0.0.1"}) {
			t.Errorf("%s is %q", header, values)
		}
	default:
		t.Errorf("/ws is not passed on: %d", resp.StatusCode)
	}
}
