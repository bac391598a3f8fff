package broker

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Server returns an HTTP server for a broker, which bounds what a stranger can
// hold open: a request is read within HelloTimeout, its answer is taken within
// WriteTimeout, and a minute of silence after it ends the connection. WebSockets
// have limits of their own. The caller sets what else it needs, and serves.
func (b *Broker) Server() *http.Server {
	s := &strangers{b: b, asked: map[net.Conn]*atomic.Bool{}}
	l := b.cfg.Limits
	return &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		ReadHeaderTimeout: l.HelloTimeout,
		ReadTimeout:       l.HelloTimeout,
		WriteTimeout:      l.HelloTimeout + l.WriteTimeout, // it begins with the request
		IdleTimeout:       time.Minute,                     // proxies keep connections
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(b.log.Handler(), slog.LevelDebug),
		ConnContext:       s.open,
		ConnState:         s.state,
	}
}

// strangers counts sockets that end before they have asked for anything.
type strangers struct {
	b *Broker

	mu    sync.Mutex
	asked map[net.Conn]*atomic.Bool // open ones
}

// askedKey is where a request finds the mark of its socket.
type askedKey struct{}

func (s *strangers) open(ctx context.Context, c net.Conn) context.Context {
	asked := new(atomic.Bool)
	s.mu.Lock()
	s.asked[c] = asked
	s.mu.Unlock()
	return context.WithValue(ctx, askedKey{}, asked)
}

func (s *strangers) serve(w http.ResponseWriter, r *http.Request) {
	if asked, ok := r.Context().Value(askedKey{}).(*atomic.Bool); ok {
		asked.Store(true)
	}
	s.b.ServeHTTP(w, r)
}

func (s *strangers) state(c net.Conn, st http.ConnState) {
	if st != http.StateClosed && st != http.StateHijacked {
		return
	}
	s.mu.Lock()
	asked := s.asked[c]
	delete(s.asked, c)
	s.mu.Unlock()
	if st == http.StateClosed && asked != nil && !asked.Load() {
		s.b.metrics.preAuthDropped.Inc()
	}
}
