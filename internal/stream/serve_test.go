package stream

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/process"
)

// served is a stream behind its socket, as a mod meets it.
type served struct {
	*testing.T
	box  mailbox.Mailbox
	path string
	out  *bufio.Scanner
	read *io.PipeReader
	end  context.CancelFunc
	dead atomic.Bool
	done chan error
	http *http.Client
}

func serve(t *testing.T) *served {
	s := &served{T: t, box: openBox(t), done: make(chan error, 1)}
	check(t, s.box.PutAgent(ctx, agentOf(mailbox.Push)))
	run, cancel := context.WithCancel(ctx)
	s.end = cancel
	r, w := io.Pipe()
	s.read, s.out = r, bufio.NewScanner(r)
	go func() {
		s.done <- Serve(run, w, func() bool { return !s.dead.Load() }, func(say func(Instruction)) *Stream {
			return NewStream(s.box, process.Self().PID, slog.New(slog.DiscardHandler), say)
		})
		_ = w.Close()
	}()
	t.Cleanup(func() { cancel(); _ = r.Close() })
	s.path = s.next("socket").Path
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.path)
	}
	s.http = &http.Client{Transport: &http.Transport{DialContext: dial}}
	t.Cleanup(s.http.CloseIdleConnections)
	return s
}

// next is the next instruction to do this; others are skipped.
func (s *served) next(do string) (i Instruction) {
	s.Helper()
	for s.out.Scan() {
		i = Instruction{}
		check(s, json.Unmarshal(s.out.Bytes(), &i))
		if i.Do == do {
			return i
		}
	}
	s.Fatalf("no %s: %v", do, s.out.Err())
	return i
}

func (s *served) post(body string) (code int, a Answer) {
	s.Helper()
	resp, err := s.http.Post("http://claudemesh/", "application/json", strings.NewReader(body))
	check(s, err)
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		check(s, json.NewDecoder(resp.Body).Decode(&a))
	}
	return resp.StatusCode, a
}

func (s *served) receive() {
	s.Helper()
	r := &room{failer: s.T, box: s.box, clock: time.Now()}
	r.restart()
	r.receive(now)
}

func TestServe(t *testing.T) {
	t.Parallel()
	s := serve(t)
	info, err := os.Stat(filepath.Dir(s.path))
	check(t, err)
	if info.Mode().Perm() != 0o700 || len(s.path) > maxSocket {
		t.Errorf("%s: %v", s.path, info.Mode())
	}
	for _, bad := range []string{"", "x", `{"event":"` + strings.Repeat("x", maxEvent) + `"}`} {
		if code, _ := s.post(bad); code != http.StatusBadRequest {
			t.Errorf("%.9s: %d", bad, code)
		}
	}
	s.post(`{"event":"hello","session":"s1"}`)
	s.receive() // seen by the watch
	i := s.next("submit")
	if len(i.Holds) != 1 || !strings.Contains(i.Text, text(1)) {
		t.Errorf("submit: %+v", i)
	}
	s.end()
	check(t, <-s.done)
	if _, err := os.Stat(filepath.Dir(s.path)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket's directory is left: %v", err)
	}
	r := &room{failer: t, box: s.box, clock: time.Now(), sent: 1}
	r.unread(1, 1)
	if a := r.agent(); a.Mod.PID != 0 || a.Session != "s1" {
		t.Errorf("agent: %+v", a)
	}
}

// A stream ends with the mod that reads it, and with its agent.
func TestServeEnds(t *testing.T) {
	t.Parallel()
	s := serve(t)
	check(t, s.read.Close())
	resp, err := s.http.Post("http://claudemesh/", "application/json", strings.NewReader(`{"event":"hello"}`))
	if err == nil { // the status line cannot be written; the answer may be
		check(t, resp.Body.Close())
	}
	if err := <-s.done; !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("broken output: %v", err)
	}
	s = serve(t)
	s.dead.Store(true)
	check(t, <-s.done)
}

func TestDeafMod(t *testing.T) {
	t.Parallel()
	failed := make(chan error, maxQueue)
	r, w := io.Pipe()
	l := newLines(w, func(err error) { failed <- err })
	for range maxQueue + 2 { // the writer may have taken one
		l.say(Instruction{Do: "log"})
	}
	if err := <-failed; !errors.Is(err, errDeaf) {
		t.Errorf("error: %v", err)
	}
	l.end()
	check(t, r.Close())
}
