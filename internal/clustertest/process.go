package clustertest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// binary is our programs, built once per run.
var binary struct {
	once sync.Once
	dir  string
	err  error
}

// Program returns the file of one of our programs.
func Program(t testing.TB, name string) string {
	t.Helper()
	binary.once.Do(func() {
		if binary.dir, binary.err = os.MkdirTemp("", "claudemesh-faults"); binary.err != nil {
			return
		}
		cmd := exec.Command("go", "build", "-o", binary.dir, "github.com/claudemesh/claudemesh/cmd/claudemesh-broker", "github.com/claudemesh/claudemesh/cmd/claudemesh")
		if out, err := cmd.CombinedOutput(); err != nil {
			binary.err = fmt.Errorf("%w: %s", err, out)
		}
	})
	if binary.err != nil {
		t.Fatal(binary.err)
	}
	return filepath.Join(binary.dir, name)
}

// Clean removes the programs. A package that uses them calls it when its tests have run.
func Clean() {
	if binary.dir != "" {
		_ = os.RemoveAll(binary.dir)
	}
}

// raised lifts the limits that a load of few members would meet.
var raised = []string{
	"--sends-per-minute=1000000", "--send-burst=1000000", "--bytes-per-minute=1000000000",
	"--queue-messages=1000000", "--queue-bytes=1000000000", "--preauth-per-address=1000", "--disk-high-water=100",
}

// Process is a broker in a process of its own.
type Process struct {
	URL string // once started; it keeps its port

	t    testing.TB
	args []string
	cmd  *exec.Cmd // nil: it does not run
	logs string    // file of its standard error
}

// NewProcess starts a broker on a SQLite file with raised limits.
func NewProcess(t testing.TB, args ...string) *Process {
	return NewDefault(t, append(slices.Clone(raised), args...)...)
}

// NewDefault starts a broker on a SQLite file with the limits that it has by itself.
func NewDefault(t testing.TB, args ...string) *Process {
	t.Helper()
	p := newProcess(t, filepath.Join(t.TempDir(), "mesh.db"), args)
	p.Start()
	return p
}

// newProcess prepares a broker on a database.
func newProcess(t testing.TB, db string, args []string) *Process {
	p := &Process{t: t, logs: filepath.Join(t.TempDir(), "broker.log")}
	p.args = append([]string{"--db", db, "--open", "--log-level", "warn"}, args...)
	t.Cleanup(func() {
		p.Kill()
		if raw, err := os.ReadFile(p.logs); err == nil && len(raw) > 0 && t.Failed() {
			t.Logf("the broker said:\n%s", raw[max(0, len(raw)-4000):])
		}
	})
	return p
}

// Start starts it, and returns when it listens.
func (p *Process) Start() {
	p.t.Helper()
	Must(p.t, p.launch())
}

// launch is Start for any goroutine.
func (p *Process) launch() error {
	listen := "127.0.0.1:0"
	if p.URL != "" {
		listen = host(p.URL)
	}
	cmd := exec.Command(Program(p.t, "claudemesh-broker"), append([]string{"--listen", listen}, p.args...)...)
	log, err := os.OpenFile(p.logs, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p.cmd = cmd
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if url, ok := strings.CutPrefix(lines.Text(), "listening on "); ok {
			p.URL = url
			return nil
		}
	}
	p.cmd = nil
	err = cmd.Wait()
	raw, _ := os.ReadFile(p.logs) // what there is of it
	return fmt.Errorf("the broker did not start: %w\n%s", err, raw)
}

// Kill ends it with SIGKILL and waits until it is gone.
func (p *Process) Kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		p.cmd = nil
	}
}

// PID is the running broker's.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// host is the host:port of a socket URL.
func host(url string) string {
	return strings.TrimSuffix(strings.TrimPrefix(url, "ws://"), wire.PathWS)
}

// Metric reads one of its counters; 0 when it cannot.
func (p *Process) Metric(name string) float64 {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host(p.URL)+"/metrics", nil)
	if err != nil {
		return 0
	}
	req.Close = true // no idle connection stays behind
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	raw, _ := io.ReadAll(res.Body)
	for line := range strings.Lines(string(raw)) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			n, _ := strconv.ParseFloat(strings.TrimSpace(v), 64)
			return n
		}
	}
	return 0
}
