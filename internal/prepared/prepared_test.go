package prepared_test

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/claudemesh/claudemesh/internal/prepared"
)

func pool(t *testing.T, conns int) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "x.db")+"?_journal_mode=WAL")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	db.SetMaxOpenConns(conns)
	if _, err := db.Exec("CREATE TABLE n (v); INSERT INTO n VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	return db
}

func value(ctx context.Context, q interface {
	Row(ctx context.Context, query string, args []any, dest ...any) error
}) (v int, err error) {
	err = q.Row(ctx, "SELECT v FROM n", nil, &v)
	return v, err
}

// All connections are held when each comes to its first query.
func TestSnapshotsTogether(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r := prepared.NewReaders(pool(t, 3), 3)
	defer r.Close()
	var held, wg sync.WaitGroup
	held.Add(3)
	for range 3 {
		wg.Go(func() {
			err := r.Snapshot(ctx, func(c *prepared.Conn) error {
				held.Done()
				held.Wait()
				_, err := value(ctx, c)
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// A snapshot sees one state, the next one what has come since.
func TestSnapshotIsOneState(t *testing.T) {
	ctx, db := context.Background(), pool(t, 2)
	r := prepared.NewReaders(db, 1)
	defer r.Close()
	for want := 1; want < 4; want++ {
		err := r.Snapshot(ctx, func(c *prepared.Conn) error {
			for range 2 {
				if v, err := value(ctx, c); err != nil || v != want {
					t.Errorf("%d (%v), want %d", v, err, want)
				}
				if _, err := db.Exec("UPDATE n SET v = ?", want+1); err != nil {
					t.Error(err)
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// What fails or panics leaves the connection, or its place, to the next.
func TestReadsAfterFailure(t *testing.T) {
	ctx := context.Background()
	r := prepared.NewReaders(pool(t, 1), 1)
	mine := errors.New("mine")
	if err := r.Snapshot(ctx, func(*prepared.Conn) error { return mine }); err != mine {
		t.Errorf("error %v", err)
	}
	func() {
		defer func() { _ = recover() }()
		_ = r.Snapshot(ctx, func(*prepared.Conn) error { panic("mine") })
	}()
	if err := r.Each(ctx, "SELECT v FROM n", nil, func(*sql.Rows) error { return mine }); err != mine {
		t.Errorf("error %v", err)
	}
	if err := r.Row(ctx, "SELECT nothing", nil); err == nil {
		t.Error("no error")
	}
	if err := r.Row(ctx, "SELECT v FROM n WHERE v = 7", nil); err != sql.ErrNoRows {
		t.Errorf("error %v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := value(ended, r); err != context.Canceled {
		t.Errorf("error %v", err)
	}
	if v, err := value(ctx, r); v != 1 || err != nil {
		t.Errorf("%d, %v", v, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := value(ctx, r); err != prepared.ErrClosed {
		t.Errorf("error %v", err)
	}
}
