package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/claudemesh/claudemesh/internal/addrtest"
)

// Mode is how a server is stopped.
type Mode syscall.Signal

// The modes of pg_ctl.
const (
	Smart     = Mode(syscall.SIGTERM) // waits for the clients
	Fast      = Mode(syscall.SIGINT)  // ends the clients
	Immediate = Mode(syscall.SIGQUIT) // as a crash: recovers when it starts again
	kill      = Mode(syscall.SIGKILL)
)

// patience is how long a server may take to start or stop.
const patience = 60 * time.Second

// Server is a cluster of its own: its files, its socket, its process.
type Server struct {
	Addr string // host:port with Options.TCP

	bin, dir string // the programs; the socket's directory, with the cluster in data
	opts     Options
	primary  *Server // of a standby

	mu   sync.Mutex // guards proc
	proc *process

	databases atomic.Int64
	template  sync.Once
}

func start(bin string, opts Options) (*Server, error) {
	s, err := newServer(bin, opts)
	if err != nil {
		return nil, err
	}
	err = s.tool("initdb", "-D", s.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	if err == nil {
		err = s.Run()
	}
	if err != nil {
		return nil, errors.Join(err, s.destroy())
	}
	return s, nil
}

// newServer makes the directory of a server.
func newServer(bin string, opts Options) (*Server, error) {
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, dir: dir, opts: opts}
	if len(dir) > 80 {
		return nil, errors.Join(fmt.Errorf("%s: too long for a socket's path; set TMPDIR", dir), s.destroy())
	}
	if err := own(dir); err != nil {
		return nil, errors.Join(err, s.destroy())
	}
	if opts.TCP {
		s.Addr = addrtest.New()
	}
	return s, nil
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// command prepares a program of the server, run as a user that is not root.
func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"} // no PGDATA, no PGHOST
	cmd.SysProcAttr = attributes()
	return cmd
}

// tool runs a program to its end.
func (s *Server) tool(name string, args ...string) error {
	if out, err := s.command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

// process is a running server. Its goroutine ends when the server has ended.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

// launch starts the server, which gets a signal when the test binary dies: the
// signal comes when the thread that started it ends, so that one waits for it.
func (s *Server) launch() (*process, error) {
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	args := []string{"-D", s.data(), "-k", s.dir}
	for _, v := range append([]string{"listen_addresses=", "fsync=on", "full_page_writes=on", "wal_level=replica",
		"max_connections=200", "shared_buffers=128MB"}, s.opts.Settings...) {
		args = append(args, "-c", v)
	}
	if s.Addr != "" {
		host, port, err := net.SplitHostPort(s.Addr)
		if err != nil {
			return nil, err
		}
		args = append(args, "-c", "listen_addresses="+host, "-p", port)
	}
	p := &process{cmd: s.command("postgres", args...), exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer close(p.exited)
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // how it ended is in its log
		}
	}()
	return p, <-started
}

// Run starts the server when it is not running and waits until it answers.
func (s *Server) Run() (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc != nil {
		return nil
	}
	// After a kill, the shared memory may be in use for a moment yet.
	for deadline := time.Now().Add(patience); s.proc == nil; {
		p, err := s.launch()
		if err != nil {
			return err
		}
		if err = s.answers(p, deadline); err == nil {
			s.proc = p
		} else if time.Now().After(deadline) {
			_ = p.end(kill)
			log, _ := os.ReadFile(filepath.Join(s.dir, "log")) // its absence is no news
			return fmt.Errorf("postgres: %w: %s", err, log[max(0, len(log)-4000):])
		}
	}
	return nil
}

var errExited = errors.New("the server has exited")

// answers waits until a server takes connections.
func (s *Server) answers(p *process, deadline time.Time) error {
	for {
		ctx, cancel := context.WithTimeout(bg, time.Second)
		c, err := pgx.Connect(ctx, s.URL("postgres"))
		cancel()
		if err == nil {
			return c.Close(bg)
		}
		if time.Now().After(deadline) {
			return err
		}
		select {
		case <-p.exited:
			time.Sleep(50 * time.Millisecond)
			return errExited
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// end signals a server and waits for its end.
func (p *process) end(mode Mode) error {
	if err := p.cmd.Process.Signal(syscall.Signal(mode)); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.exited:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("the server does not stop by signal %d", mode)
	}
}

// Stop stops the server; Run starts it again.
func (s *Server) Stop(mode Mode) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return nil
	}
	if err := s.proc.end(mode); err != nil {
		return err
	}
	s.proc = nil
	return nil
}

// Kill ends the server as the kernel would.
func (s *Server) Kill() error { return s.Stop(kill) }

// Restart stops the server and starts it again.
func (s *Server) Restart(mode Mode) error {
	if err := s.Stop(mode); err != nil {
		return err
	}
	return s.Run()
}

// destroy ends the server and removes its files.
func (s *Server) destroy() error {
	err := s.Stop(Immediate)
	if err != nil {
		err = errors.Join(err, s.Kill())
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// URL names a database of the server, over its socket.
func (s *Server) URL(name string) string {
	q := url.Values{"host": {s.dir}, "user": {"postgres"}}
	if s.Addr != "" {
		_, port, _ := net.SplitHostPort(s.Addr) // it was one when the server started
		q.Set("port", port)
	}
	return "postgres:///" + name + "?" + q.Encode()
}

// At returns the URL of the same database over TCP at host:port, which may be a
// proxy to the server's Addr.
func At(database, addr string) (string, error) {
	u, err := url.Parse(database)
	if err != nil {
		return "", err
	}
	return "postgres://postgres@" + addr + u.Path + "?sslmode=disable", nil
}

// Exec runs a statement in the maintenance database.
func (s *Server) Exec(t testing.TB, sql string) {
	t.Helper()
	if err := s.exec("postgres", sql); err != nil {
		t.Fatal(err)
	}
}

func (s *Server) exec(database, sql string) error {
	c, err := pgx.Connect(bg, s.URL(database))
	if err != nil {
		return err
	}
	_, err = c.Exec(bg, sql)
	return errors.Join(err, c.Close(bg))
}
