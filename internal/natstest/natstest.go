// Package natstest runs a NATS server inside a test, which can be stopped and
// started again at its address.
package natstest

import (
	"fmt"
	"net"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/claudemesh/claudemesh/internal/addrtest"
)

// Server is a NATS server of a test.
type Server struct {
	Addr string // host:port
	URL  string // nats://host:port

	t    testing.TB
	opts server.Options
	srv  *server.Server // nil: stopped
}

// New starts a server that ends with the test; edit changes its options, nil leaves them.
func New(t testing.TB, edit func(*server.Options)) *Server {
	t.Helper()
	addr := addrtest.New()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Addr: addr, URL: "nats://" + addr, t: t, opts: server.Options{Host: host, Port: number, NoLog: true, NoSigs: true}}
	if edit != nil {
		edit(&s.opts)
	}
	s.Start()
	t.Cleanup(s.Stop)
	return s
}

// Start starts it again.
func (s *Server) Start() {
	s.t.Helper()
	if !addrtest.Vacant(s.Addr) {
		s.t.Fatalf("something else listens at %s", s.Addr)
	}
	opts := s.opts
	srv, err := server.NewServer(&opts)
	if err != nil {
		s.t.Fatal(err)
	}
	var why reason
	srv.SetLogger(&why, false, false)
	srv.Start()
	if !srv.ReadyForConnections(30 * time.Second) {
		srv.Shutdown()
		s.t.Fatalf("the NATS server does not start: %v", why.last.Load())
	}
	s.srv = srv
}

// Stop ends it: everybody is cut off.
func (s *Server) Stop() {
	if s.srv != nil {
		s.srv.Shutdown()
		s.srv.WaitForShutdown()
		s.srv = nil
	}
}

// reason is a logger that keeps what last went wrong.
type reason struct{ last atomic.Value }

func (r *reason) Fatalf(format string, v ...any) { r.last.Store(fmt.Sprintf(format, v...)) }
func (r *reason) Errorf(format string, v ...any) { r.last.Store(fmt.Sprintf(format, v...)) }
func (r *reason) Noticef(string, ...any)         {}
func (r *reason) Warnf(string, ...any)           {}
func (r *reason) Debugf(string, ...any)          {}
func (r *reason) Tracef(string, ...any)          {}
