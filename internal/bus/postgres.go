package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/claudemesh/claudemesh/broker"
)

const (
	// payloadPostgres is below the 8000 bytes at which pg_notify refuses.
	payloadPostgres = 7900
	// pingEvery and pingTimeout, together, are how long a dead connection goes unnoticed.
	pingEvery   = 10 * time.Second
	pingTimeout = 5 * time.Second
	// sendTimeout bounds a Send whose ctx does not.
	sendTimeout = 5 * time.Second
)

// viaPostgres notifies through the database. A listener and the sender have a
// connection each: what waits for notifications cannot send.
type viaPostgres struct {
	cfg *pgx.ConnConfig
	log *slog.Logger
	wg  sync.WaitGroup // listeners, and connections that are closing

	out chan *sender // holds the sender while nobody uses it
}

// sender is the connection that notifies, and when to dial it again.
type sender struct {
	conn   *pgx.Conn // nil: to be dialled
	tries  int       // in vain, one after the other
	next   time.Time // not dialled before
	closed bool
}

// Postgres returns a bus through the database at a URL. It needs sessions of
// its own: a pooler that shares them between transactions loses LISTEN.
func Postgres(url string, log *slog.Logger) (broker.Bus, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, errors.New("bus: the database URL cannot be parsed") // the cause repeats it
	}
	// A notification need not survive a crash: it waits for no disk and no standby.
	cfg.RuntimeParams["synchronous_commit"] = "off"
	cfg.RuntimeParams["application_name"] = "claudemesh-broker bus"
	cfg.ConnectTimeout = 5 * time.Second
	p := &viaPostgres{cfg: cfg, log: log, out: make(chan *sender, 1)}
	p.out <- &sender{}
	return p, nil
}

// channel is the Postgres channel of a node: 37 of at most 63 bytes.
func channel(node string) string { return "node_" + address(node) }

// MaxPayload implements broker.Bus.
func (p *viaPostgres) MaxPayload() int { return payloadPostgres }

// Send implements broker.Bus.
func (p *viaPostgres) Send(ctx context.Context, node string, payload []byte) error {
	if err := fits(payload, payloadPostgres); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	select {
	case s := <-p.out:
		defer func() { p.out <- s }()
		return p.send(ctx, s, node, payload)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// send dials if need be. Between two dials that fail, sends fail at once.
func (p *viaPostgres) send(ctx context.Context, s *sender, node string, payload []byte) error {
	if s.closed {
		return broker.ErrClosed
	}
	if s.conn == nil {
		if time.Now().Before(s.next) {
			return ErrAway
		}
		conn, err := pgx.ConnectConfig(ctx, p.cfg)
		if err != nil {
			s.tries++
			s.next = time.Now().Add(pause(s.tries))
			return fmt.Errorf("%w: %w", ErrAway, err)
		}
		s.conn, s.tries = conn, 0
	}
	_, err := s.conn.Exec(ctx, "SELECT pg_notify($1, $2)", channel(node), string(payload))
	if err != nil && s.conn.IsClosed() { // ctx ended half-way, or the server is gone
		p.hangUp(s.conn)
		s.conn = nil
	}
	return err
}

// Listen implements broker.Bus.
func (p *viaPostgres) Listen(ctx context.Context, node string, got func([]byte), gap func()) {
	p.wg.Go(func() {
		tries := 0
		for ctx.Err() == nil {
			conn, err := p.subscribe(ctx, node)
			if err == nil {
				tries = 0
				gap()
				err = hear(ctx, conn, got)
				p.hangUp(conn)
			}
			if ctx.Err() != nil {
				return
			}
			if tries++; tries == 1 {
				p.log.Warn("bus: no connection to the database", "error", err)
			}
			wait(ctx, pause(tries))
		}
	})
}

// subscribe returns a connection to which notifications come.
func (p *viaPostgres) subscribe(ctx context.Context, node string) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, p.cfg)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{channel(node)}.Sanitize()); err != nil {
		p.hangUp(conn)
		return nil, err
	}
	return conn, nil
}

// hear hands out notifications until the connection fails or ctx ends. While
// none comes it asks whether the server is there.
func hear(ctx context.Context, conn *pgx.Conn, got func([]byte)) error {
	for {
		quiet, cancel := context.WithTimeout(ctx, pingEvery)
		n, err := conn.WaitForNotification(quiet)
		passed := quiet.Err() != nil
		cancel()
		switch {
		case err == nil:
			got([]byte(n.Payload))
			continue
		case ctx.Err() != nil || !passed:
			return err
		}
		ask, cancel := context.WithTimeout(ctx, pingTimeout)
		err = conn.Ping(ask) // what comes meanwhile is kept for WaitForNotification
		cancel()
		if err != nil {
			return err
		}
	}
}

// hangUp closes a connection, politely if that takes no time. The driver goes on
// in the background when the server does not answer.
func (p *viaPostgres) hangUp(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
	_ = conn.PgConn().Conn().Close()
	p.wg.Go(func() { <-conn.PgConn().CleanupDone() })
}

// Close implements broker.Bus.
func (p *viaPostgres) Close() error {
	s := <-p.out
	if s.conn != nil {
		p.hangUp(s.conn)
	}
	*s = sender{closed: true}
	p.out <- s
	p.wg.Wait()
	return nil
}
