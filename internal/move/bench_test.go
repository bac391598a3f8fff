package move_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/internal/bench"
	"github.com/claudemesh/claudemesh/internal/move"
	"github.com/claudemesh/claudemesh/internal/pgtest"
)

// BenchmarkMove moves queued directs with a body of 400 bytes, there and back,
// each with its verification. A message is two rows.
func BenchmarkMove(b *testing.B) {
	for _, n := range []int{100_000, 500_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			file := filepath.Join(b.TempDir(), "mesh.db")
			filledDB(b, file, 1000)
			s := openStore(b, file)
			if err := bench.Park(bg, s, n, 400, io.Discard); err != nil {
				b.Fatal(err)
			}
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			for i := range b.N {
				url, back := pgtest.Shared(b).Blank(b), filepath.Join(b.TempDir(), fmt.Sprintf("back%d.db", i))
				measure(b, "there", file, url)
				measure(b, "back", url, back)
				if info, err := os.Stat(back); err == nil {
					b.ReportMetric(float64(info.Size()), "bytes-back")
				}
			}
		})
	}
}

func measure(b *testing.B, way, from, to string) {
	b.Helper()
	began, verifying := time.Now(), time.Time{}
	r := run(b, from, to, move.Options{Progress: func(p move.Progress) {
		if verifying.IsZero() && p.Phase == "verifying" {
			verifying = time.Now()
		}
	}})
	all := time.Since(began).Seconds()
	b.ReportMetric(all, way+"-s")
	b.ReportMetric(time.Since(verifying).Seconds(), way+"-verify-s")
	b.ReportMetric(float64(r.Moved)/all, way+"-rows/s")
	b.ReportMetric(float64(r.Bytes), way+"-source-bytes")
}
