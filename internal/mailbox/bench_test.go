package mailbox_test

import (
	"path/filepath"
	"testing"

	"github.com/claudemesh/claudemesh/internal/mailbox"
)

func eachBench(b *testing.B, f func(b *testing.B, box mailbox.Mailbox)) {
	b.Run("disk", func(b *testing.B) { b.ReportAllocs(); f(b, open(b, filepath.Join(private(b), "m.db"))) })
	b.Run("memory", func(b *testing.B) { b.ReportAllocs(); f(b, mailbox.NewMemory()) })
}

func BenchmarkPut(b *testing.B) {
	eachBench(b, func(b *testing.B, box mailbox.Mailbox) {
		lanes := []mailbox.Lane{lane(bob)}
		for n := 0; b.Loop(); n++ {
			_, err := box.Put(ctx, lanes, func([]uint64) (mailbox.Outgoing, error) { return out(n, bob), nil })
			check(b, err)
		}
	})
}

func benchReceive(b *testing.B, batch int) {
	eachBench(b, func(b *testing.B, box mailbox.Mailbox) {
		msgs := make([]mailbox.Incoming, batch)
		for n := 0; b.Loop(); {
			for i := range msgs {
				n++
				msgs[i] = in(n)
				msgs[i].Seq = uint64(n)
			}
			receive(b, box, msgs...)
		}
	})
}

func BenchmarkReceive1(b *testing.B)  { benchReceive(b, 1) }
func BenchmarkReceive32(b *testing.B) { benchReceive(b, 32) }
