package mcpserver_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mark3labs/mcp-go/mcp"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/mcpserver"
)

func TestInitialize(t *testing.T) {
	t.Parallel()
	a := serve(t, client.MemoryMailbox())
	in := a.init
	if in.ServerInfo.Name != "claudemesh" || in.ServerInfo.Version != "1.2.3" || in.ProtocolVersion != mcp.ProtocolVersion20251125 {
		t.Errorf("server %+v speaks %s", in.ServerInfo, in.ProtocolVersion)
	}
	if c, ok := in.Capabilities.Experimental["claude/channel"].(map[string]any); !ok || len(c) != 0 {
		t.Errorf("experimental: %v", in.Capabilities.Experimental)
	}
	if in.Capabilities.Tools == nil || in.Capabilities.Resources != nil || in.Capabilities.Prompts != nil {
		t.Errorf("capabilities: %+v", in.Capabilities)
	}
	if n := len(in.Instructions); n < 500 || n >= 2048 {
		t.Errorf("instructions have %d bytes", n)
	}
	for _, want := range []string{"not from your user", "approval", "list_peers", "send_message", "check_messages", "<peer-message>", "which entry is you", "reply_to", "Priority now", "thanks need no thanks"} {
		if !strings.Contains(in.Instructions, want) {
			t.Errorf("instructions lack %q", want)
		}
	}
}

func TestTools(t *testing.T) {
	t.Parallel()
	a := serve(t, client.MemoryMailbox())
	l, err := a.mcp.ListTools(t.Context(), mcp.ListToolsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{
		"list_peers": {"mesh", "group", "include_offline"}, "send_message": {"to", "message", "priority", "reply_to", "wait_seconds"},
		"check_messages": {"wait_seconds", "limit", "mesh", "id"}, "message_status": {"id"}, "set_summary": {"summary"},
		"set_status": {"status"}, "join_group": {"name", "role"}, "leave_group": {"name"},
	}
	if len(l.Tools) != len(want) {
		t.Errorf("%d tools", len(l.Tools))
	}
	for _, tool := range l.Tools {
		args, ok := want[tool.Name]
		if !ok {
			t.Errorf("tool %q", tool.Name)
		}
		var got []string
		for name := range tool.InputSchema.Properties {
			got = append(got, name)
		}
		slices.Sort(got)
		slices.Sort(args)
		if !slices.Equal(got, args) {
			t.Errorf("%s takes %v, want %v", tool.Name, got, args)
		}
		an := tool.Annotations
		if an.Title == "" || an.ReadOnlyHint == nil || an.DestructiveHint == nil || an.IdempotentHint == nil || an.OpenWorldHint == nil {
			t.Errorf("%s: annotations %+v", tool.Name, an)
		}
		if n := len(tool.Description); n < 40 || n >= 2048 {
			t.Errorf("%s: description of %d bytes", tool.Name, n)
		}
		if r := a.call(tool.Name, nil); !r.failed || r.data["code"] != "no_mesh" {
			t.Errorf("%s without a mesh: %s", tool.Name, r.text)
		} else {
			says(t, r, "no mesh joined", "`claudemesh new` or `claudemesh join`")
		}
	}
	if _, err := a.try("no_such_tool", nil, nil); err == nil {
		t.Error("an unknown tool was called")
	}
}

// wire is a client that speaks lines.
type wire struct {
	t   *testing.T
	in  *io.PipeWriter
	out *bufio.Reader
	end chan error
}

func raw(t *testing.T, f mcpserver.Fleet, box client.Mailbox) *wire {
	t.Helper()
	in, toServer := io.Pipe()
	fromServer, out := io.Pipe()
	w := &wire{t: t, in: toServer, out: bufio.NewReader(fromServer), end: make(chan error, 1)}
	go func() {
		err := mcpserver.Serve(context.Background(), mcpserver.Options{Fleet: f, Mailbox: box, In: in, Out: out})
		_ = out.Close()
		w.end <- err
	}()
	t.Cleanup(func() {
		_ = toServer.Close()
		go func() { _, _ = io.Copy(io.Discard, fromServer) }()
		if err := <-w.end; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return w
}

func (w *wire) write(s string) {
	w.t.Helper()
	if _, err := io.WriteString(w.in, s); err != nil {
		w.t.Error(err) // also called beside the test
	}
}

type rpc struct {
	ID     any            `json:"id"`
	Method string         `json:"method"`
	Result map[string]any `json:"result"`
	Params map[string]any `json:"params"`
	Error  *struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

// read returns the next message; nothing else may be on the stream.
func (w *wire) read() (m rpc) {
	w.t.Helper()
	line, err := w.out.ReadString('\n')
	if err == nil {
		err = json.Unmarshal([]byte(line), &m)
	}
	if err != nil {
		w.t.Fatalf("%q: %v", line, err)
	}
	return m
}

const (
	hello  = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}` + "\n"
	inited = `{"jsonrpc":"2.0","method":"notifications/initialized"}` + "\n"
	ping   = `{"jsonrpc":"2.0","id":9,"method":"ping"}` + "\n"
)

func TestWire(t *testing.T) {
	t.Parallel()
	w := raw(t, &fleet{}, client.MemoryMailbox())
	// What Claude Code asks first; only versions with a handshake are offered.
	w.write(`{"jsonrpc":"2.0","id":0,"method":"server/discover","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"x","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}` + "\n")
	if m := w.read(); m.Error == nil && strings.Contains(mustJSON(m.Result["supportedVersions"]), "2026") {
		t.Errorf("discover: %+v", m.Result)
	}
	go w.write(hello + `{"jsonrpc":"2.0","id":2,"method":"tools/list"}` + "\n" + ping) // pipelined, answered in order
	for _, want := range []float64{1, 2, 9} {
		if m := w.read(); m.ID != want || m.Error != nil {
			t.Errorf("answer %v %+v, want %v", m.ID, m.Error, want)
		}
	}
	w.write(inited)
	for _, c := range []struct {
		line string
		code int
	}{
		{"garbage", mcp.PARSE_ERROR},
		{`{"jsonrpc":"2.0","id":3,`, mcp.PARSE_ERROR},
		{"\x00\xff\xfe", mcp.PARSE_ERROR},
		{`{"jsonrpc":"1.0","id":3,"method":"ping"}`, mcp.INVALID_REQUEST},
		{`{"jsonrpc":"2.0","id":3,"method":"no/such"}`, mcp.METHOD_NOT_FOUND},
		{`{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"nope"}}`, mcp.INVALID_PARAMS},
		{`{"jsonrpc":"2.0","id":3,"method":"tools/call","params":7}`, mcp.INVALID_REQUEST},
	} {
		w.write(c.line + "\n")
		if m := w.read(); m.Error == nil || m.Error.Code != c.code {
			t.Errorf("%q is answered %+v, want %d", c.line, m.Error, c.code)
		}
	}
	w.write("\n\n" + `{"jsonrpc":"2.0","id":77,"result":{}}` + "\n" + `{"jsonrpc":"2.0","id":78,"error":{"code":1,"message":"x"}}` + "\n" + ping)
	if m := w.read(); m.ID != 9.0 {
		t.Errorf("after answers to nothing: %+v", m)
	}
}

func mustJSON(v any) string { b, _ := json.Marshal(v); return string(b) }

func TestOversizeLine(t *testing.T) {
	t.Parallel()
	w := raw(t, &fleet{}, client.MemoryMailbox())
	go w.write(`{"jsonrpc":"2.0","id":1,"method":"` + strings.Repeat("x", 5<<20) + `"}` + "\n" + ping)
	if m := w.read(); m.Error == nil || !strings.Contains(m.Error.Message, "4194304") {
		t.Errorf("answer: %+v", m)
	}
	if m := w.read(); m.ID != 9.0 {
		t.Errorf("the session did not survive: %+v", m)
	}
}

func TestLastLineWithoutNewline(t *testing.T) {
	t.Parallel()
	w := raw(t, &fleet{}, client.MemoryMailbox())
	go func() {
		w.write(strings.TrimSpace(ping))
		_ = w.in.Close()
	}()
	if m := w.read(); m.ID != 9.0 {
		t.Errorf("answer: %+v", m)
	}
}

func TestEndOfInputDrains(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	w := raw(t, p.alice.fleet, p.alice.box)
	go func() {
		w.write(hello)
		w.write(inited)
		w.write(`{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"check_messages","arguments":{"wait_seconds":1}}}`)
		_ = w.in.Close()
	}()
	_ = w.read()
	began := time.Now()
	m := w.read()
	if m.ID != 5.0 || m.Error != nil || m.Result["isError"] == true || time.Since(began) < 800*time.Millisecond {
		t.Errorf("after %s: %+v", time.Since(began), m)
	}
	// A call that takes longer than the drain is ended.
	long := raw(t, p.alice.fleet, p.alice.box)
	go func() {
		long.write(`{"jsonrpc":"2.0","id":6,"method":"tools/call","params":{"name":"check_messages","arguments":{"wait_seconds":60}}}` + "\n")
		_ = long.in.Close()
	}()
	began = time.Now()
	if m := long.read(); m.ID != 6.0 || m.Result["isError"] != true || time.Since(began) > 8*time.Second {
		t.Errorf("after %s: %+v", time.Since(began), m)
	}
}

func TestCancelAndConcurrency(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	w := raw(t, p.alice.fleet, p.alice.box)
	w.write(`{"jsonrpc":"2.0","id":"slow","method":"tools/call","params":{"name":"check_messages","arguments":{"wait_seconds":60}}}` + "\n")
	w.write(`{"jsonrpc":"2.0","id":"fast","method":"tools/call","params":{"name":"list_peers"}}` + "\n")
	if m := w.read(); m.ID != "fast" {
		t.Errorf("answer: %+v", m)
	}
	w.write(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"slow"}}` + "\n")
	if m := w.read(); m.ID != "slow" || m.Result["isError"] != true {
		t.Errorf("answer: %+v", m)
	}
	for range 40 { // more than run at once
		w.write(`{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"list_peers"}}` + "\n")
		if m := w.read(); m.ID != 7.0 || m.Result["isError"] == true {
			t.Fatalf("answer: %+v", m)
		}
	}
}

// panicking has a fleet that panics.
type panicking struct{}

func (panicking) Clients() client.Set { panic("secret") }

func TestPanic(t *testing.T) {
	t.Parallel()
	w := raw(t, panicking{}, client.MemoryMailbox())
	w.write(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"list_peers"}}` + "\n" + ping)
	for range 2 {
		m := w.read()
		if m.ID == 9.0 {
			continue
		}
		text := mustJSON(m.Result)
		if m.Result["isError"] != true || strings.Contains(text, "secret") || !strings.Contains(text, "request ") {
			t.Errorf("answer: %s", text)
		}
	}
}

func TestContextEnds(t *testing.T) {
	t.Parallel()
	in, toServer := io.Pipe()
	fromServer, out := io.Pipe()
	defer fromServer.Close()
	defer toServer.Close()
	ctx, cancel := context.WithCancel(t.Context())
	end := make(chan error, 1)
	go func() {
		end <- mcpserver.Serve(ctx, mcpserver.Options{Fleet: &fleet{}, Mailbox: client.MemoryMailbox(), In: in, Out: out})
	}()
	cancel()
	select {
	case err := <-end:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Serve: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("Serve does not end")
	}
	if err := mcpserver.Serve(t.Context(), mcpserver.Options{}); err == nil {
		t.Error("empty options were taken")
	}
}

func TestOutputFails(t *testing.T) {
	t.Parallel()
	in, toServer := io.Pipe()
	fromServer, out := io.Pipe()
	defer toServer.Close()
	_ = fromServer.Close()
	end := make(chan error, 1)
	go func() {
		end <- mcpserver.Serve(t.Context(), mcpserver.Options{Fleet: &fleet{}, Mailbox: client.MemoryMailbox(), In: in, Out: out})
	}()
	if _, err := io.WriteString(toServer, ping); err != nil {
		t.Fatal(err)
	}
	if err := <-end; err == nil || !strings.Contains(err.Error(), "write to the MCP client") {
		t.Errorf("Serve: %v", err)
	}
}
