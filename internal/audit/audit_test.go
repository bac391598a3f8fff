package audit_test

import (
	"bytes"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/claudemesh/claudemesh/internal/audit"
	"github.com/claudemesh/claudemesh/internal/wire"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// entries use every field.
func entries(n int) (all []audit.Entry) {
	for i := range n {
		all = append(all, audit.Entry{At: int64(1000 + i), Event: audit.Refused, Mesh: wire.ID{1}, Member: wire.Key{2}, Session: wire.Key{3},
			Message: wire.ID{4, byte(i)}, Code: "blocked", Note: "normal: dm <é>"})
	}
	return all
}

func chain(n int) (all []audit.Record) {
	var last audit.Record
	for _, e := range entries(n) {
		last = last.Next(e)
		all = append(all, last)
	}
	return all
}

func seq(records []audit.Record) iter.Seq2[audit.Record, error] {
	return func(yield func(audit.Record, error) bool) {
		for _, r := range records {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// broken wants a log to be broken at record number; 0 wants it whole.
func broken(t *testing.T, what string, number int64, err error) {
	t.Helper()
	var b *audit.Broken
	switch {
	case number == 0 && err != nil:
		t.Errorf("%s: %v", what, err)
	case number > 0 && (!errors.As(err, &b) || b.Number != number):
		t.Errorf("%s: %v, want it broken at %d", what, err, number)
	}
}

func verify(records ...audit.Record) error {
	_, err := audit.Verify(seq(records))
	return err
}

func TestVerify(t *testing.T) {
	t.Parallel()
	all := chain(6)
	n, err := audit.Verify(seq(all))
	if n != 6 || err != nil {
		t.Fatal(n, err)
	}
	broken(t, "nothing", 0, verify())
	broken(t, "from the middle", 0, verify(all[3:]...))
	broken(t, "dropped", 3, verify(slices.Delete(slices.Clone(all), 2, 3)...))
	swapped := slices.Clone(all)
	swapped[2], swapped[3] = swapped[3], swapped[2]
	broken(t, "swapped", 3, verify(swapped...))
	broken(t, "inserted", 5, verify(slices.Insert(slices.Clone(all), 3, all[2].Next(audit.Entry{At: 1, Event: audit.Joined}))...))
	broken(t, "twice", 4, verify(slices.Insert(slices.Clone(all), 3, all[2])...))
	broken(t, "no beginning", 1, verify(audit.Chain(audit.Sum{1}, 1, all[0].Entry)))
	if verify(audit.Record{}) == nil {
		t.Error("a record without a number")
	}
	changes := map[string]func(*audit.Record){
		"at":      func(r *audit.Record) { r.At++ },
		"event":   func(r *audit.Record) { r.Event = audit.Received },
		"mesh":    func(r *audit.Record) { r.Mesh[15]++ },
		"member":  func(r *audit.Record) { r.Member[31]++ },
		"session": func(r *audit.Record) { r.Session = wire.Key{} },
		"message": func(r *audit.Record) { r.Message[15]++ },
		"code":    func(r *audit.Record) { r.Code = "" },
		"note":    func(r *audit.Record) { r.Note += " " },
		"hash":    func(r *audit.Record) { r.Hash[31]++ },
		"prev":    func(r *audit.Record) { r.Prev[31]++ },
	}
	for name, change := range changes {
		for i := range all {
			altered := slices.Clone(all)
			change(&altered[i])
			broken(t, name, int64(i+1), verify(altered...))
		}
	}
	// An alteration that is hashed anew gives itself away in the next.
	altered := slices.Clone(all)
	altered[2] = audit.Chain(altered[2].Prev, 3, audit.Entry{At: 1, Event: audit.Joined})
	broken(t, "hashed anew", 4, verify(altered...))
}

// A text that is no UTF-8 is stored as what is hashed.
func TestCanonical(t *testing.T) {
	t.Parallel()
	e := audit.Entry{At: 1, Event: audit.Held, Note: "a\xff"}
	if got := string(e.Canonical()); got != `{"at":1,"event":"held","note":"a`+"\ufffd"+`"}` {
		t.Error(got)
	}
}

func file(t *testing.T) string { return filepath.Join(t.TempDir(), "audit.log") }

func open(t *testing.T, path string) *audit.File {
	t.Helper()
	f, err := audit.OpenFile(path)
	check(t, err)
	t.Cleanup(func() { check(t, f.Close()) })
	return f
}

func TestFile(t *testing.T) {
	t.Parallel()
	path := file(t)
	f := open(t, path)
	check(t, f.Append(entries(3)...))
	if _, err := audit.OpenFile(path); !errors.Is(err, audit.ErrInUse) {
		t.Errorf("a second writer: %v", err)
	}
	check(t, f.Close())
	check(t, f.Close())
	if err := f.Append(entries(1)...); err == nil {
		t.Error("a closed log takes more")
	}
	f = open(t, path)
	check(t, f.Append(entries(2)...))
	if n, err := audit.VerifyFile(path); n != 5 || err != nil { // while it is open
		t.Error(n, err)
	}
	if info, err := os.Stat(path); err != nil || (runtime.GOOS != "windows" && info.Mode().Perm() != 0o600) {
		t.Error(info.Mode(), err)
	}
	if _, err := audit.VerifyFile(path + ".none"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// A crash leaves any part of the last line.
func TestTorn(t *testing.T) {
	t.Parallel()
	path := file(t)
	f := open(t, path)
	check(t, f.Append(entries(2)...))
	check(t, f.Close())
	whole, err := os.ReadFile(path)
	check(t, err)
	first := bytes.IndexByte(whole, '\n') + 1
	for cut := first + 1; cut < len(whole); cut++ {
		check(t, os.WriteFile(path, whole[:cut], 0o600))
		if n, err := audit.VerifyFile(path); n != 1 || err != nil { // what is being written is no fault
			t.Fatal(cut, n, err)
		}
		f, err := audit.OpenFile(path)
		check(t, err)
		check(t, f.Append(entries(1)...))
		check(t, f.Close())
		n, err := audit.VerifyFile(path)
		data, _ := os.ReadFile(path)
		if n != 3 || err != nil || strings.Count(string(data), `"event":"torn"`) != 1 {
			t.Fatalf("%d: %d %v\n%s", cut, n, err, data)
		}
	}
	// More than the record that says so takes.
	check(t, os.WriteFile(path, slices.Concat(whole, bytes.Repeat([]byte("x"), 4096)), 0o600))
	for range 2 { // the second time nothing is torn
		f = open(t, path)
		check(t, f.Close())
	}
	if n, err := audit.VerifyFile(path); n != 3 || err != nil {
		t.Error(n, err)
	}
	if data, _ := os.ReadFile(path); !strings.Contains(string(data), "4096 bytes were cut off") {
		t.Errorf("%s", data)
	}
	// The first line too.
	check(t, os.WriteFile(path, whole[:first-1], 0o600))
	f = open(t, path)
	check(t, f.Close())
	if n, err := audit.VerifyFile(path); n != 1 || err != nil {
		t.Error(n, err)
	}
}

func TestFileAltered(t *testing.T) {
	t.Parallel()
	path := file(t)
	f := open(t, path)
	check(t, f.Append(entries(4)...))
	check(t, f.Close())
	whole, err := os.ReadFile(path)
	check(t, err)
	lines := bytes.SplitAfter(whole, []byte("\n"))[:4]
	try := func(what string, number int64, lines ...[]byte) {
		t.Helper()
		check(t, os.WriteFile(path, slices.Concat(lines...), 0o600))
		_, err := audit.VerifyFile(path)
		broken(t, what, number, err)
	}
	try("whole", 0, lines...)
	try("first dropped", 1, lines[1], lines[2], lines[3])
	try("dropped", 2, lines[0], lines[2], lines[3])
	try("swapped", 2, lines[0], lines[2], lines[1], lines[3])
	try("inserted", 3, lines[0], lines[1], lines[1], lines[2], lines[3])
	try("empty line", 2, lines[0], []byte("\n"), lines[1])
	try("long line", 2, lines[0], append(bytes.Repeat([]byte(" "), 1<<17), '\n'), lines[1])
	// Each byte of the second record, its line's end among them.
	for i := range lines[1] {
		altered := bytes.Clone(lines[1])
		altered[i] ^= 0x20 // another case of a letter among them
		try(string(altered), 2, lines[0], altered, lines[2], lines[3])
	}
	// One that is damaged at the end is not gone on from.
	altered := bytes.Clone(lines[3])
	altered[20] ^= 1
	check(t, os.WriteFile(path, slices.Concat(lines[0], lines[1], lines[2], altered), 0o600))
	var b *audit.Broken
	if _, err := audit.OpenFile(path); !errors.As(err, &b) || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
}
