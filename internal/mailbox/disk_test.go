package mailbox_test

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/wire"
)

func TestTakeAcrossHandles(t *testing.T) {
	path := filepath.Join(private(t), "m.db")
	takeOnce(t, open(t, path), open(t, path), open(t, path))
}

func TestPutAcrossHandles(t *testing.T) {
	path := filepath.Join(private(t), "m.db")
	var mu sync.Mutex
	drawn := make(map[uint64]bool)
	var wg sync.WaitGroup
	for h := range 2 {
		b := open(t, path)
		for w := range 4 {
			wg.Go(func() {
				for i := range 10 {
					_, err := b.Put(ctx, []mailbox.Lane{lane(bob)}, func(s []uint64) (mailbox.Outgoing, error) {
						mu.Lock()
						defer mu.Unlock()
						if drawn[s[0]] {
							t.Errorf("number %d was drawn twice", s[0])
						}
						drawn[s[0]] = true
						return out(h*1000+w*100+i, bob), nil
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	equal(t, len(drawn), 80)
}

func TestWatchSeesOtherHandles(t *testing.T) {
	path := filepath.Join(private(t), "m.db")
	a, b := open(t, path), open(t, path)
	for n, ch := range []<-chan struct{}{a.Watch(t.Context()), a.WatchClosely(t.Context())} {
		for i := range 3 {
			receive(t, b, in(10*n+i+1))
			hinted(t, ch, time.Second)
		}
	}
	// What happened while nobody watched is told to the next one.
	path = filepath.Join(private(t), "m.db")
	a, b = open(t, path), open(t, path)
	receive(t, b, in(1))
	hinted(t, a.Watch(t.Context()), time.Second)
}

// What a call has returned for is in the file and its WAL.
func TestDurableOnReturn(t *testing.T) {
	path := filepath.Join(private(t), "m.db")
	b := open(t, path)
	put(t, b, out(1, bob))
	advance(t, b, 1, bob, mailbox.Accepted, true)
	receive(t, b, in(1))
	crashed := filepath.Join(private(t), "copy.db")
	for _, suffix := range []string{"", "-wal"} {
		data, err := os.ReadFile(path + suffix)
		check(t, err)
		check(t, os.WriteFile(crashed+suffix, data, 0o600))
	}
	c := open(t, crashed)
	equal(t, c.ID(), b.ID())
	o, err := c.Outgoing(ctx, id(1))
	equal(t, say(o.Recipients[0].State, err), "accepted <nil>")
	equal(t, say(receive(t, c, in(1))), "[false]")
}

func TestReopen(t *testing.T) {
	path := filepath.Join(private(t), "m.db")
	a, err := mailbox.Open(ctx, path)
	check(t, err)
	put(t, a, out(1, bob))
	check(t, a.Close())
	b := open(t, path)
	equal(t, b.ID(), a.ID())
	_, err = b.Outgoing(ctx, id(1))
	check(t, err)
}

func TestOpenAtOnce(t *testing.T) {
	path := filepath.Join(private(t), "m.db")
	ids := make([]string, 8)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			b, err := mailbox.Open(ctx, path)
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = b.ID()
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, other := range ids {
		equal(t, other, ids[0])
	}
}

func TestModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes")
	}
	dir := private(t)
	path := filepath.Join(dir, "m.db")
	b := open(t, path)
	put(t, b, out(1, bob))
	files, _ := filepath.Glob(path + "*")
	equal(t, len(files), 4) // with -wal, -shm and .lock
	for _, f := range files {
		info, err := os.Stat(f)
		check(t, err)
		equal(t, info.Mode().Perm(), 0o600)
	}
	refused := func(hint string) {
		t.Helper()
		if _, err := mailbox.Open(ctx, path); err == nil || !strings.Contains(err.Error(), hint) {
			t.Fatalf("error %v, want %q", err, hint)
		}
	}
	check(t, os.Chmod(path, 0o640))
	refused("chmod 600 '" + path)
	check(t, os.Chmod(path, 0o600))
	check(t, os.Chmod(dir, 0o755))
	refused("chmod 700 '" + dir)
	check(t, os.Chmod(dir, 0o700))
}

func TestRefusedFiles(t *testing.T) {
	exec := func(statement string) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			db, err := sql.Open("sqlite", "file:"+path)
			check(t, err)
			defer db.Close()
			_, err = db.Exec(statement)
			check(t, err)
		}
	}
	cases := []struct {
		name string
		made bool // damage a mailbox, not an empty place
		do   func(t *testing.T, path string)
		is   error
		text string
	}{
		{"text", false, func(t *testing.T, p string) { check(t, os.WriteFile(p, []byte("hello, this is text"), 0o600)) }, mailbox.ErrCorrupt, "aside"},
		{"foreign", false, exec("CREATE TABLE x (y)"), mailbox.ErrCorrupt, "another program"},
		{"newer", true, exec("INSERT INTO schema_version (version_id, is_applied) VALUES (999, 1)"), mailbox.ErrNewer, "update claudemesh"},
		{"torn", true, func(t *testing.T, p string) {
			data, err := os.ReadFile(p)
			check(t, err)
			for i := 100; i < len(data); i++ {
				data[i] = 0xaa
			}
			check(t, os.WriteFile(p, data, 0o600))
		}, mailbox.ErrCorrupt, "session keys will be new"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(private(t), "m.db")
			if c.made {
				b, err := mailbox.Open(ctx, path)
				check(t, err)
				check(t, b.Close())
			}
			c.do(t, path)
			check(t, os.Chmod(path, 0o600))
			_, err := mailbox.Open(ctx, path)
			if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), path) {
				t.Fatalf("error %v", err)
			}
		})
	}
}

const childMessages = 50

// child is one of several processes on a mailbox.
func child(path, number string) error {
	n, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	b, err := mailbox.Open(ctx, path)
	if err != nil {
		return err
	}
	defer b.Close()
	for i := range childMessages {
		_, err := b.Put(ctx, []mailbox.Lane{lane(bob)}, func(s []uint64) (mailbox.Outgoing, error) {
			o := out(n*1000+i, bob)
			o.Text = say(s[0])
			return o, nil
		})
		if err != nil {
			return err
		}
		if _, _, err := b.Receive(ctx, []mailbox.Incoming{in(n*1000 + i), in(i + 1)}); err != nil {
			return err
		}
	}
	return b.Close()
}

func TestProcesses(t *testing.T) {
	path := filepath.Join(private(t), "m.db")
	self, err := os.Executable()
	check(t, err)
	const processes = 4
	var wg sync.WaitGroup
	for p := range processes {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), "MAILBOX_TEST_CHILD="+path, fmt.Sprintf("MAILBOX_TEST_NUMBER=%d", p+1))
		wg.Go(func() {
			if text, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("child %d: %v: %s", p, err, text)
			}
		})
	}
	wg.Wait()
	b := open(t, path)
	sent, err := b.Pending(ctx, mesh, wire.Key{}, 0, 0, 1000)
	check(t, err)
	numbers := make(map[string]bool)
	for _, o := range sent {
		numbers[o.Text] = true
	}
	equal(t, say(len(sent), len(numbers)), "200 200")
	msgs, more, err := b.List(ctx, mailbox.Query{Recipients: []wire.Key{bob}, Limit: 1000})
	equal(t, say(len(msgs), more, err), "250 0 <nil>") // 50 of each, and 50 that all received
}
