package move_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/internal/move"
	"github.com/claudemesh/claudemesh/internal/pgtest"
)

// moveMain is the process that is killed: it moves, with a line per batch.
func moveMain() int {
	o := move.Options{Progress: func(move.Progress) { fmt.Println() }}.InBatches(100)
	if _, err := move.Run(bg, os.Getenv("MOVE_FROM"), os.Getenv("MOVE_TO"), o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// moving moves in a process, which is killed a moment after it has told of so
// many batches; with 0 it may end. It returns how many it told of.
func moving(t *testing.T, from, to string, killAfter int) (batches int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "MOVE_FROM="+from, "MOVE_TO="+to)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if batches++; batches == killAfter {
			time.Sleep(time.Duration(rand.IntN(5000)) * time.Microsecond)
			_ = cmd.Process.Kill() // it may have ended
		}
	}
	if err := cmd.Wait(); err != nil && killAfter == 0 {
		t.Fatal(err)
	}
	return batches
}

// A move that is killed again and again, at any point, comes to the same end.
func TestKilled(t *testing.T) {
	rounds := 5
	if os.Getenv("SOAK") != "" {
		rounds = 30
	}
	dir := t.TempDir()
	file, url := filepath.Join(dir, "mesh.db"), pgtest.Shared(t).Blank(t)
	w, told := filledDB(t, file, 4000)
	all := moving(t, file, url, 0)
	whole := run(t, file, url, move.Options{}) // reads alone: all is there
	for i := range rounds {
		there, back := pgtest.Shared(t).Blank(t), filepath.Join(dir, fmt.Sprintf("back%d.db", i))
		for _, way := range [][2]string{{file, there}, {url, back}} {
			at, ended := killed(t, way[0], way[1], all)
			var r move.Report
			if !ended {
				r = run(t, way[0], way[1], move.Options{})
			}
			t.Logf("killed after %d of %d batches: %d rows were there, %d were left", at, all, r.Found, r.Moved)
			if ended || i == 0 {
				w.same(w.tells(way[1]), told)
			} else if !slices.Equal(r.Tables, whole.Tables) {
				t.Errorf("moved %+v\nwant %+v", r.Tables, whole.Tables)
			}
			check(t, way[1])
		}
	}
}

// killed kills a move of so many batches three times: anywhere, at last also in
// its last steps, when it may have ended. It returns the batches of each.
func killed(t *testing.T, from, to string, all int) (at []int, ended bool) {
	t.Helper()
	for left := all; len(at) < 3; {
		within := left / 2
		if len(at) == 2 {
			within = left
		}
		n := moving(t, from, to, 1+rand.IntN(within))
		at, left = append(at, n), left-n
		s, err := tryStore(to)
		if err != nil {
			continue
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if left > 0 {
			t.Fatalf("killed at %d of %d: a broker starts on the target", at, all)
		}
		return at, true
	}
	return at, false
}
