package postgres_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/pgtest"
	"github.com/claudemesh/claudemesh/internal/postgres"
	"github.com/claudemesh/claudemesh/internal/wire"
)

const (
	shortLease = 300 * time.Millisecond
	longLease  = 10 * time.Minute
)

// cluster is a database that several stores share, with one mesh.
type cluster struct {
	testing.TB
	ctx     context.Context
	url     string
	db      *pgx.Conn // looks past the stores
	mesh    wire.ID
	founder broker.Member
}

func newCluster(t testing.TB) *cluster {
	t.Helper()
	c := &cluster{TB: t, ctx: t.Context(), url: pgtest.Database(t)}
	c.db = c.connect()
	c.mesh = bytesOf[wire.ID](c)
	c.founder = broker.Member{Mesh: c.mesh, Key: bytesOf[wire.Key](c), Name: "founder", Role: "owner", Certificate: wire.Certificate{c.signed()}, Joined: now()}
	s := open(t, c.url)
	c.ok(s.CreateMesh(c.ctx, broker.Mesh{ID: c.mesh, Owner: c.founder.Key, Name: "mesh", Genesis: c.signed(), Created: now()}, c.founder))
	return c
}

func (c *cluster) connect() *pgx.Conn {
	c.Helper()
	db, err := pgx.Connect(context.Background(), c.url)
	c.ok(err)
	c.Cleanup(func() { _ = db.Close(context.Background()) }) // a test may have closed it
	return db
}

// node opens a store and enlists it.
func (c *cluster) node(name string, lease time.Duration) (*postgres.Store, broker.Node) {
	c.Helper()
	s := open(c, c.url)
	n, err := s.Enlist(c.ctx, name, lease)
	c.ok(err)
	return s, n
}

func (c *cluster) ok(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

func (c *cluster) fails(err, want error) {
	c.Helper()
	if !errors.Is(err, want) {
		c.Errorf("error %v, want %v", err, want)
	}
}

// same compares as text, in which times and pointers are what they stand for.
func (c *cluster) same(got, want any) {
	c.Helper()
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		c.Errorf("got  %s\nwant %s", g, w)
	}
}

func now() time.Time { return time.UnixMilli(time.Now().UnixMilli()).UTC() }

func bytesOf[T ~[16]byte | ~[32]byte | ~[64]byte](c *cluster) (v T) {
	b := make([]byte, len(v))
	_, err := rand.Read(b)
	c.ok(err)
	for i := range b {
		v[i] = b[i]
	}
	return v
}

func (c *cluster) signed() wire.Signed {
	return wire.Signed{Body: []byte("body"), Sig: bytesOf[wire.Sig](c)}
}

// session puts a new session of the founder.
func (c *cluster) session(s broker.Store) broker.PeerID {
	c.Helper()
	id, err := s.PutPeer(c.ctx, broker.Peer{Mesh: c.mesh, Key: bytesOf[wire.Key](c), Member: c.founder.Key, LastSeen: now()})
	c.ok(err)
	return id
}

// until polls a query for true.
func (c *cluster) until(what, query string, args ...any) {
	c.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		var done bool
		c.ok(c.db.QueryRow(c.ctx, query, args...).Scan(&done))
		if done {
			return
		}
		if time.Now().After(deadline) {
			c.Fatalf("never %s", what)
		}
	}
}

func (c *cluster) overdue(n broker.Node) {
	c.Helper()
	c.until("overdue", "SELECT until < clock_timestamp() FROM node WHERE epoch = $1", n.Epoch)
}

// holder returns who holds a peer, as a store sees it.
func (c *cluster) holder(s *postgres.Store, p broker.PeerID) broker.Holder {
	c.Helper()
	found, err := s.Locate(c.ctx, c.mesh, []broker.PeerID{p})
	c.ok(err)
	if len(found) != 1 {
		c.Fatalf("located %+v", found)
	}
	return c.timeless(found[0].Holder)
}

// timeless is a holder without its time, which every holder has.
func (c *cluster) timeless(h broker.Holder) broker.Holder {
	c.Helper()
	if (h.Since == 0) != (h.Epoch == 0) {
		c.Errorf("since when is %+v?", h)
	}
	h.Since = 0
	return h
}

func (c *cluster) hold(s *postgres.Store, holds ...broker.Hold) []broker.Held {
	c.Helper()
	held, err := s.Hold(c.ctx, holds)
	c.ok(err)
	for i := range held {
		if held[i].Had != (held[i].Since != 0) {
			c.Errorf("since when is %+v?", held[i])
		}
		held[i].Since, held[i].Before = 0, c.timeless(held[i].Before)
	}
	return held
}

func TestLease(t *testing.T) {
	c := newCluster(t)
	a, na := c.node("a", shortLease)
	b, nb := c.node("b", longLease)
	standing, err := b.Renew(c.ctx)
	c.ok(err)
	if len(standing) == 2 { // unless the machine stood still
		c.same(standing, []broker.Node{na, nb})
	}
	a, na = c.again(a, "a", longLease)
	p := c.session(a)
	c.hold(a, broker.Hold{Peer: p, Conn: 7, Person: true})
	c.same(c.holder(b, p), broker.Holder{Node: na, Conn: 7, Person: true})

	c.expire(na)
	c.same(c.holder(b, p), broker.Holder{}) // before anybody buries it
	_, err = a.Renew(c.ctx)
	c.fails(err, broker.ErrFenced)
	standing, err = b.Renew(c.ctx)
	c.ok(err)
	c.same(standing, []broker.Node{nb})
	c.until("buried", "SELECT NOT EXISTS (SELECT 1 FROM node WHERE epoch = $1) AND NOT EXISTS (SELECT 1 FROM presence WHERE epoch = $1)", na.Epoch)

	again, err := a.Enlist(c.ctx, "a", longLease)
	c.ok(err)
	if again.Epoch <= nb.Epoch {
		c.Errorf("epoch %d after %d", again.Epoch, nb.Epoch)
	}
	c.session(a)
}

// again enlists a store once more.
func (c *cluster) again(s *postgres.Store, name string, lease time.Duration) (*postgres.Store, broker.Node) {
	c.Helper()
	n, err := s.Enlist(c.ctx, name, lease)
	c.ok(err)
	return s, n
}

// expire ends a lease as time would.
func (c *cluster) expire(n broker.Node) {
	c.Helper()
	_, err := c.db.Exec(c.ctx, "UPDATE node SET until = clock_timestamp() WHERE epoch = $1", n.Epoch)
	c.ok(err)
	c.overdue(n)
}

func TestLeaseIsProlonged(t *testing.T) {
	c := newCluster(t)
	a, n := c.node("a", 20*time.Second)
	var before, after time.Time
	const query = "SELECT until FROM node WHERE epoch = $1"
	c.ok(c.db.QueryRow(c.ctx, query, n.Epoch).Scan(&before))
	_, err := a.Renew(c.ctx)
	c.ok(err)
	c.ok(c.db.QueryRow(c.ctx, query, n.Epoch).Scan(&after))
	if !after.After(before) {
		c.Errorf("lease until %v, then %v", before, after)
	}
}

// Renewing waits for nothing that the rest of the store does.
func TestRenewWhileBusy(t *testing.T) {
	c := newCluster(t)
	s, err := postgres.Open(c.ctx, c.url, postgres.Options{Conns: 1})
	c.ok(err)
	defer s.Close()
	_, err = s.Enlist(c.ctx, "busy", longLease)
	c.ok(err)
	dead, nd := c.node("dead", longLease)
	p := c.session(s)
	c.hold(dead, broker.Hold{Peer: p, Conn: 1})
	tx, err := c.connect().Begin(c.ctx)
	c.ok(err)
	_, err = tx.Exec(c.ctx, "SELECT 1 FROM peer FOR UPDATE") // holds up every touch
	c.ok(err)
	_, err = tx.Exec(c.ctx, "SELECT 1 FROM presence FOR UPDATE") // and a burial
	c.ok(err)
	touched := make(chan error, 1)
	go func() { touched <- s.TouchPeers(c.ctx, []broker.PeerID{p}, now()) }()
	c.until("waiting", "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')")
	c.expire(nd)
	for range 3 {
		standing, err := s.Renew(c.ctx)
		c.ok(err)
		c.same(len(standing), 1)
	}
	c.ok(tx.Rollback(c.ctx))
	c.ok(<-touched)
}

func TestReplaced(t *testing.T) {
	c := newCluster(t)
	a, na := c.node("a", longLease)
	other, no := c.node("other", longLease)
	p, q := c.session(a), c.session(a)
	c.hold(a, broker.Hold{Peer: p, Conn: 1})
	c.hold(other, broker.Hold{Peer: q, Conn: 2})
	b, nb := c.node("a", longLease)
	if nb.Name != na.Name || nb.Epoch <= na.Epoch {
		c.Errorf("%+v replaced %+v", nb, na)
	}
	c.same(c.holder(b, p), broker.Holder{})
	c.same(c.holder(b, q), broker.Holder{Node: no, Conn: 2})
	_, err := a.Renew(c.ctx)
	c.fails(err, broker.ErrReplaced)
	standing, err := b.Renew(c.ctx)
	c.ok(err)
	c.same(standing, []broker.Node{nb, no})

	c.ok(b.Resign(c.ctx))
	standing, err = other.Renew(c.ctx)
	c.ok(err)
	c.same(standing, []broker.Node{no})
	c.session(b) // an ordinary store again
	_, err = b.Renew(c.ctx)
	c.fails(err, broker.ErrFenced)
}

// Many take one name at once: each gets an epoch, the last one stands.
func TestEnlistTogether(t *testing.T) {
	c := newCluster(t)
	stores := make([]*postgres.Store, 4)
	for i := range stores {
		stores[i] = open(t, c.url)
	}
	epochs := make([]int64, len(stores))
	var wg sync.WaitGroup
	for i, s := range stores {
		wg.Go(func() {
			for range 5 {
				n, err := s.Enlist(c.ctx, "a", longLease)
				if err != nil {
					t.Error(err)
				}
				epochs[i] = n.Epoch
			}
		})
	}
	wg.Wait()
	fine := 0
	for _, s := range stores {
		if _, err := s.Renew(c.ctx); err == nil {
			fine++
		} else {
			c.fails(err, broker.ErrFenced)
		}
	}
	c.same(fine, 1)
}

// A transaction that is open while its node is overdue is waited for.
func TestBurialWaits(t *testing.T) {
	c := newCluster(t)
	_, na := c.node("a", longLease)
	b, nb := c.node("b", longLease)
	tx, err := c.connect().Begin(c.ctx)
	c.ok(err)
	_, err = tx.Exec(c.ctx, "SELECT fence($1, $2)", na.Name, na.Epoch)
	c.ok(err)
	c.expire(na)
	for range 3 {
		standing, err := b.Renew(c.ctx)
		c.ok(err)
		c.same(standing, []broker.Node{nb})
	}
	var stands bool
	c.ok(c.db.QueryRow(c.ctx, "SELECT EXISTS (SELECT 1 FROM node WHERE epoch = $1)", na.Epoch).Scan(&stands))
	c.same(stands, true)

	next := open(t, c.url)
	enlisted := make(chan error, 1)
	go func() {
		_, err := next.Enlist(c.ctx, "a", longLease)
		enlisted <- err
	}()
	c.until("waiting", `SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database()
		AND wait_event_type = 'Lock' AND query LIKE 'DELETE FROM node%')`)
	select {
	case err := <-enlisted:
		t.Fatalf("enlisted with %v while a transaction of the node before was open", err)
	default:
	}
	c.ok(tx.Commit(c.ctx))
	c.ok(<-enlisted)
	_, err = next.Renew(c.ctx)
	c.ok(err)
}

// Several brokers start on an empty database at the same instant.
func TestOpenTogether(t *testing.T) {
	t.Parallel()
	rounds := 5
	if os.Getenv("SOAK") != "" {
		rounds = 20
	}
	for range rounds {
		url := pgtest.Shared(t).Blank(t)
		errs := make(chan error, 2)
		for range cap(errs) {
			go func() {
				s, err := postgres.Open(context.Background(), url, postgres.Options{})
				if err == nil {
					_, err = s.Enlist(context.Background(), "a", longLease)
					err = errors.Join(err, s.Close())
				}
				errs <- err
			}()
		}
		for range cap(errs) {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	}
}

// A server that went away is found again by the renewal.
func TestRenewAfterRestart(t *testing.T) {
	server := pgtest.Start(t, pgtest.Options{})
	s := open(t, server.Database(t))
	n, err := s.Enlist(t.Context(), "a", longLease)
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Stop(pgtest.Fast); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Renew(t.Context()); err == nil || errors.Is(err, broker.ErrFenced) {
		t.Errorf("renewed without a server: %v", err)
	}
	if err := server.Run(); err != nil {
		t.Fatal(err)
	}
	standing, err := s.Renew(t.Context())
	if err != nil || len(standing) != 1 || standing[0] != n {
		t.Errorf("standing %+v, %v", standing, err)
	}
}
