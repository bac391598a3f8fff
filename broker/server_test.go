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
		{"an upgrade and nothing", upgrade},
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

const upgrade = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"

// open connects and says something.
func open(t *testing.T, w *world, says string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(w.URL, "ws://"), "/ws"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := io.WriteString(conn, says); err != nil {
		t.Fatal(err)
	}
	return conn
}

// A refused hello's socket is closed soon, though the stranger does not answer.
func TestRefusedHelloIsClosed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	open(t, w, upgrade+"\x81\x87\x00\x00\x00\x00garbage")
	began := time.Now()
	w.eventually("it is there", func() bool { return broker.Connections(w.Broker) == 1 })
	w.eventually("it is closed", func() bool { return broker.Connections(w.Broker) == 0 })
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("closed after %s", took)
	}
}

// A refused upgrade leaves no connection behind, which nothing would count.
func TestRefusedUpgradeIsClosed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *broker.Config) { c.Limits.PreAuthPerAddress = 1 })
	open(t, w, upgrade)
	w.eventually("it is there", func() bool { return broker.Connections(w.Broker) == 1 })
	conn := open(t, w, upgrade)
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	got, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 429") {
		t.Errorf("%q, then %v", got, err)
	}
}
