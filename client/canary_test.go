package client_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/meshtest"
	"github.com/claudemesh/claudemesh/internal/pgtest"
)

// lockedBuffer is a log that is written and read at once.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.b.Bytes())
}

// shapes are the forms in which a canary could show: raw, hex, and base64 at
// each of the three offsets.
func shapes(canary string) map[string][]byte {
	out := map[string][]byte{"raw": []byte(canary), "hex": []byte(hex.EncodeToString([]byte(canary)))}
	for i := range 3 {
		s := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", i) + canary + "yy"))
		out["base64+"+string(rune('0'+i))] = []byte(s[4 : len(s)-4]) // what does not depend on its neighbours
	}
	return out
}

func newCanary(what string) string { return what + "-" + rand.Text() }

// TestCanaries holds claim 1: nothing that members say, or say of themselves,
// stands in what the broker stores, logs, counts or relays.
func TestCanaries(t *testing.T) {
	body, label, group, role := newCanary("body"), "label-canary-"+strings.ToLower(rand.Text())[:12], "group-canary-"+strings.ToLower(rand.Text())[:12], "role-canary-"+strings.ToLower(rand.Text())[:12]
	summary, cwd, host, branch := newCanary("summary"), "/home/"+newCanary("cwd"), newCanary("host"), newCanary("branch")
	logs := new(lockedBuffer)
	w := meshtest.New(t, func(c *broker.Config) {
		c.Logger = slog.New(slog.NewJSONHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	am := w.Found("acme", "alice")
	alice := w.Dial(am, "web", nil)
	bm := w.Join(alice, "member", "bob")
	relay := w.Relay()
	bm.Broker = relay.URL
	bob := w.Dial(bm, label, func(o *client.Options) {
		o.Card.Summary, o.Card.Cwd, o.Card.Host, o.Card.Branch = summary, cwd, host, branch
	})
	if err := bob.JoinGroup(t.Context(), group, role); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"bob/" + label, "@" + group, "*"} {
		send(t, alice, to, body)
		if r := w.Next(bob); r.Text != body {
			t.Fatalf("received %q", r.Text)
		}
	}
	send(t, bob, "alice/web", body)
	w.Next(alice)
	_ = bob.Close()
	send(t, alice, "bob/"+label, body) // stays in the queue
	metrics := get(t, strings.TrimSuffix(strings.Replace(w.URL, "ws", "http", 1), "/ws")+"/metrics")

	places := map[string][]byte{"log": logs.bytes(), "metrics": metrics, "frames": relay.Seen()}
	known := databaseOf(t, w, places)
	// The search itself works: what the broker is said to know is there.
	if !bytes.Contains(places[known], []byte("alice")) || !bytes.Contains(places["frames"], []byte(`"type":"push"`)) {
		t.Fatal("the search finds nothing at all")
	}
	for _, canary := range []string{body, label, group, role, summary, cwd, host, branch} {
		for shape, form := range shapes(canary) {
			for place, content := range places {
				if bytes.Contains(content, form) {
					t.Errorf("%s stands in %s, %s", canary, place, shape)
				}
			}
		}
	}
}

// databaseOf adds what the broker has stored, and says where members' names are.
func databaseOf(t *testing.T, w *meshtest.World, places map[string][]byte) (known string) {
	t.Helper()
	if w.DB != "" {
		places["rows"] = pgtest.Rows(t, w.DB)
		return "rows"
	}
	files, err := filepath.Glob(w.File + "*")
	if err != nil || len(files) < 2 {
		t.Fatalf("database files: %v %v", files, err)
	}
	for _, f := range files {
		if places[filepath.Base(f)], err = os.ReadFile(f); err != nil {
			t.Fatal(err)
		}
	}
	return "mesh.db-wal"
}

func get(t *testing.T, url string) []byte {
	t.Helper()
	resp, err := http.Get(url) // the test's own broker
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
