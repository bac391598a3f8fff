package faults

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/clustertest"
	"github.com/claudemesh/claudemesh/internal/profile"
	"github.com/claudemesh/claudemesh/internal/render"
)

// agent is a session of Claude Code as its host sees it: a directory, a
// configuration, and one process of claudemesh mcp after the other.
type agent struct {
	t       testing.TB
	name    string
	address string // as others name it
	member  client.Membership
	profile *profile.Profile
	cwd     string
	stderr  string // file

	mu        sync.Mutex
	life      *life          // nil between lives
	announced map[string]int // by id
}

// newAgent makes the configuration of a member, and starts nothing.
func newAgent(t testing.TB, dir, name string, m client.Membership) *agent {
	t.Helper()
	home := filepath.Join(dir, name)
	p, err := profile.Open(home)
	clustertest.Must(t, err)
	clustertest.Must(t, p.Add(m))
	a := &agent{
		t: t, name: name, address: m.Member + "/" + name, member: m, profile: p, cwd: filepath.Join(home, "work"),
		stderr: filepath.Join(home, "stderr"), announced: map[string]int{},
	}
	clustertest.Must(t, os.Mkdir(a.cwd, 0o700))
	t.Cleanup(func() {
		a.kill()
		if raw, err := os.ReadFile(a.stderr); err == nil && t.Failed() && len(raw) > 0 {
			t.Logf("%s said:\n%s", name, raw[max(0, len(raw)-4000):])
		}
	})
	return a
}

// key is its address, and that it has one: whoever restarts takes the same seat.
func (a *agent) key() client.Key {
	a.t.Helper()
	seats, err := a.profile.AllSeats(a.member.MeshID)
	clustertest.Must(a.t, err)
	if len(seats) != 1 {
		a.t.Fatalf("%s has had %d seats", a.name, len(seats))
	}
	return seats[0].Key
}

// life is one process of an agent.
type life struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	ready chan struct{} // closed after the handshake
	ended chan struct{} // closed when all that it wrote was read

	mu      sync.Mutex
	last    int
	waiting map[int]chan<- rpcReply
}

type rpcReply struct {
	Result json.RawMessage `json:"result"`
	Error  json.RawMessage `json:"error"`
}

// start begins a life. It does not wait for the handshake, in which it may be killed.
func (a *agent) start() {
	a.t.Helper()
	l := &life{ready: make(chan struct{}), ended: make(chan struct{}), waiting: map[int]chan<- rpcReply{}}
	l.cmd = exec.Command(clustertest.Program(a.t, "claudemesh"), "--config-dir", a.profile.Dir(), "mcp", "--name", a.name)
	l.cmd.Dir = a.cwd
	log, err := os.OpenFile(a.stderr, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	clustertest.Must(a.t, err)
	defer log.Close()
	l.cmd.Stderr = log
	l.stdin, err = l.cmd.StdinPipe()
	clustertest.Must(a.t, err)
	out, err := l.cmd.StdoutPipe()
	clustertest.Must(a.t, err)
	clustertest.Must(a.t, l.cmd.Start())
	a.mu.Lock()
	a.life = l
	a.mu.Unlock()
	go a.listen(l, out)
	go l.shakeHands()
}

// listen hands out what a life says: a line that is in the pipe survives its writer.
func (a *agent) listen(l *life, out io.Reader) {
	defer close(l.ended)
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return // half a line was not said
		}
		var m struct {
			ID     int    `json:"id"`
			Method string `json:"method"`
			Params struct {
				Meta map[string]string `json:"meta"`
			} `json:"params"`
			rpcReply
		}
		if err := json.Unmarshal(line, &m); err != nil {
			a.t.Errorf("%s writes %q: %v", a.name, line, err)
			continue
		}
		if m.Method != "" {
			a.mu.Lock()
			a.announced[m.Params.Meta["message_id"]]++
			a.mu.Unlock()
			continue
		}
		l.mu.Lock()
		if ch := l.waiting[m.ID]; ch != nil {
			ch <- m.rpcReply
			delete(l.waiting, m.ID)
		}
		l.mu.Unlock()
	}
}

func (l *life) shakeHands() {
	_, err := l.request("initialize", map[string]any{
		"protocolVersion": "2025-06-18", "capabilities": map[string]any{}, "clientInfo": map[string]any{"name": "faults", "version": "1"},
	})
	if err == nil {
		_, err = fmt.Fprintln(l.stdin, `{"jsonrpc":"2.0","method":"notifications/initialized"}`)
	}
	if err == nil {
		close(l.ready)
	}
}

// errKilled says that a process ended before it answered.
var errKilled = errors.New("killed")

func (l *life) request(method string, params any) (json.RawMessage, error) {
	answer := make(chan rpcReply, 1)
	l.mu.Lock()
	l.last++
	id := l.last
	l.waiting[id] = answer
	l.mu.Unlock()
	raw, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": id, "method": method, "params": params})
	if err != nil {
		return nil, err
	}
	if _, err := l.stdin.Write(append(raw, '\n')); err != nil {
		<-l.ended
		return nil, errKilled
	}
	timeout := time.NewTimer(time.Minute)
	defer timeout.Stop()
	select {
	case r := <-answer:
		return r.result()
	case <-l.ended:
		select {
		case r := <-answer:
			return r.result()
		default:
			return nil, errKilled
		}
	case <-timeout.C:
		return nil, fmt.Errorf("%s is not answered", method)
	}
}

func (r rpcReply) result() (json.RawMessage, error) {
	if r.Error != nil {
		return nil, fmt.Errorf("refused: %s", r.Error)
	}
	return r.Result, nil
}

// answer is what a tool says, of what is looked at here.
type answer struct {
	ID       string `json:"id"`
	Messages []struct {
		ID    string `json:"id"`
		Block string `json:"block"`
	} `json:"messages"`
	text string
}

// said returns the texts of the messages in an answer, in their order.
func (r *answer) said() (texts []string) {
	for _, m := range r.Messages {
		_, rest, _ := strings.Cut(m.Block, render.Notice+"\n")
		text, _, _ := strings.Cut(rest, "\n")
		texts = append(texts, text)
	}
	return texts
}

// call calls a tool. errKilled: there was no process, or it ended before it answered.
func (a *agent) call(tool string, args map[string]any) (r answer, err error) {
	a.mu.Lock()
	l := a.life
	a.mu.Unlock()
	if l == nil {
		return r, errKilled
	}
	select {
	case <-l.ready:
	case <-l.ended:
		return r, errKilled
	}
	raw, err := l.request("tools/call", map[string]any{"name": tool, "arguments": args})
	if err != nil {
		return r, err
	}
	var res struct {
		IsError bool                    `json:"isError"`
		Content []struct{ Text string } `json:"content"`
		Data    answer                  `json:"structuredContent"`
	}
	if err := json.Unmarshal(raw, &res); err != nil {
		return r, err
	}
	r = res.Data
	for _, c := range res.Content {
		r.text += c.Text
	}
	if res.IsError {
		return r, fmt.Errorf("%s %v fails: %s", tool, args, r.text)
	}
	return r, nil
}

// isAnnounced reports whether a message was announced in any life.
func (a *agent) isAnnounced(id client.ID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.announced[id.String()] > 0
}

// takeLife ends a life for whoever calls; nil when there is none.
func (a *agent) takeLife() *life {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.life
	a.life = nil
	return l
}

func (a *agent) kill() {
	if l := a.takeLife(); l != nil {
		_ = l.cmd.Process.Kill()
		<-l.ended // before Wait, which closes the pipe
		_ = l.cmd.Wait()
		_ = l.stdin.Close()
	}
}

// finish ends standard input, as a host does that ends.
func (a *agent) finish() {
	a.t.Helper()
	l := a.takeLife()
	_ = l.stdin.Close()
	within := time.AfterFunc(30*time.Second, func() { _ = l.cmd.Process.Kill() })
	defer within.Stop()
	<-l.ended
	if err := l.cmd.Wait(); err != nil {
		a.t.Errorf("%s ends: %v", a.name, err)
	}
}
