package mcpserver_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	mcpclient "github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/client/transport"
	"github.com/mark3labs/mcp-go/mcp"
	"go.uber.org/goleak"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/mcpserver"
	"github.com/claudemesh/claudemesh/internal/meshtest"
	"github.com/claudemesh/claudemesh/internal/render"
)

func TestMain(m *testing.M) {
	if os.Getenv("TEST_HOST") != "" { // a host program's process: it runs until its input ends
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	goleak.VerifyTestMain(m)
}

// fleet is a Fleet that tests change.
type fleet struct {
	mu  sync.Mutex
	set client.Set
}

func (f *fleet) Clients() client.Set {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.set
}

func (f *fleet) add(c ...*client.Client) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.set = append(append(client.Set{}, f.set...), c...)
}

// agent is an MCP server with a real MCP client on it.
type agent struct {
	t     testing.TB
	fleet *fleet
	box   client.Mailbox
	host  mailbox.Agent
	mute  bool // no channel
	mcp   *mcpclient.Client
	init  *mcp.InitializeResult
	notes chan mcp.JSONRPCNotification
	end   func() // closes the input and waits for Serve
}

// world starts a broker at which a session that ends is offline at once.
func world(t testing.TB) *meshtest.World {
	return meshtest.New(t, func(c *broker.Config) { c.Limits.Grace = time.Millisecond })
}

// serve starts an MCP server over clients that share a mailbox.
func serve(t testing.TB, box client.Mailbox, clients ...*client.Client) *agent {
	t.Helper()
	return greet(start(t, box, clients...))
}

// greet does the handshake.
func greet(a *agent) *agent {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var err error
	if a.init, err = a.mcp.Initialize(ctx, initialize()); err != nil {
		a.t.Fatal(err)
	}
	return a
}

func initialize() mcp.InitializeRequest {
	var r mcp.InitializeRequest
	r.Params.ProtocolVersion = mcp.ProtocolVersion20251125
	r.Params.ClientInfo = mcp.Implementation{Name: "test", Version: "1"}
	return r
}

// start is serve without the handshake.
func start(t testing.TB, box client.Mailbox, clients ...*client.Client) *agent {
	t.Helper()
	return begin(t, &agent{box: box, fleet: &fleet{set: clients}})
}

// begin starts the server of an agent.
func begin(t testing.TB, a *agent) *agent {
	t.Helper()
	a.t, a.notes = t, make(chan mcp.JSONRPCNotification, 1000)
	in, toServer := io.Pipe()
	fromServer, out := io.Pipe()
	served := make(chan error, 1)
	go func() {
		err := mcpserver.Serve(context.Background(), options(a, in, out))
		_ = out.Close()
		served <- err
	}()
	a.mcp = mcpclient.NewClient(transport.NewIO(fromServer, toServer, io.NopCloser(strings.NewReader(""))))
	a.mcp.OnNotification(func(n mcp.JSONRPCNotification) { a.notes <- n })
	if err := a.mcp.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	a.end = sync.OnceFunc(func() {
		_ = a.mcp.Close()
		select {
		case err := <-served:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Serve does not return")
		}
	})
	t.Cleanup(a.end)
	return a
}

func options(a *agent, in io.Reader, out io.Writer) mcpserver.Options {
	o := mcpserver.Options{Fleet: a.fleet, Mailbox: a.box, Agent: a.host, NoChannel: a.mute, In: in, Out: out, Version: "1.2.3"}
	if os.Getenv("MESHTEST_LOG") != "" {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return o
}

// reply is a tool's result.
type reply struct {
	text   string
	data   map[string]any
	failed bool
}

type args map[string]any

// call calls a tool.
func (a *agent) call(name string, arguments args) reply {
	a.t.Helper()
	r, err := a.try(name, arguments, nil)
	if err != nil {
		a.t.Fatalf("%s %.200v: %v", name, arguments, err)
	}
	return r
}

func (a *agent) try(name string, arguments args, meta *mcp.Meta) (reply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var req mcp.CallToolRequest
	req.Params.Name, req.Params.Arguments, req.Params.Meta = name, map[string]any(arguments), meta
	res, err := a.mcp.CallTool(ctx, req)
	if err != nil {
		return reply{}, err
	}
	r := reply{failed: res.IsError}
	for _, c := range res.Content {
		if t, ok := c.(mcp.TextContent); ok {
			r.text += t.Text
		}
	}
	raw, err := json.Marshal(res.StructuredContent)
	if err == nil {
		err = json.Unmarshal(raw, &r.data)
	}
	return r, err
}

// ok calls a tool that must succeed and say all of these.
func (a *agent) ok(name string, arguments args, want ...string) reply {
	a.t.Helper()
	r := a.call(name, arguments)
	if r.failed {
		a.t.Fatalf("%s %.200v failed: %s", name, arguments, r.text)
	}
	says(a.t, r, want...)
	return r
}

// fails calls a tool that must fail and say all of these.
func (a *agent) fails(name string, arguments args, want ...string) reply {
	a.t.Helper()
	r := a.call(name, arguments)
	if !r.failed {
		a.t.Fatalf("%s %.200v did not fail: %s", name, arguments, r.text)
	}
	if r.data["ok"] == nil && r.data["to"] == nil {
		a.t.Errorf("%s: no structured failure: %v", name, r.data)
	}
	says(a.t, r, want...)
	return r
}

func says(t testing.TB, r reply, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(r.text, w) {
			t.Errorf("%q is not in:\n%s", w, r.text)
		}
	}
}

// send sends a message that must be taken and returns its id.
func (a *agent) send(to, message string, more args) string {
	a.t.Helper()
	m := args{"to": to, "message": message}
	for k, v := range more {
		m[k] = v
	}
	id, _ := a.ok("send_message", m).data["id"].(string)
	if len(id) != 32 {
		a.t.Fatalf("id %q", id)
	}
	return id
}

// texts waits until n messages have come and returns their texts.
func (a *agent) texts(n int) (texts []string) {
	a.t.Helper()
	for range 20 {
		if len(texts) >= n {
			break
		}
		for _, m := range list(a.ok("check_messages", args{"wait_seconds": 5}), "messages") {
			texts = append(texts, body(m))
		}
	}
	return texts
}

// body returns the escaped peer text of a message in structuredContent. It
// stands in its labelled block: some hosts show the model nothing else.
func body(m map[string]any) string {
	_, rest, ok := strings.Cut(m["block"].(string), render.Notice+"\n")
	text, end := strings.CutSuffix(rest, "\n</peer-message>")
	if !ok || !end {
		return "no labelled block: " + m["block"].(string)
	}
	text, _, _ = strings.Cut(text, "\n[")
	return text
}

func list(r reply, key string) (out []map[string]any) {
	l, _ := r.data[key].([]any)
	for _, e := range l {
		m, _ := e.(map[string]any)
		out = append(out, m)
	}
	return out
}

// status waits until the first recipient of a message is in a state.
func (a *agent) status(id, state string) {
	a.t.Helper()
	var last reply
	for range 1200 {
		last = a.ok("message_status", args{"id": id})
		if list(last, "to")[0]["state"] == state {
			says(a.t, last, state)
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	a.t.Fatalf("not %s: %s", state, last.text)
}

// announced returns the next channel notification.
func (a *agent) announced() (content string, meta map[string]any) {
	a.t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		select {
		case n := <-a.notes:
			if n.Method != "notifications/claude/channel" {
				continue
			}
			content, _ = n.Params.AdditionalFields["content"].(string)
			meta, _ = n.Params.AdditionalFields["meta"].(map[string]any)
			return content, meta
		case <-timeout:
			a.t.Fatal("nothing was announced")
		}
	}
}

// quiet checks that nothing is announced for a while.
func (a *agent) quiet(d time.Duration) {
	a.t.Helper()
	select {
	case n := <-a.notes:
		a.t.Fatalf("notification: %s %v", n.Method, n.Params.AdditionalFields)
	case <-time.After(d):
	}
}

// pair is alice/web and bob/api on one mesh, each on a machine of its own.
type pair struct {
	w          *meshtest.World
	alice, bob *agent
	a, b       *client.Client
	am, bm     client.Membership
}

func newPair(t testing.TB) *pair {
	t.Helper()
	p := &pair{w: world(t)}
	p.am = p.w.Found("acme", "alice")
	p.alice, p.a = session(p.w, p.am, "web")
	p.bm = p.w.Join(p.a, "member", "bob")
	p.bob, p.b = session(p.w, p.bm, "api")
	return p
}

// trusts lets a peer's messages break in, as its person would.
func (a *agent) trusts(peer *client.Client) {
	a.t.Helper()
	_, err := a.box.ChangeTrust(context.Background(), peer.MeshID(), peer.MemberKey(), time.Now().UnixMilli(), func(t *mailbox.Trust) error {
		t.Level, t.Grants = mailbox.Trusted, nil
		return nil
	})
	if err != nil {
		a.t.Fatal(err)
	}
}

// session starts a session with a mailbox and an MCP server of its own.
func session(w *meshtest.World, m client.Membership, label string) (*agent, *client.Client) {
	w.T.Helper()
	box := w.Mailbox()
	c := w.Dial(m, label, func(o *client.Options) { o.Mailbox = box })
	return serve(w.T, box, c), c
}
