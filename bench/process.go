package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// process is a server that this program started and ends.
type process struct {
	cmd    *exec.Cmd
	ended  chan struct{} // closed when it is gone
	output tail
}

// tail keeps the last words of a process.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if len(t.buf) > 4096 {
		t.buf = t.buf[len(t.buf)-4096:]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.buf))
}

// launch starts a program. It ends when ctx does, and at stop.
func launch(ctx context.Context, stdout io.Writer, env []string, name string, args ...string) (*process, error) {
	p := &process{cmd: exec.CommandContext(ctx, name, args...), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	if stdout != nil {
		p.cmd.Stdout = stdout
	}
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(os.Interrupt) }
	p.cmd.WaitDelay = 5 * time.Second // then it is killed
	// serveNATS reads its end of this pipe and so sees us die, however that happens.
	if _, err := p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { _ = p.cmd.Wait(); close(p.ended) }()
	return p, nil
}

// stop ends the process and waits until it is gone.
func (p *process) stop() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Signal(os.Interrupt)
	select {
	case <-p.ended:
	case <-time.After(5 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

func (p *process) pid() int {
	if p == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// listening waits until a server accepts connections.
func (p *process) listening(ctx context.Context, addr string) error {
	tick := time.NewTicker(500 * time.Microsecond)
	defer tick.Stop()
	for range 40_000 {
		var d net.Dialer
		if c, err := d.DialContext(ctx, "tcp", addr); err == nil {
			return c.Close()
		}
		select {
		case <-p.ended:
			return fmt.Errorf("it ended at once: %s", &p.output)
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return errors.New("it does not listen")
}

// freePort finds a port of the loopback address that nobody uses just now.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// lookUp finds a program; Debian keeps some servers where only root looks.
func lookUp(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return exec.LookPath(filepath.Join("/usr/sbin", name))
	}
	return path, nil
}

// absent says why a program cannot be compared; "" when it can.
func absent(name string) func() string {
	return func() string {
		if _, err := lookUp(name); err != nil {
			return name + " is not installed"
		}
		return ""
	}
}

// usage is what a process has used.
type usage struct {
	cpu       time.Duration
	rss, peak int64 // resident bytes
}

// clockTick is the unit of CPU times in /proc: 1/100 s on every Linux.
const clockTick = 10 * time.Millisecond

// used reads a process's CPU time and peak memory from /proc; zero elsewhere.
func used(pid int) (u usage) {
	if raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
		f := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
		if len(f) > 12 {
			u.cpu = time.Duration(number(f[11])+number(f[12])) * clockTick
		}
	}
	if raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err == nil {
		for line := range strings.Lines(string(raw)) {
			if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
				u.rss = number(strings.Fields(rest)[0]) * 1024
			}
			if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
				u.peak = number(strings.Fields(rest)[0]) * 1024
			}
		}
	}
	return u
}

// watchRSS follows a process's memory until the function that it returns is
// called, which returns the most that was seen.
func watchRSS(pid int) (most func() int64) {
	stop, seen := make(chan struct{}), make(chan int64)
	go func() {
		t := time.NewTicker(10 * time.Millisecond)
		defer t.Stop()
		for peak := int64(0); ; {
			peak = max(peak, used(pid).rss)
			select {
			case <-t.C:
			case <-stop:
				seen <- peak
				return
			}
		}
	}()
	return func() int64 { close(stop); return <-seen }
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}
