package move_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/move"
	"github.com/claudemesh/claudemesh/internal/pgtest"
	"github.com/claudemesh/claudemesh/internal/postgres"
	"github.com/claudemesh/claudemesh/internal/sqlite"
)

// bg is the context of what may outlive a test's own, such as a clean-up.
var bg = context.Background()

func TestMain(m *testing.M) {
	if os.Getenv("MOVE_FROM") != "" {
		os.Exit(moveMain())
	}
	os.Exit(pgtest.Main(m))
}

// openStore opens a database as a broker does.
func openStore(t testing.TB, db string) broker.Store {
	t.Helper()
	s, err := tryStore(db)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tryStore(db string) (broker.Store, error) {
	if postgres.IsURL(db) {
		return postgres.Open(bg, db, postgres.Options{})
	}
	return sqlite.Open(bg, db, sqlite.Options{})
}

// filled makes a database of a dialect and returns what its store tells.
func filledDB(t testing.TB, db string, messages int) (w *world, told map[string]any) {
	t.Helper()
	s := openStore(t, db)
	w = fill(t, s, messages)
	told = w.view(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return w, told
}

// tells is what the store of a database tells.
func (w *world) tells(db string) map[string]any {
	w.Helper()
	s := openStore(w, db)
	told := w.view(s)
	w.ok(s.Close())
	return told
}

func run(t testing.TB, from, to string, o move.Options) move.Report {
	t.Helper()
	r, err := move.Run(bg, from, to, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func check(t testing.TB, db string) {
	t.Helper()
	tool := sqlite.Check
	if postgres.IsURL(db) {
		tool = postgres.Check
	}
	if err := tool(bg, db); err != nil {
		t.Error(err)
	}
}

// There and back, from a store of either dialect: both tell the same all along,
// the tables have the same hashes, and new messages get numbers that nobody had.
func TestThereAndBack(t *testing.T) {
	for name, first := range map[string]string{"SQLite": "", "Postgres": pgtest.Database(t)} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			there, back := pgtest.Shared(t).Blank(t), filepath.Join(dir, "back.db")
			if first == "" {
				first = filepath.Join(dir, "first.db")
			} else {
				there, back = back, there
			}
			w, told := filledDB(t, first, 2000)
			dry := run(t, first, there, move.Options{DryRun: true})
			out := run(t, first, there, move.Options{})
			if dry.Tables[8].Rows != out.Tables[8].Rows || out.Moved == 0 || dry.Bytes == 0 {
				t.Errorf("dry run %+v\nmove %+v", dry, out)
			}
			home := run(t, there, back, move.Options{}.InBatches(17))
			for i, table := range out.Tables {
				if home.Tables[i] != table || table.Rows == 0 || table.SHA256 == "" {
					t.Errorf("moved %+v, and back %+v", table, home.Tables[i])
				}
			}
			for _, db := range []string{first, there, back} {
				w.same(w.tells(db), told)
				check(t, db)
			}
			for _, db := range []string{there, back} {
				if postgres.IsURL(db) {
					outcast(t, db)
				}
			}
			w.goesOn(first, there, back)
		})
	}
}

// outcast: the last change of the first mesh was a removal, the second had none.
func outcast(t *testing.T, url string) {
	t.Helper()
	c, err := pgx.Connect(bg, url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(bg)
	var right bool
	err = c.QueryRow(bg, "SELECT bool_and(outcast_version = CASE id WHEN 1 THEN members_version ELSE 0 END) FROM mesh").Scan(&right)
	if err != nil || !right {
		t.Error("outcast_version is wrong", err)
	}
}

// goesOn gives the same to stores that hold the same.
func (w *world) goesOn(dbs ...string) {
	type next struct {
		number int64
		peer   broker.PeerID
	}
	var want next
	key, m := w.key(), w.message(0)
	for i, db := range dbs {
		s := openStore(w, db)
		peer, err := s.PutPeer(w.ctx, broker.Peer{Mesh: w.meshes[0], Key: key, Member: w.members[0].Key, LastSeen: t0})
		w.ok(err)
		got := make(chan broker.Accepted, 1)
		s.Accept(m, func(a broker.Accepted, err error) {
			if err != nil {
				w.Error(err)
			}
			got <- a
		})
		n := next{(<-got).First, peer}
		if i == 0 {
			want = n
		}
		if n != want {
			w.Errorf("%s goes on with %+v, want %+v", db, n, want)
		}
		w.ok(s.Close())
	}
}

func fileSum(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	return string(sum[:])
}

// The source file is the same, byte for byte.
func TestSourceUnchanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mesh.db")
	filledDB(t, path, 200)
	before := fileSum(t, path)
	run(t, path, pgtest.Shared(t).Blank(t), move.Options{})
	if fileSum(t, path) != before {
		t.Error("the source was written to")
	}
}

// What a killed broker left in the WAL is moved too.
func TestSourceOfAKilledBroker(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mesh.db")
	s := openStore(t, path)
	w := fill(t, s, 200)
	told := w.view(s)
	copied := filepath.Join(t.TempDir(), "copied.db")
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(path + suffix)
		w.ok(err)
		w.ok(os.WriteFile(copied+suffix, b, 0o600))
	}
	w.ok(s.Close())
	to := pgtest.Shared(t).Blank(t)
	run(t, copied, to, move.Options{})
	w.same(w.tells(to), told)
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	file, url := filepath.Join(dir, "mesh.db"), pgtest.Shared(t).Blank(t)
	filledDB(t, file, 50)
	fails := func(from, to string, want error) {
		t.Helper()
		if _, err := move.Run(bg, from, to, move.Options{}); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", to, err, want)
		}
	}
	s := openStore(t, file)
	fails(file, url, move.ErrInUse)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	fails(file+"x", url, fs.ErrNotExist)
	fails(url, filepath.Join(dir, "new.db"), postgres.ErrNoSchema)
	run(t, file, url, move.Options{})
	run(t, file, url, move.Options{}) // it is there
	fails(url, file, fs.ErrExist)
	node, err := postgres.Open(bg, url, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := node.Enlist(bg, "node", 60e9); err != nil {
		t.Fatal(err)
	}
	fails(url, filepath.Join(dir, "new.db"), move.ErrInUse)
	fails(file, url, move.ErrInUse)
	if err := errors.Join(node.Resign(bg), node.Close()); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "other.db")
	filledDB(t, other, 60)
	fails(other, url, move.ErrNotEmpty)
	run(t, url, filepath.Join(dir, "new.db"), move.Options{})
}

// A broker starts on no target whose move has not ended, and the move goes on.
func TestUnfinished(t *testing.T) {
	dir := t.TempDir()
	file, url, back := filepath.Join(dir, "mesh.db"), pgtest.Shared(t).Blank(t), filepath.Join(dir, "back.db")
	w, told := filledDB(t, file, 300)
	for _, way := range []struct {
		from, to string
		want     error
	}{{file, url, postgres.ErrMoving}, {url, back, sqlite.ErrMoving}} {
		ctx, stop := context.WithCancel(bg)
		_, err := move.Run(ctx, way.from, way.to, move.Options{Progress: func(p move.Progress) {
			if p.Done >= p.Total/2 {
				stop()
			}
		}}.InBatches(20))
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if _, err := tryStore(way.to); !errors.Is(err, way.want) {
			t.Errorf("a broker starts on %s: %v", way.to, err)
		}
		if way.to == url {
			if _, err := move.Run(bg, url, back, move.Options{}); !errors.Is(err, postgres.ErrMoving) {
				t.Errorf("it is a source: %v", err)
			}
		}
		other := filepath.Join(t.TempDir(), "other.db")
		filledDB(t, other, 60)
		if _, err := move.Run(bg, other, way.to, move.Options{}); !errors.Is(err, move.ErrNotEmpty) {
			t.Errorf("another source: %v", err)
		}
		r := run(t, way.from, way.to, move.Options{})
		if r.Found == 0 || r.Moved == 0 {
			t.Errorf("%d rows found, %d moved", r.Found, r.Moved)
		}
		w.same(w.tells(way.to), told)
	}
}

// A move that was cut off when all but the file's name was done ends.
func TestUnnamed(t *testing.T) {
	dir := t.TempDir()
	file, to := filepath.Join(dir, "mesh.db"), filepath.Join(dir, "to.db")
	w, told := filledDB(t, file, 50)
	run(t, file, to, move.Options{})
	w.ok(os.Rename(to, to+sqlite.MovingSuffix))
	if _, err := tryStore(to); !errors.Is(err, sqlite.ErrMoving) {
		t.Errorf("a broker starts: %v", err)
	}
	if r := run(t, file, to, move.Options{}); r.Moved != 2 {
		t.Errorf("moved %d rows", r.Moved)
	}
	w.same(w.tells(to), told)
}

// Verification finds each change of the target, names it, and leaves the move unfinished.
func TestVerifyFinds(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "mesh.db")
	filledDB(t, file, 100)
	for statement, want := range map[string]string{
		"UPDATE message SET hash = decode(repeat('ab', 32), 'hex') WHERE seq = (SELECT max(seq) FROM message)": "table message",
		"DELETE FROM outcome WHERE id = (SELECT max(id) FROM outcome)":                                         "table delivery",
		"UPDATE body SET ciphertext = 'x'":                                                                     "table ",
		"UPDATE delivery SET expires = 1":                                                                      "table delivery",
		"UPDATE invite SET voided = true":                                                                      "table invite",
		"DELETE FROM key_box":                                                                                  "table key_box",
		"UPDATE peer SET card_blob = '' WHERE card_blob IS NULL AND forgotten = 0":                             "table peer",
		"SELECT setval('peer_id_seq', 100)":                                                                    "table number",
	} {
		url := pgtest.Shared(t).Blank(t)
		tampered := false
		_, err := move.Run(bg, file, url, move.Options{Progress: func(p move.Progress) {
			if p.Phase == "verifying" && !tampered {
				tampered = true
				edit(t, url, statement)
			}
		}})
		if !errors.Is(err, move.ErrDiffers) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", statement, err)
		}
		if _, err := tryStore(url); !errors.Is(err, postgres.ErrMoving) {
			t.Errorf("%s: a broker starts: %v", statement, err)
		}
	}
}

func edit(t *testing.T, url, statement string) {
	t.Helper()
	c, err := pgx.Connect(bg, url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(bg)
	if _, err := c.Exec(bg, statement); err != nil {
		t.Fatal(err)
	}
}
