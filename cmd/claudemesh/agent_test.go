package main_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/claudemesh/claudemesh/internal/mailbox"
)

// agent is a running claudemesh mcp, driven as a host would.
type agent struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
	next  int
	err   strings.Builder
}

// agent start NAME MEMBER DIR [VAR=VALUE...] [FLAG...]: run the MCP server of a member in a directory.
// agent call NAME TOOL ARGS: call a tool; its text becomes standard output.
// agent arrives NAME TEXT: call check_messages until the text is among them.
// agent stop NAME: end its standard input and wait for it; agent kill NAME: kill it.
// agent record MEMBER: what the member's mailbox holds of these tests' process, which is the agent.
func cmdAgent(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	switch args[0] {
	case "start":
		a := &agent{lines: make(chan string, 100)}
		ts.Check(a.start(ts, args[2], args[3], args[4:]))
		w.agents[args[1]] = a
	case "call":
		text, failed, err := w.agents[args[1]].call(args[2], args[3])
		ts.Check(err)
		fmt.Fprintln(ts.Stdout(), text)
		if failed != neg {
			ts.Fatalf("isError is %v: %s", failed, text)
		}
	case "arrives":
		for text := ""; !strings.Contains(text, args[2]); { // the test's timeout ends it
			var err error
			text, _, err = w.agents[args[1]].call("check_messages", "{}")
			ts.Check(err)
			time.Sleep(20 * time.Millisecond)
		}
	case "stop":
		a := w.agents[args[1]]
		delete(w.agents, args[1])
		ts.Check(a.stop())
		fmt.Fprint(ts.Stderr(), a.err.String())
	case "kill":
		a := w.agents[args[1]]
		delete(w.agents, args[1])
		ts.Check(a.cmd.Process.Kill())
		_ = a.cmd.Wait()
	case "record":
		ts.Check(showRecord(ts, args[1]))
	default:
		ts.Fatalf("agent start|call|arrives|stop|kill|record")
	}
}

func showRecord(ts *testscript.TestScript, member string) error {
	box, err := mailbox.Open(context.Background(), filepath.Join(ts.Getenv("WORK"), member, "mailbox.db"))
	if err != nil {
		return err
	}
	defer box.Close()
	agent, err := box.Agent(context.Background(), os.Getpid())
	if err != nil {
		return err
	}
	server := "none"
	switch {
	case agent.Server.Alive():
		server = "alive"
	case agent.Server.PID > 0:
		server = "dead"
	}
	fmt.Fprintf(ts.Stdout(), "mode %s\nsession %s\nserver %s\nattended %v\n", agent.Mode, agent.Session, server, agent.Attended)
	for _, s := range agent.Seats {
		fmt.Fprintf(ts.Stdout(), "seat %s %s %s\n", s.Name, s.Self, s.Key)
	}
	return nil
}

func (a *agent) start(ts *testscript.TestScript, member, dir string, flags []string) error {
	work := ts.Getenv("WORK")
	dir = filepath.Join(work, dir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var env []string
	for len(flags) > 0 && strings.Contains(flags[0], "=") && !strings.HasPrefix(flags[0], "-") {
		env, flags = append(env, flags[0]), flags[1:]
	}
	argv := append([]string{"--config-dir", filepath.Join(work, member), "mcp"}, flags...)
	a.cmd = exec.Command(filepath.Join(binDir, "claudemesh"), argv...)
	a.cmd.Dir, a.cmd.Stderr, a.cmd.Env = dir, &a.err, append(os.Environ(), env...)
	in, err := a.cmd.StdinPipe()
	if err != nil {
		return err
	}
	a.in = in
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := a.cmd.Start(); err != nil {
		return err
	}
	go func() {
		defer close(a.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			a.lines <- s.Text()
		}
	}()
	if _, err := a.request("initialize", map[string]any{
		"protocolVersion": "2025-06-18", "capabilities": map[string]any{},
		"clientInfo": map[string]any{"name": "test", "version": "1"},
	}); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(a.in, `{"jsonrpc":"2.0","method":"notifications/initialized"}`); err != nil {
		return err
	}
	_, _, err = a.call("list_peers", "{}") // waits for the first connection
	return err
}

func (a *agent) request(method string, params any) (json.RawMessage, error) {
	a.next++
	raw, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": a.next, "method": method, "params": params})
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(a.in, "%s\n", raw); err != nil {
		return nil, err
	}
	timeout := time.After(20 * time.Second)
	for {
		select {
		case line, ok := <-a.lines:
			if !ok {
				return nil, fmt.Errorf("%s: the server has ended: %s", method, a.err.String())
			}
			var reply struct {
				ID     any             `json:"id"`
				Result json.RawMessage `json:"result"`
				Error  json.RawMessage `json:"error"`
			}
			if err := json.Unmarshal([]byte(line), &reply); err != nil {
				return nil, fmt.Errorf("not JSON-RPC on stdout: %q", line)
			}
			if reply.ID != float64(a.next) {
				continue // a notification
			}
			if reply.Error != nil {
				return nil, fmt.Errorf("%s: %s", method, reply.Error)
			}
			return reply.Result, nil
		case <-timeout:
			return nil, fmt.Errorf("%s: no answer", method)
		}
	}
}

func (a *agent) call(tool, args string) (text string, failed bool, err error) {
	raw, err := a.request("tools/call", map[string]any{"name": tool, "arguments": json.RawMessage(args)})
	if err != nil {
		return "", false, err
	}
	var result struct {
		IsError bool `json:"isError"`
		Content []struct {
			Text string `json:"text"`
		} `json:"content"`
	}
	if err := json.Unmarshal(raw, &result); err != nil {
		return "", false, err
	}
	for _, c := range result.Content {
		text += c.Text
	}
	return text, result.IsError, nil
}

// stop ends standard input, as a host does, and waits for the end.
func (a *agent) stop() error {
	_ = a.in.Close()
	done := make(chan error, 1)
	go func() { done <- a.cmd.Wait() }()
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		_ = a.cmd.Process.Kill()
		return fmt.Errorf("the server goes on after its standard input has ended: %w", <-done)
	}
}
