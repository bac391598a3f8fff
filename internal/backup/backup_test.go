package backup

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/v1 anew")

const passphrase = "correct horse battery"

var (
	quick  = Params{Time: 1, Memory: 8, Threads: 1}
	sample = Archive{Created: 1_700_000_000_000, Entries: []Entry{
		{Name: "config.json", Mode: 0o600, Data: []byte(`{"version":1}`)},
		{Name: "seats/0101/ab-1.json", Mode: 0o600, Data: []byte{0, 255, 7}},
	}}
)

func sealed(t testing.TB, a Archive, p Params) []byte {
	t.Helper()
	file, err := Seal(a, passphrase, p)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, p := range []Params{quick, {2, 64, 4}, LowMemory} {
		file := sealed(t, sample, p)
		got, err := Open(file, passphrase)
		if err != nil || !reflect.DeepEqual(got, sample) {
			t.Fatalf("%v, %v", got, err)
		}
		if bytes.Contains(file, []byte("config")) {
			t.Error("a name is in the open")
		}
	}
	a, b := sealed(t, sample, quick), sealed(t, sample, quick)
	if bytes.Equal(a[18:58], b[18:58]) {
		t.Error("salt and nonce are the same twice")
	}
	data, err := sample.Find("config.json")
	if string(data) != `{"version":1}` || err != nil {
		t.Error(string(data), err)
	}
	if _, err := sample.Find("config"); !errors.Is(err, ErrNoEntry) {
		t.Error(err)
	}
}

// The costs that people are promised are those in the file.
func TestParams(t *testing.T) {
	t.Parallel()
	for want, p := range map[[3]uint32]Params{{3, 256 << 10, 4}: Standard, {3, 64 << 10, 4}: LowMemory} {
		if got := [3]uint32{p.Time, p.Memory, uint32(p.Threads)}; got != want {
			t.Errorf("%v, want %v", got, want)
		}
	}
	file := sealed(t, sample, Params{2, 64, 3})
	if got := file[8:18]; !bytes.Equal(got, []byte{1, 0, 0, 0, 2, 0, 0, 0, 64, 3}) {
		t.Errorf("the header says %v", got)
	}
}

// Every bit of a backup counts: nothing opens that was altered anywhere, and
// which error tells it depends on the place alone.
func TestEveryByteFlipped(t *testing.T) {
	t.Parallel()
	file := sealed(t, sample, quick)
	for i := range file {
		for bit := range 8 {
			bad := bytes.Clone(file)
			bad[i] ^= 1 << bit
			_, err := Open(bad, passphrase)
			switch {
			case err == nil:
				t.Fatalf("byte %d bit %d: it opens", i, bit)
			case i >= 18 && !errors.Is(err, ErrPassphrase), i < 8 && !errors.Is(err, ErrFormat),
				i == 8 && !errors.Is(err, ErrTooNew) && !errors.Is(err, ErrFormat):
				t.Fatalf("byte %d bit %d: %v", i, bit, err)
			}
		}
	}
}

func TestEveryLength(t *testing.T) {
	t.Parallel()
	file := sealed(t, sample, quick)
	for n := range file {
		_, err := Open(file[:n], passphrase)
		if want := map[bool]error{true: ErrFormat, false: ErrPassphrase}[n < 58+16]; !errors.Is(err, want) {
			t.Fatalf("%d bytes: %v, want %v", n, err, want)
		}
	}
	if _, err := Open(append(bytes.Clone(file), 0), passphrase); !errors.Is(err, ErrPassphrase) {
		t.Errorf("one byte more: %v", err)
	}
	if _, err := Open(append(bytes.Clone(file), make([]byte, MaxFile)...), passphrase); !errors.Is(err, ErrFormat) {
		t.Errorf("a huge file: %v", err)
	}
}

func TestPassphrases(t *testing.T) {
	t.Parallel()
	file := sealed(t, sample, quick)
	for _, wrong := range []string{"", "correct horse batterx", passphrase + " ", strings.ToUpper(passphrase), passphrase + "\x00"} {
		if _, err := Open(file, wrong); !errors.Is(err, ErrPassphrase) {
			t.Errorf("%q: %v", wrong, err)
		}
	}
	for text, want := range map[string]error{"elevenchars": ErrShort, "ééééééééééé": ErrShort, "twelve chars": nil, "éééééééééééé": nil} {
		if _, err := Seal(sample, text, quick); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", text, err, want)
		}
	}
}

// A hostile header is refused before it costs anything. The test is not parallel:
// it counts what this process allocates.
func TestHostileHeader(t *testing.T) {
	file := sealed(t, sample, quick)
	set := func(time, memory uint32, threads byte) []byte {
		bad := bytes.Clone(file)
		binary.BigEndian.PutUint32(bad[9:], time)
		binary.BigEndian.PutUint32(bad[13:], memory)
		bad[17] = threads
		return bad
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, bad := range [][]byte{
		set(0, 64, 1), set(9, 64, 1), set(1<<32-1, 64, 1), set(1, 7, 1), set(1, 0, 1), set(1, maxMemory+1, 1),
		set(1, 1<<32-1, 1), set(1, 64, 0), set(1, 512, 9), set(1, 512, 255), set(1, 31, 4),
	} {
		if _, err := Open(bad, passphrase); !errors.Is(err, ErrFormat) {
			t.Errorf("%v: %v", bad[9:18], err)
		}
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
		t.Errorf("%d MiB were allocated for what is refused", grown>>20)
	}
	newer := bytes.Clone(file)
	newer[8] = 2
	if _, err := Open(newer[:9], passphrase); !errors.Is(err, ErrTooNew) {
		t.Error(err)
	}
}

// What was written once can be read for ever: testdata/v1 is a file of the format,
// made with -update.
func TestFormat(t *testing.T) {
	t.Parallel()
	name := filepath.Join("testdata", "v1")
	if *update {
		if err := os.WriteFile(name, sealed(t, sample, quick), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Open(file, passphrase); err != nil || !reflect.DeepEqual(got, sample) {
		t.Errorf("%v, %v", got, err)
	}
}

// No entry's name leads out of a directory, or to two files on some system.
func TestNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"", ".", "..", "../x", "a/../b", "/etc/passwd", "a//b", "a/", "/a", `a\b`, `..\x`, "c:x", "a:b", "A", "a b", "a\x00b", "a\n", ".a", "a.", "a/.b",
		"é", strings.Repeat("a", 201), "a..b", "-a",
	} {
		if _, err := Seal(Archive{Entries: []Entry{{Name: name}}}, passphrase, quick); !errors.Is(err, ErrFormat) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, bad := range []Archive{
		{Entries: []Entry{{Name: "a"}, {Name: "a"}}},
		{Entries: []Entry{{Name: "a", Mode: 0o640}}},
		{Entries: []Entry{{Name: "a", Mode: 0o4700}}},
		{Entries: make([]Entry, maxEntries+1)},
	} {
		if _, err := Seal(bad, passphrase, quick); !errors.Is(err, ErrFormat) {
			t.Error(err)
		}
	}
	// What another program sealed is checked as well.
	for _, plain := range []string{``, `null]`, `{"entries":[{"name":"../x"}]}`, `{"entries":[{"name":"a","name":"b"}]}`, `{"entries":[{"name":"a","mode":-1}]}`} {
		if _, err := decode([]byte(plain)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", plain, err)
		}
	}
}

// FuzzOpen holds that no file makes Open or the archive's parser panic, and that
// what they accept is written back as it was understood.
func FuzzOpen(f *testing.F) {
	file := sealed(f, sample, quick)
	plain, err := sample.encode()
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{file, file[:58], file[:57], file[:9], plain, nil, []byte("CMBACKUP"), []byte("CMBACKUP\x02"),
		[]byte(`{"created":1,"entries":[{"name":"../x","mode":384,"data":""}]}`), []byte(`{"entries":null}`)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := parseHeader(data); err == nil && p.Memory <= 1<<10 && p.Time <= 2 {
			if a, err := Open(data, passphrase); err == nil && !reflect.DeepEqual(a, sample) {
				t.Fatalf("it opens as %v", a)
			}
		}
		a, err := decode(data)
		if err != nil {
			return
		}
		out, err := a.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := decode(out)
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if out2, err := again.encode(); err != nil || !bytes.Equal(out, out2) {
			t.Fatalf("%v: %s became %s", err, out, out2)
		}
	})
}
