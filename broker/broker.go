// Package broker routes sealed messages between the peers of meshes and keeps
// them on disk until they are delivered. It verifies who is a member and
// cannot read what members say: it never imports internal/seal.
//
// A Broker is an http.Handler over a Store:
//
//	b, err := broker.New(ctx, broker.Config{Store: store})
//	srv := b.Server() // or any other: with timeouts of its own
//	err = srv.ListenAndServe()
//
// Several brokers may share a store that is a ClusterStore (see ClusterConfig).
//
// Locks, in the order in which they may be taken: Broker.mu, mesh.mu, then a
// connection's queue or the cluster's. None is held while the store is waited for. The
// store's writer calls back under no lock and may take any.
package broker

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// Broker serves any number of meshes. Make it with New, end it with Shutdown.
type Broker struct {
	cfg     Config
	store   Store
	log     *slog.Logger
	key     trust.SecretKey
	mux     *http.ServeMux
	metrics *metrics
	gate    *gate
	cluster *cluster // nil: the store is this broker's alone

	ctx      context.Context // ends when Shutdown has closed the connections
	cancel   context.CancelFunc
	routines routines // every goroutine of the broker

	stopping atomic.Bool
	diskFull atomic.Bool
	refusals refusals
	peers    atomic.Int64 // authenticated connections
	came     atomic.Int64 // connections so far

	mu     sync.Mutex // guards the following
	meshes map[wire.ID]*mesh
	conns  map[*conn]struct{}

	token string // of a first start, until TakeToken
}

// New starts a broker on an open store. The store stays the caller's to close,
// after Shutdown.
func New(ctx context.Context, cfg Config) (*Broker, error) {
	cfg = cfg.withDefaults()
	b := &Broker{
		cfg: cfg, store: cfg.Store, log: cfg.Logger,
		meshes: map[wire.ID]*mesh{}, conns: map[*conn]struct{}{},
		gate: newGate(cfg.Limits, cfg.Now),
	}
	if err := b.identify(ctx); err != nil {
		return nil, err
	}
	b.metrics = newMetrics(b)
	b.ctx, b.cancel = context.WithCancel(context.WithoutCancel(ctx))
	b.mux = b.routes()
	b.checkDisk()
	if cfg.Cluster.Node != "" {
		b.cluster = newCluster(b)
		if err := b.cluster.begin(ctx); err != nil {
			b.cancel()
			b.routines.wait()
			return nil, err
		}
	}
	b.routines.run(b.janitor)
	return b, nil
}

// identify loads the broker key and token, making both at the first start.
func (b *Broker) identify(ctx context.Context) error {
	token := b.cfg.AdminToken
	if token == "" {
		token = rand.Text()
	}
	fresh := BrokerIdentity{Seed: trust.NewSecretKey().Seed(), TokenHash: sha256.Sum256([]byte(token)), Created: b.cfg.Now()}
	id, created, err := b.store.Identity(ctx, fresh)
	if err != nil {
		return err
	}
	if b.cfg.AdminToken != "" && id.TokenHash != fresh.TokenHash {
		if err := b.store.SetTokenHash(ctx, fresh.TokenHash); err != nil {
			return err
		}
	}
	if created && b.cfg.AdminToken == "" {
		b.token = token
	}
	b.key = trust.SecretKeyFromSeed(id.Seed)
	return nil
}

// TakeToken returns the admin token that a first start has drawn, once; later
// and on any other start it returns "". Only its hash is stored.
func (b *Broker) TakeToken() string {
	t := b.token
	b.token = ""
	return t
}

// PublicKey is the broker's key, which invites pin.
func (b *Broker) PublicKey() wire.Key { return b.key.Public() }

// ServeHTTP serves the WebSocket and the HTTP requests of the protocol.
func (b *Broker) ServeHTTP(w http.ResponseWriter, r *http.Request) { b.mux.ServeHTTP(w, r) }

// authorized reports whether a bearer token is the admin token.
func (b *Broker) authorized(ctx context.Context, token string) (bool, error) {
	if b.cfg.Open {
		return true, nil
	}
	id, _, err := b.store.Identity(ctx, BrokerIdentity{})
	if err != nil {
		return false, err
	}
	h := sha256.Sum256([]byte(token))
	return token != "" && subtle.ConstantTimeCompare(h[:], id.TokenHash[:]) == 1, nil
}

// mesh returns a mesh's state, loading it when it is first asked for.
func (b *Broker) mesh(ctx context.Context, id wire.ID) (*mesh, error) {
	b.mu.Lock()
	m := b.meshes[id]
	if m == nil {
		m = &mesh{b: b, id: id}
		b.meshes[id] = m
	}
	b.mu.Unlock()
	if err := m.load(ctx); err != nil {
		b.mu.Lock()
		if b.meshes[id] == m && !m.loaded.Load() {
			delete(b.meshes, id)
		}
		b.mu.Unlock()
		if errors.Is(err, ErrNotFound) {
			return nil, wire.Faultf(wire.CodeUnknownMesh, "")
		}
		return nil, err
	}
	return m, nil
}

// loadedMeshes returns the meshes in memory.
func (b *Broker) loadedMeshes() []*mesh {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]*mesh, 0, len(b.meshes))
	for _, m := range b.meshes {
		if m.loaded.Load() {
			out = append(out, m)
		}
	}
	return out
}

// loadedMesh returns a mesh in memory, or nil.
func (b *Broker) loadedMesh(id wire.ID) *mesh {
	b.mu.Lock()
	defer b.mu.Unlock()
	if m := b.meshes[id]; m != nil && m.loaded.Load() {
		return m
	}
	return nil
}

func (b *Broker) connections() []*conn {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]*conn, 0, len(b.conns))
	for c := range b.conns {
		out = append(out, c)
	}
	return out
}

// Shutdown refuses new connections, closes the open ones with 1001 (going
// away), and waits for everything to end or for ctx. What was accepted is in
// the store's hands: close the store afterwards.
func (b *Broker) Shutdown(ctx context.Context) error {
	b.mu.Lock()
	b.stopping.Store(true) // from here on none is added
	b.mu.Unlock()
	for _, c := range b.connections() {
		b.routines.run(func() { c.close(wire.CloseGoingAway) })
	}
	done := make(chan struct{})
	go func() { b.waitConns(ctx, nil); b.cluster.resign(ctx); b.cancel(); b.routines.wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		b.cancel()
		for _, c := range b.connections() {
			_ = c.ws.CloseNow()
		}
		<-done
		return ctx.Err()
	}
}

// waitConns returns when none of some connections is left, or with nil none at
// all, or ctx ends.
func (b *Broker) waitConns(ctx context.Context, some []*conn) {
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	left := func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		some = slices.DeleteFunc(some, func(c *conn) bool { _, there := b.conns[c]; return !there })
		return len(some) > 0 || some == nil && len(b.conns) > 0
	}
	for left() {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

func randomID() string {
	var b [8]byte
	rand.Read(b[:]) // crypto/rand.Read never fails
	return hex.EncodeToString(b[:])
}

// closeStatus converts our table's codes to the library's type.
func closeStatus(c wire.CloseCode) websocket.StatusCode { return websocket.StatusCode(c) }
