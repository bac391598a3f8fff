package mailbox_test

import (
	"path/filepath"
	"testing"

	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/wire"
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

// What a client and its agent do for one message that comes: stored, looked
// at, taken, and its receipt written down.
func BenchmarkInbox(b *testing.B) {
	eachBench(b, func(b *testing.B, box mailbox.Mailbox) {
		to := []wire.Key{bob}
		for n := 1; b.Loop(); n++ {
			m := in(n)
			m.Seq = uint64(n)
			receive(b, box, m)
			msgs, _, err := box.List(ctx, mailbox.Query{Recipients: to, Unoffered: true})
			check(b, err)
			_, err = box.MarkOffered(ctx, msgs[0].Number, int64(n))
			check(b, err)
			_, _, err = box.Take(ctx, mailbox.Query{Recipients: to}, bob, int64(n))
			check(b, err)
			owed, err := box.Unreceipted(ctx, mesh, bob, 10)
			check(b, err)
			equal(b, len(owed), 1)
			check(b, box.Receipted(ctx, []int64{owed[0].Number}))
		}
	})
}

// What a client does for one message that it sends.
func BenchmarkOutbox(b *testing.B) {
	eachBench(b, func(b *testing.B, box mailbox.Mailbox) {
		lanes, last := []mailbox.Lane{lane(bob)}, int64(0)
		for n := 0; b.Loop(); n++ {
			_, err := box.Put(ctx, lanes, func([]uint64) (mailbox.Outgoing, error) { return out(n, bob), nil })
			check(b, err)
			wait, err := box.Pending(ctx, mesh, alice, last, 0, 64)
			check(b, err)
			last = wait[len(wait)-1].Number
			for _, s := range []mailbox.State{mailbox.Accepted, mailbox.Delivered, mailbox.Read} {
				_, err := box.Advance(ctx, mesh, id(n), bob, s, "", true, int64(n))
				check(b, err)
			}
		}
	})
}

// What is looked at when nothing has changed.
func BenchmarkLook(b *testing.B) {
	eachBench(b, func(b *testing.B, box mailbox.Mailbox) {
		to := []wire.Key{bob}
		for b.Loop() {
			_, _, err := box.List(ctx, mailbox.Query{Recipients: to})
			check(b, err)
			_, err = box.Pending(ctx, mesh, alice, 0, 0, 64)
			check(b, err)
		}
	})
}
