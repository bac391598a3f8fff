package sqlite_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/sqlite"
)

func TestBackupUnderLoad(t *testing.T) {
	dir := t.TempDir()
	path, dest := filepath.Join(dir, "broker.db"), filepath.Join(dir, "backup.db")
	s := open(t, path)
	id, peer := mesh(t, s)
	const before = 300
	for range before {
		if _, err := accept(s, message(id, peer, 500)); err != nil {
			t.Fatal(err)
		}
	}
	stop, stopped := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				stopped <- n
				return
			default:
			}
			if _, err := accept(s, message(id, peer, 500)); err != nil {
				t.Error(err)
			}
			n++
		}
	}()
	err := sqlite.Backup(t.Context(), path, dest)
	close(stop)
	during := <-stopped
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dest); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("backup %v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
	if err := sqlite.Backup(t.Context(), path, dest); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over an existing file: %v", err)
	}
	copied := open(t, dest)
	q, err := queued(copied, peer)
	if err != nil || len(q) < before || len(q) > before+during {
		t.Errorf("the copy holds %d messages, want %d to %d, %v", len(q), before, before+during, err)
	}
	if m, err := copied.Mesh(t.Context(), id); err != nil || m.Queued != int64(len(q)) {
		t.Errorf("the copy counts %d, %v", m.Queued, err)
	}
	if err := sqlite.Check(t.Context(), path); err != nil {
		t.Errorf("check of a live database: %v", err)
	}
}

func TestToolsNeedADatabase(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing.db")
	for name, err := range map[string]error{
		"Check":      sqlite.Check(t.Context(), missing),
		"Backup":     sqlite.Backup(t.Context(), missing, filepath.Join(dir, "x")),
		"ResetToken": sqlite.ResetToken(t.Context(), missing, [32]byte{}),
	} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("files were made: %v", left)
	}
}

func TestCheckFindsDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "broker.db")
	s := open(t, path)
	id, peer := mesh(t, s)
	for range 200 {
		if _, err := accept(s, message(id, peer, 500)); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	if err := sqlite.Check(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	intact, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	const page = 8192
	for n := 1; n < len(intact)/page; n++ {
		b := append([]byte(nil), intact...)
		for i := range 64 { // the page's header and first cell pointers
			b[n*page+i] ^= 0xff
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := sqlite.Check(t.Context(), path); errors.Is(err, sqlite.ErrCorrupt) {
			found++
		} else {
			t.Errorf("page %d: %v", n+1, err)
		}
	}
	if found < 10 {
		t.Errorf("only %d damaged pages were tried", found)
	}
	if err := sqlite.Backup(t.Context(), path, path+".bak"); err == nil {
		t.Error("a damaged database was backed up")
	}
	if err := os.WriteFile(path, intact, 0o600); err != nil {
		t.Fatal(err)
	}
	for statement, want := range map[string]string{
		"UPDATE mesh SET queued = 7":                   "counters",
		"UPDATE delivery SET wrap = NULL WHERE id = 5": "message 5",
		"DELETE FROM message WHERE seq = 9":            "delivery 9",
		"UPDATE peer SET mesh = 99 WHERE id = 1":       "peer row",
	} {
		if err := os.WriteFile(path, intact, 0o600); err != nil {
			t.Fatal(err)
		}
		edit(t, path, statement)
		if err := sqlite.Check(t.Context(), path); !errors.Is(err, sqlite.ErrCorrupt) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", statement, err)
		}
	}
}

func TestResetToken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "broker.db")
	s := open(t, path)
	if err := sqlite.ResetToken(t.Context(), path, [32]byte{9}); !errors.Is(err, broker.ErrNotFound) {
		t.Errorf("before the first start: %v", err)
	}
	first := broker.BrokerIdentity{Seed: [32]byte{1}, TokenHash: [32]byte{2}, Created: time.UnixMilli(5).UTC()}
	if _, _, err := s.Identity(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if err := sqlite.ResetToken(t.Context(), path, [32]byte{9}); err != nil {
		t.Fatal(err)
	}
	got, created, err := s.Identity(t.Context(), broker.BrokerIdentity{})
	first.TokenHash = [32]byte{9}
	if err != nil || created || got != first {
		t.Errorf("identity %+v, %v, %v", got, created, err)
	}
}
