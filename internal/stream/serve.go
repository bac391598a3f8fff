package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

const (
	maxEvent  = 128 << 10 // bytes of one event
	maxQueue  = 64        // instructions that the mod has not read
	maxSocket = 100       // bytes of a socket's path; the systems allow 104 or 108
	// alone is how often is looked whether the agent still runs.
	alone = 2 * time.Second
)

var errDeaf = errors.New("the mod does not read")

// Serve runs the stream of an agent until ctx ends, out breaks or alive says no:
// instructions go to out, one a line; events come by HTTP over a socket whose
// path is the first of them. What is on its way then is put back.
func Serve(ctx context.Context, out io.Writer, alive func() bool, make func(say func(Instruction)) *Stream) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	lines := newLines(out, cancel)
	defer lines.end()
	s := make(lines.say)
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		err = errors.Join(err, s.Close(ctx))
	}()
	calls := newCalls()
	path, stop, err := listen(calls)
	if err != nil {
		return err
	}
	defer stop()
	s.say(Instruction{Do: "socket", Path: path})
	if err := s.run(ctx, calls, alive); ctx.Err() == nil {
		return err
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// run is the one goroutine that owns the stream.
func (s *Stream) run(ctx context.Context, c *calls, alive func() bool) error {
	changes := s.box.WatchClosely(ctx)
	parent := time.NewTicker(alone)
	defer parent.Stop()
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-parent.C:
			if !alive() {
				return nil
			}
			continue
		case q := <-c.queue:
			a, err := s.Handle(ctx, q.event)
			if err != nil {
				return err
			}
			q.answer <- a
		case <-changes:
			if err := s.Look(ctx); err != nil {
				return err
			}
		case <-due.C:
			if err := s.Look(ctx); err != nil {
				return err
			}
		}
		due.Reset(time.Until(s.Next()))
	}
}

// lines writes instructions in order, beside the goroutine that gives them.
type lines struct {
	queue chan Instruction
	fail  context.CancelCauseFunc
}

func newLines(out io.Writer, fail context.CancelCauseFunc) *lines {
	l := &lines{make(chan Instruction, maxQueue), fail}
	go func() {
		enc := json.NewEncoder(out)
		for i := range l.queue {
			if err := enc.Encode(i); err != nil {
				fail(fmt.Errorf("write to the mod: %w", err))
				for range l.queue {
				}
			}
		}
	}()
	return l
}

func (l *lines) say(i Instruction) {
	select {
	case l.queue <- i:
	default:
		l.fail(errDeaf)
	}
}

// end lets the writer go when it has written what it can; a reader that is stuck keeps it until the process ends.
func (l *lines) end() { close(l.queue) }

// calls are the mod's events on their way to the stream.
type calls struct{ queue chan call }

type call struct {
	event  Event
	answer chan Answer // holds one
}

func newCalls() *calls { return &calls{make(chan call)} }

// ServeHTTP hands an event to the stream and answers with what it says.
func (c *calls) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := call{answer: make(chan Answer, 1)}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxEvent)).Decode(&q.event); err != nil {
		http.Error(w, "an event is one JSON object of at most 128 KiB", http.StatusBadRequest)
		return
	}
	select {
	case c.queue <- q:
	case <-r.Context().Done():
		return
	}
	select {
	case a := <-q.answer:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(a) // the mod is gone if it fails
	case <-r.Context().Done():
	}
}

// listen serves h on a socket that only this user can reach, until stop.
func listen(h http.Handler) (path string, stop func(), err error) {
	dir, err := os.MkdirTemp("", "cm-") // its mode is 0700
	if err == nil && len(dir) > maxSocket-2 {
		_ = os.Remove(dir)
		dir, err = os.MkdirTemp("/tmp", "cm-")
	}
	if err != nil {
		return "", nil, err
	}
	path = filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		_ = os.RemoveAll(dir)
		return "", nil, err
	}
	base, cancel := context.WithCancel(context.Background())
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return base },
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }() // it ends by Close
	return path, func() {
		cancel()
		_ = srv.Close()
		<-done
		_ = os.RemoveAll(dir)
	}, nil
}
