package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/meshtest"
	"github.com/claudemesh/claudemesh/internal/sqlite"
)

// TestRestoreDrill: a copy is taken while messages come in, a broker starts on
// the copy, and what waited in it is delivered: all of it, in order, once.
func TestRestoreDrill(t *testing.T) {
	w := meshtest.New(t, nil)
	alice := w.Dial(w.Found("drill", "alice"), "web", nil)
	member := w.Join(alice, "member", "bob")
	var seed client.Secret // bob's session comes back under its address
	bob := w.Dial(member, "api", func(o *client.Options) { seed = o.SessionSeed })
	to := []string{bob.Key().String()}
	if err := bob.Close(); err != nil {
		t.Fatal(err)
	}
	send := func(i int) {
		if _, err := alice.Send(t.Context(), client.Message{To: to, Text: fmt.Sprintf("message %d", i)}); err != nil {
			t.Error(err)
		}
	}
	const before = 40
	for i := range before {
		send(i)
	}
	db, err := sql.Open("sqlite", w.File)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	meshtest.Eventually(t, "the broker has them", func() bool {
		var n int
		return db.QueryRow("SELECT count(*) FROM delivery").Scan(&n) == nil && n == before
	})
	stop, stopped := make(chan struct{}), make(chan int)
	go func() {
		n := before
		for ; ; n++ {
			select {
			case <-stop:
				stopped <- n
				return
			case <-time.After(time.Millisecond): // below the sender's quota for one queue
				send(n)
			}
		}
	}()
	copied := filepath.Join(t.TempDir(), "drill.db")
	err = sqlite.Backup(t.Context(), w.File, copied)
	close(stop)
	all := <-stopped
	if err != nil {
		t.Fatal(err)
	}
	// Nobody hands anything over again: what arrives comes out of the copy.
	if err := alice.Close(); err != nil {
		t.Fatal(err)
	}
	w.Stop()
	s := open(t, copied)
	st, err := s.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	w.File = copied
	w.Start()
	bob = w.Dial(member, "api", func(o *client.Options) { o.SessionSeed = seed })
	for i := range int(st.Queued) {
		if r := w.Next(bob); r.Text != fmt.Sprintf("message %d", i) {
			t.Fatalf("%q instead of message %d", r.Text, i)
		}
	}
	if r, err := meshtest.Next(bob, 300*time.Millisecond); !errors.Is(err, meshtest.ErrNothing) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one more: %v, %v", r, err)
	}
	t.Logf("%d sent, %d waited in the copy and were delivered from it", all, st.Queued)
	if st.Queued < before || int(st.Queued) > all {
		t.Errorf("%d deliveries wait in the copy of %d", st.Queued, all)
	}
}
