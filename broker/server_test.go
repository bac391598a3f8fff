package broker_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/broker"
)

// Nobody holds a socket open by saying nothing, or little, and such sockets are counted.
func TestServerTimeouts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *broker.Config) {
		c.Limits.HelloTimeout, c.Limits.WriteTimeout = 300*time.Millisecond, 300*time.Millisecond
	})
	addr := strings.TrimSuffix(strings.TrimPrefix(w.URL, "ws://"), "/ws")
	for _, c := range []struct{ name, says string }{
		{"nothing", ""},
		{"half a header", "GET /health HTTP/1.1\r\nHost"},
		{"half a body", "POST /v2/join HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"},
		{"a body that nobody reads", "GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"},
		{"an upgrade and nothing", "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprint(conn, c.says)
			began := time.Now()
			_ = conn.SetReadDeadline(began.Add(5 * time.Second))
			if _, err := io.Copy(io.Discard, conn); err != nil && strings.Contains(err.Error(), "timeout") {
				t.Fatal("still open")
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("closed after %v", took)
			}
		})
	}
	w.eventually("three that asked for nothing are counted", func() bool {
		_, body, _ := w.http("GET", "/metrics", "", nil)
		return strings.Contains(string(body), "claudemesh_preauth_dropped_total 3\n")
	})
}
