package postgres_test

import (
	"math/rand/v2"
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

// load gives a store messages and settles every other one, until stop is closed.
type load struct {
	t    *testing.T
	s    *postgres.Store
	o    office
	stop chan struct{}
	wg   sync.WaitGroup

	mu      sync.Mutex // guards the following
	acked   map[wire.ID]int64
	settled map[wire.ID]bool
	given   int
}

func startLoad(t *testing.T, s *postgres.Store) *load {
	l := &load{t: t, s: s, o: settleIn(t, s), stop: make(chan struct{}), acked: make(map[wire.ID]int64), settled: make(map[wire.ID]bool)}
	l.wg.Go(l.run)
	return l
}

func (l *load) run() {
	slots := make(chan struct{}, 64)
	for {
		select {
		case <-l.stop:
			for range cap(slots) {
				slots <- struct{}{}
			}
			return
		case slots <- struct{}{}:
		}
		m := l.o.message()
		l.mu.Lock()
		l.given++
		settle := l.given%2 == 0
		l.mu.Unlock()
		l.s.Accept(m, func(a broker.Accepted, err error) {
			if err != nil || a.Duplicate || a.First == 0 {
				l.t.Errorf("accepted as %+v, %v", a, err)
			}
			l.mu.Lock()
			l.acked[m.ID] = a.First
			l.mu.Unlock()
			if !settle || err != nil {
				<-slots
				return
			}
			l.s.Settle([]broker.Settlement{l.o.end(m, a.First)}, func(settled []bool, err error) {
				if err != nil || !settled[0] {
					l.t.Errorf("settled: %v, %v", settled, err)
				}
				l.mu.Lock()
				l.settled[m.ID] = true
				l.mu.Unlock()
				<-slots
			})
		})
	}
}

// acks counts what was told until now.
func (l *load) acks() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked) + len(l.settled)
}

// await waits until the store tells of n more.
func (l *load) await(n int) {
	l.t.Helper()
	from := l.acks()
	for deadline := time.Now().Add(60 * time.Second); l.acks() < from+n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			l.t.Fatal("nothing is committed any more")
		}
	}
}

// check ends the load and compares what was told with what is stored.
func (l *load) check(url string) {
	t := l.t
	t.Helper()
	close(l.stop)
	l.wg.Wait()
	if len(l.acked) != l.given {
		t.Errorf("%d of %d messages were told of", len(l.acked), l.given)
	}
	c, err := pgx.Connect(bg, url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(bg)
	rows, err := c.Query(bg, `SELECT m.id, m.seq, (SELECT count(*) FROM delivery d WHERE d.message = m.seq), (SELECT count(*) FROM body b WHERE b.seq = m.seq),
		(SELECT count(*) FROM outcome o WHERE o.id = m.seq) FROM message m`)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	var id []byte
	var seq int64
	var queued, bodies, ended int
	_, err = pgx.ForEachRow(rows, []any{&id, &seq, &queued, &bodies, &ended}, func() error {
		found++
		m := wire.ID(id)
		first, acked := l.acked[m]
		want := 1
		if l.settled[m] {
			want = 0
		}
		if !acked || first != seq || queued != want || bodies != want || ended != 1-want {
			t.Errorf("message %s is stored as %d, %d queued, %d bodies, %d outcomes; told: %v, as %d, settled: %v",
				m, seq, queued, bodies, ended, acked, first, l.settled[m])
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found != len(l.acked) {
		t.Errorf("%d messages are stored, %d were told of", found, len(l.acked))
	}
	var counts bool
	err = c.QueryRow(bg, `SELECT queued = (SELECT count(*) FROM delivery) AND queued_bytes = (SELECT coalesce(sum(size), 0) FROM delivery)
		FROM mesh`).Scan(&counts)
	if err != nil || !counts {
		t.Errorf("the mesh's counters are wrong (%v)", err)
	}
}

func rounds(short, soak int) int {
	if os.Getenv("SOAK") != "" {
		return soak
	}
	return short
}

// A server that crashes while it is written to loses nothing that was told of.
func TestServerCrash(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t, pgtest.Options{})
	url := server.Database(t)
	l := startLoad(t, open(t, url))
	for range rounds(3, 20) {
		l.await(200 + rand.IntN(500))
		if err := server.Restart(pgtest.Immediate); err != nil {
			t.Fatal(err)
		}
	}
	l.await(200)
	l.check(url)
}

// A writer whose connection ends at any moment tries again.
func TestWriterTerminated(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	l := startLoad(t, open(t, url))
	c, err := pgx.Connect(bg, url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(bg)
	for n := 0; n < 50; {
		l.await(1 + rand.IntN(100))
		time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
		var ended int
		err := c.QueryRow(bg, `SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '%post(%') x`).Scan(&ended)
		if err != nil {
			t.Fatal(err)
		}
		n += ended
	}
	l.await(100)
	l.check(url)
}
