package mcpserver

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"
)

const (
	maxCalls  = 16              // tools/call that run at once
	maxQueued = 64              // and that wait their turn; then nothing more is read
	drainTime = 5 * time.Second // for calls in flight when the input has ended
	endTime   = time.Second     // for what is stuck in a write, before and after it is closed
)

// session is one MCP client over one pair of streams. Everything is answered
// in order, but tools/call, which run beside each other.
type session struct {
	engine *server.MCPServer
	in     io.Reader
	out    io.Writer
	log    *slog.Logger

	initialized atomic.Bool
	notes       chan mcp.JSONRPCNotification
	ready       chan struct{} // closed when the client may be notified
	readyOnce   sync.Once
	discovered  bool // server/discover came; only the main loop looks at it

	running chan struct{} // a token for each call that runs
	queued  chan struct{} // a token for each call that runs or waits

	writing sync.Mutex
	broken  context.CancelCauseFunc // ends the session when out fails
}

var _ server.ClientSession = (*session)(nil)

func newSession(engine *server.MCPServer, in io.Reader, out io.Writer, log *slog.Logger) *session {
	return &session{
		engine: engine, in: in, out: out, log: log, notes: make(chan mcp.JSONRPCNotification, 16), ready: make(chan struct{}),
		running: make(chan struct{}, maxCalls), queued: make(chan struct{}, maxCalls+maxQueued),
	}
}

// SessionID names the only session of its engine.
func (s *session) SessionID() string { return "stdio" }

// NotificationChannel takes mcp-go's own notifications.
func (s *session) NotificationChannel() chan<- mcp.JSONRPCNotification { return s.notes }

// Initialize is called by mcp-go while it answers initialize.
func (s *session) Initialize() { s.initialized.Store(true) }

// Initialized reports whether initialize was answered.
func (s *session) Initialized() bool { return s.initialized.Load() }

// write puts one message on the wire. It blocks while the client does not read.
func (s *session) write(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	if _, err := s.out.Write(append(line, '\n')); err != nil {
		s.broken(fmt.Errorf("write to the MCP client: %w", err))
		return err
	}
	return nil
}

// notify writes a notification, not before the client has said that it is
// initialized. It returns when the notification is on the wire.
func (s *session) notify(ctx context.Context, method string, params map[string]any) error {
	select {
	case <-s.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.write(mcp.JSONRPCNotification{
		JSONRPC:      mcp.JSONRPC_VERSION,
		Notification: mcp.Notification{Method: method, Params: mcp.NotificationParams{AdditionalFields: params}},
	})
}

// lineRead is what the reader has found.
type lineRead struct {
	line []byte
	err  error
}

// serve runs the session, and background beside it, until the input or ctx ends.
func (s *session) serve(ctx context.Context, background func(context.Context)) error {
	ctx, broken := context.WithCancelCause(ctx)
	defer broken(nil)
	s.broken = broken
	if err := s.engine.RegisterSession(ctx, s); err != nil {
		return err
	}
	defer s.engine.UnregisterSession(ctx, s.SessionID())
	callCtx := server.WithSupportedProtocolVersions(s.engine.WithContext(ctx, s), handshakeVersions)

	var wg, calls sync.WaitGroup
	side, stopSide := context.WithCancel(ctx) // what ends as soon as the input does
	defer stopSide()
	wg.Go(func() { background(side) })
	wg.Go(func() { s.forward(side) })
	lines := make(chan lineRead)
	reader := make(chan struct{})
	go func() { defer close(reader); s.read(side, lines) }()

	err := s.loop(callCtx, lines, &calls)
	stopSide()
	if err == nil {
		s.drain(ctx, &calls)
	}
	broken(nil)
	wg.Go(calls.Wait)
	s.end(&wg, reader)
	return err
}

// forward writes mcp-go's own notifications.
func (s *session) forward(ctx context.Context) {
	for {
		select {
		case n := <-s.notes:
			_ = s.write(n)
		case <-ctx.Done():
			return
		}
	}
}

func (s *session) read(ctx context.Context, lines chan<- lineRead) {
	r := newLineReader(s.in)
	for {
		line, err := r.next()
		select {
		case lines <- lineRead{line, err}:
		case <-ctx.Done():
			return
		}
		if err != nil && !errors.Is(err, errLineTooLong) {
			return
		}
	}
}

// loop handles messages in order. It returns nil when the input has ended.
func (s *session) loop(ctx context.Context, lines <-chan lineRead, calls *sync.WaitGroup) error {
	for {
		select {
		case l := <-lines:
			switch {
			case errors.Is(l.err, errLineTooLong):
				_ = s.write(rpcError(nil, mcp.INVALID_REQUEST, fmt.Sprintf("the message is over %d bytes", maxLine)))
			case errors.Is(l.err, io.EOF), errors.Is(l.err, io.ErrClosedPipe), errors.Is(l.err, os.ErrClosed):
				return nil
			case l.err != nil:
				return fmt.Errorf("read from the MCP client: %w", l.err)
			default:
				s.dispatch(ctx, l.line, calls)
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// head is what of a message decides how it is handled.
type head struct {
	ID     any             `json:"id"`
	Method string          `json:"method"`
	Result json.RawMessage `json:"result"`
	Error  json.RawMessage `json:"error"`
}

// dispatch handles one message: a call beside the others, anything else at once.
func (s *session) dispatch(ctx context.Context, line []byte, calls *sync.WaitGroup) {
	var h head
	_ = json.Unmarshal(line, &h) // what does not parse is answered by the engine
	switch {
	case h.Method == "" && (h.Result != nil || h.Error != nil):
		return // an answer, and we have asked nothing
	case h.Method != string(mcp.MethodToolsCall) || h.ID == nil:
		s.handle(ctx, &h, line)
		s.noteHandshake(h.Method)
		return
	}
	s.noteHandshake(h.Method)
	select { // back-pressure: nothing more is read while too much waits
	case s.queued <- struct{}{}:
	case <-ctx.Done():
		return
	}
	calls.Go(func() {
		defer func() { <-s.queued }()
		select {
		case s.running <- struct{}{}:
			defer func() { <-s.running }()
			s.handle(ctx, &h, line)
		case <-ctx.Done():
		}
	})
}

// noteHandshake opens the way for notifications: when the client says that it is
// initialized, or, for a client that discovers instead, with its first request.
func (s *session) noteHandshake(method string) {
	switch method {
	case string(mcp.MethodServerDiscover):
		s.discovered = true
		return
	case "notifications/initialized":
	default:
		if !s.discovered || s.initialized.Load() || method == string(mcp.MethodInitialize) || method == string(mcp.MethodPing) {
			return
		}
	}
	s.readyOnce.Do(func() { close(s.ready) })
}

// handle answers one message; a panic is answered too.
func (s *session) handle(ctx context.Context, h *head, line []byte) {
	defer func() {
		if p := recover(); p != nil {
			id := logPanic(s.log, "method "+h.Method, p)
			if h.ID != nil {
				_ = s.write(rpcError(h.ID, mcp.INTERNAL_ERROR, "internal error; request "+id))
			}
		}
	}()
	if reply := s.engine.HandleMessage(ctx, line); reply != nil {
		if err := s.write(reply); err != nil {
			s.log.Debug("an answer is lost", "method", h.Method, "error", err)
		}
	}
}

func rpcError(id any, code int, message string) mcp.JSONRPCError {
	return mcp.NewJSONRPCError(mcp.NewRequestId(id), code, message, nil)
}

// drain gives the calls in flight their time.
func (s *session) drain(ctx context.Context, calls *sync.WaitGroup) {
	done := make(chan struct{})
	go func() { calls.Wait(); close(done) }()
	t := time.NewTimer(drainTime)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	case <-ctx.Done():
	}
}

// end waits for every goroutine. What is stuck in a read or a write is freed by
// closing the stream; where that does not free it (a blocking os.Stdin), it is left.
func (s *session) end(wg *sync.WaitGroup, reader <-chan struct{}) {
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	if !within(endTime, done) {
		closeStream(s.out)
		if !within(endTime, done) {
			s.log.Warn("the MCP client does not read; a call is left behind")
		}
	}
	if within(0, reader) {
		return
	}
	closeStream(s.in)
	if !within(endTime/4, reader) {
		s.log.Debug("a read of the input does not end")
	}
}

func within(d time.Duration, done <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
		return true
	default:
	}
	select {
	case <-done:
		return true
	case <-t.C:
		return false
	}
}

func closeStream(stream any) {
	if c, ok := stream.(io.Closer); ok {
		_ = c.Close()
	}
}

// logPanic logs a panic with its stack, and returns the id to quote.
func logPanic(log *slog.Logger, where string, p any) (id string) {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	id = hex.EncodeToString(b[:])
	log.Error("panic", "where", where, "request_id", id, "panic", p, "stack", string(debug.Stack()))
	return id
}
