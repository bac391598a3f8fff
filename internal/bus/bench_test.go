package bus_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// BenchmarkLatency is from Send to got, one payload at a time. For Postgres it
// counts how often the server waited for its disk besides.
func BenchmarkLatency(b *testing.B) {
	overEach(b, func(b *testing.B, m medium) {
		from, to := m.open(b), m.open(b)
		came := make(chan struct{}, 1)
		ctx, cancel := context.WithCancel(b.Context())
		b.Cleanup(cancel)
		ready := make(chan struct{}, 10)
		to.Listen(ctx, "n", func([]byte) { came <- struct{}{} }, func() { ready <- struct{}{} })
		<-ready
		payload := make([]byte, 200)
		for i := range payload {
			payload[i] = 'x'
		}
		var took []time.Duration
		before := syncs(b, m)
		for b.Loop() {
			began := time.Now()
			must(b, from.Send(ctx, "n", payload))
			<-came
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
		b.ReportMetric(float64(syncs(b, m)-before)/float64(b.N), "syncs/op")
	})
}

// BenchmarkSend is how many payloads one node gets rid of, from 8 goroutines.
func BenchmarkSend(b *testing.B) {
	overEach(b, func(b *testing.B, m medium) {
		from := m.open(b)
		send(b, from, "n", "x")
		b.SetParallelism(8)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				send(b, from, "n", "a hint of about the length that hints have")
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sends/s")
	})
}

func overEach(b *testing.B, run func(b *testing.B, m medium)) {
	b.Run("postgres", func(b *testing.B) { run(b, viaPostgres(b)) })
	b.Run("nats", func(b *testing.B) { run(b, viaNATS(b)) })
}

// syncs returns how often a Postgres server has flushed its log.
func syncs(b *testing.B, m medium) (n int64) {
	if m.db == "" {
		return 0
	}
	time.Sleep(1500 * time.Millisecond) // backends report once a second
	c, err := pgx.Connect(b.Context(), m.db)
	must(b, err)
	defer c.Close(b.Context())
	must(b, c.QueryRow(b.Context(), "SELECT wal_sync FROM pg_stat_wal").Scan(&n))
	return n
}
