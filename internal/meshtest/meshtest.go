// Package meshtest is a broker and its peers in one process, for tests: a real
// store on a real file, real sockets, real clients.
package meshtest

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/pgtest"
	"github.com/claudemesh/claudemesh/internal/postgres"
	"github.com/claudemesh/claudemesh/internal/sqlite"
	"github.com/claudemesh/claudemesh/internal/trust"
)

// World is one broker and the meshes founded on it.
type World struct {
	T      testing.TB
	URL    string // ws://127.0.0.1:PORT/ws
	File   string // the broker's database, unless it is
	DB     string // the URL of one that it shares
	Config broker.Config
	Broker *broker.Broker
	Logger *slog.Logger

	addr  string
	store broker.Store
	srv   *http.Server
}

// Another starts another broker on the database of a world, which is one of several.
func (w *World) Another(edit func(*broker.Config)) *World {
	w.T.Helper()
	o := &World{T: w.T, DB: w.DB, addr: "127.0.0.1:0", Logger: w.Logger, Config: w.Config}
	edit(&o.Config)
	o.Start()
	w.T.Cleanup(o.Stop)
	return o
}

// New starts a world, on Postgres when MESHTEST_POSTGRES is set; edit changes the broker's configuration, nil leaves it.
func New(t testing.TB, edit func(*broker.Config)) *World {
	t.Helper()
	db := ""
	if os.Getenv("MESHTEST_POSTGRES") != "" {
		db = pgtest.Database(t)
	}
	return NewOn(t, db, edit)
}

// NewOn is New on a Postgres database; "" is a file.
func NewOn(t testing.TB, db string, edit func(*broker.Config)) *World {
	t.Helper()
	w := &World{T: t, DB: db, File: filepath.Join(t.TempDir(), "mesh.db"), addr: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)}
	if os.Getenv("MESHTEST_LOG") != "" {
		w.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	w.Config = broker.Config{Open: true, Logger: w.Logger, Limits: broker.Limits{SendsPerMinute: 1e6, SendBurst: 1e6, BytesPerMinute: 1e9}}
	if edit != nil {
		edit(&w.Config)
	}
	w.Start()
	t.Cleanup(w.Stop)
	return w
}

// Start starts the broker on its file and, after the first time, its port.
func (w *World) Start() {
	w.T.Helper()
	cfg, err := w.Config, error(nil)
	if w.DB != "" {
		w.store, err = postgres.Open(context.Background(), w.DB, postgres.Options{Logger: w.Logger})
		if cfg.Cluster.Node == "" {
			cfg.Cluster.Node = "one"
		}
	} else {
		w.store, err = sqlite.Open(context.Background(), w.File, sqlite.Options{Logger: w.Logger})
	}
	w.must(err)
	cfg.Store = w.store
	w.Broker, err = broker.New(context.Background(), cfg)
	w.must(err)
	var ln net.Listener
	for try := 0; ; try++ {
		if ln, err = net.Listen("tcp", w.addr); err == nil || try == 50 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	w.must(err)
	w.addr = ln.Addr().String()
	w.URL = "ws://" + w.addr + "/ws"
	w.srv = w.Broker.Server()
	go func(s *http.Server) { _ = s.Serve(ln) }(w.srv)
}

// Stop shuts the broker down; Start brings it back.
func (w *World) Stop() {
	if w.srv == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = w.srv.Close()
	if err := w.Broker.Shutdown(ctx); err != nil {
		w.T.Errorf("shutdown: %v", err)
	}
	w.must(w.store.Close())
	w.srv = nil
}

func (w *World) must(err error) {
	w.T.Helper()
	if err != nil {
		w.T.Fatal(err)
	}
}

// Found founds a mesh.
func (w *World) Found(mesh, member string) client.Membership {
	w.T.Helper()
	m, err := client.Found(w.T.Context(), w.URL, "", mesh, member)
	w.must(err)
	return m
}

// Join invites and joins one member, in the given role.
func (w *World) Join(inviter *client.Client, role, member string) client.Membership {
	w.T.Helper()
	inv, err := inviter.NewInvite(w.T.Context(), role, 1, time.Hour)
	w.must(err)
	look, err := client.LookUp(w.T.Context(), inv.Link, false)
	w.must(err)
	m, err := look.Join(w.T.Context(), member)
	w.must(err)
	return m
}

// Dial starts a session of a member and waits until it is online.
func (w *World) Dial(m client.Membership, label string, edit func(*client.Options)) *client.Client {
	w.T.Helper()
	c := w.Start1(m, label, edit)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	w.must(c.Ready(ctx))
	return c
}

// Start1 starts a session without waiting for the broker.
func (w *World) Start1(m client.Membership, label string, edit func(*client.Options)) *client.Client {
	w.T.Helper()
	o := client.Options{
		Membership: m, SessionSeed: client.Secret(trust.NewSecretKey().Seed()), Logger: w.Logger,
		Card: client.Card{Label: label, Cwd: "/src/" + label, PeerType: "ai", Status: client.StatusIdle},
	}
	if edit != nil {
		edit(&o)
	}
	c, err := client.Dial(context.Background(), o)
	w.must(err)
	w.T.Cleanup(func() { _ = c.Close() })
	return c
}

// Mailbox opens a mailbox on a file of its own.
func (w *World) Mailbox() client.Mailbox {
	w.T.Helper()
	dir := filepath.Join(w.T.TempDir(), "box")
	w.must(os.Mkdir(dir, 0o700))
	box, err := client.OpenMailbox(context.Background(), filepath.Join(dir, "mailbox.db"))
	w.must(err)
	w.T.Cleanup(func() { _ = box.Close() })
	return box
}

// Next returns the next unread message of a client and marks it read.
func (w *World) Next(c *client.Client) *client.Received {
	w.T.Helper()
	r, err := Next(c, 10*time.Second)
	w.must(err)
	return r
}

// ErrNothing says that no message came in time.
var ErrNothing = errors.New("no message came")

// Next waits for a client's next unread message and marks it read.
func Next(c *client.Client, within time.Duration) (*client.Received, error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	for r, err := range c.Receive(ctx) {
		if err != nil {
			return nil, err
		}
		return r, r.Ack(ctx)
	}
	return nil, ErrNothing
}

// Eventually waits until a condition holds.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range 3000 {
		if ok() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("not within 60 s: %s", what)
}
