package mailbox_test

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/wire"
)

func TestPutDrawsNumbers(t *testing.T) {
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		draw := func(n int, fail error, lanes ...mailbox.Lane) (seqs []uint64, err error) {
			_, err = b.Put(ctx, lanes, func(s []uint64) (mailbox.Outgoing, error) { seqs = s; return out(n, bob), fail })
			return seqs, err
		}
		low := lane(bob)
		low.Priority = wire.PriorityLow
		s, err := draw(1, nil, lane(bob), lane(carol), low)
		check(t, err)
		equal(t, say(s), "[1 1 1]")
		boom := errors.New("boom")
		s, err = draw(2, boom, lane(bob), low)
		equal(t, say(s, errors.Is(err, boom)), "[2 2] true")
		s, err = draw(1, nil, lane(bob)) // the id is there
		equal(t, say(s, err != nil), "[2] true")
		func() {
			defer func() { _ = recover() }()
			_, _ = b.Put(ctx, []mailbox.Lane{lane(bob)}, func([]uint64) (mailbox.Outgoing, error) { panic("seal") })
		}()
		s, err = draw(3, nil, lane(bob), lane(bob))
		check(t, err)
		equal(t, say(s), "[2 3]")
	})
}

func TestOutgoingComesBackWhole(t *testing.T) {
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		o := out(1, bob, carol)
		o.ReplyTo, o.Replaces, o.ToPerson, o.Text = id(7), id(8), true, "nul \x00 ü"
		o.Recipients[1].Wrap = []byte{9}
		o.Number = put(t, b, o)
		got, err := b.Outgoing(ctx, o.ID)
		check(t, err)
		if !reflect.DeepEqual(got, o) {
			t.Fatalf("got\n%+v, want\n%+v", got, o)
		}
		_, err = b.Outgoing(ctx, id(99))
		equal(t, errors.Is(err, mailbox.ErrNotFound), true)
		if put(t, b, out(2, bob)) <= o.Number {
			t.Fatal("numbers do not grow")
		}
	})
}

func TestPending(t *testing.T) {
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		var numbers []int64
		for n := 1; n <= 5; n++ {
			o := out(n, bob, carol)
			if n == 3 {
				o.Sender = carol
			}
			if n == 4 {
				o.Expires = 1 // expired ones are included
			}
			numbers = append(numbers, put(t, b, o))
		}
		other := out(6, bob)
		other.Mesh = mesh2
		put(t, b, other)
		advance(t, b, 5, bob, mailbox.Accepted, true)
		advance(t, b, 2, bob, mailbox.Accepted, true)
		advance(t, b, 2, carol, mailbox.Bounced, true)
		for _, c := range []struct {
			sender          wire.Key
			after, notAfter int64
			limit           int
			want            string
		}{
			{wire.Key{}, 0, 0, 0, "[1 3 4 5]"},
			{alice, 0, 0, 0, "[1 4 5]"},
			{carol, 0, 0, 0, "[3]"},
			{wire.Key{}, numbers[0], 0, 2, "[3 4]"},
			{wire.Key{}, 0, 1003, 0, "[1 3]"},
			{wire.Key{}, numbers[4], 0, 0, "[]"},
		} {
			got, err := b.Pending(ctx, mesh, c.sender, c.after, c.notAfter, c.limit)
			check(t, err)
			equal(t, outIDs(got), c.want)
		}
		got, _ := b.Pending(ctx, mesh, alice, numbers[3], 0, 1)
		equal(t, say(got[0].Recipients[0].State, got[0].Recipients[1].State), "accepted stored")
	})
}

func advance(t testing.TB, b mailbox.Mailbox, n int, to wire.Key, s mailbox.State, want bool) {
	t.Helper()
	got, err := b.Advance(ctx, mesh, id(n), to, s, wire.CodeExpired, s == mailbox.Accepted, 7)
	check(t, err)
	equal(t, got, want)
}

func TestAdvanceDetails(t *testing.T) {
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		put(t, b, out(1, bob, carol))
		advance(t, b, 1, bob, mailbox.Accepted, true)
		advance(t, b, 1, alice, mailbox.Accepted, false) // no recipient
		advance(t, b, 2, bob, mailbox.Accepted, false)   // no message
		changed, err := b.Advance(ctx, mesh2, id(1), bob, mailbox.Read, "", false, 8)
		equal(t, say(changed, err), "false <nil>")
		_, err = b.Advance(ctx, mesh, id(1), bob, "lost", "", false, 8)
		equal(t, err != nil, true)
		advance(t, b, 1, bob, mailbox.Delivered, true)
		advance(t, b, 1, carol, mailbox.Bounced, true)
		o, err := b.Outgoing(ctx, id(1))
		check(t, err)
		r, c := o.Recipients[0], o.Recipients[1]
		equal(t, say(r.State, r.Code, r.Online, r.At), "delivered  true 7")
		equal(t, say(c.State, c.Code, c.Online, c.At), "bounced expired false 7")
	})
}

// The states of one recipient against a model of the contract.
func TestAdvanceIsMonotone(t *testing.T) {
	order := []mailbox.State{mailbox.Stored, mailbox.Accepted, mailbox.Delivered, mailbox.Read}
	rank := func(s mailbox.State) int {
		for i, o := range order {
			if o == s {
				return i
			}
		}
		return -1
	}
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		n := 0
		rapid.Check(t, func(rt *rapid.T) {
			n++
			put(t, b, out(n, bob))
			now := mailbox.Stored
			steps := rapid.SliceOfN(rapid.SampledFrom(append(order, mailbox.Bounced)), 1, 6).Draw(rt, "steps")
			for _, to := range steps {
				want := now != mailbox.Bounced && rank(to) > rank(now)
				if to == mailbox.Bounced {
					want = now == mailbox.Stored || now == mailbox.Accepted
				}
				got, err := b.Advance(ctx, mesh, id(n), bob, to, "", false, 1)
				if err != nil || got != want {
					rt.Fatalf("%s to %s: %v %v, want %v", now, to, got, err, want)
				}
				if want {
					now = to
				}
				o, err := b.Outgoing(ctx, id(n))
				if err != nil || o.Recipients[0].State != now {
					rt.Fatalf("state %v %v, want %s", o.Recipients[0].State, err, now)
				}
				pending, _ := b.Pending(ctx, mesh, alice, o.Number-1, 0, 1)
				ids, _ := b.Unsettled(ctx, mesh, 0, 1000)
				asked := len(ids) > 0 && ids[len(ids)-1] == o.ID
				if (len(pending) == 1) != (now == mailbox.Stored) || asked != (now == mailbox.Accepted) {
					rt.Fatalf("in state %s: pending %d, unsettled %v", now, len(pending), asked)
				}
			}
			if now == mailbox.Accepted { // make room for the next
				advance(t, b, n, bob, mailbox.Bounced, true)
			}
		})
	})
}

func TestUnsettled(t *testing.T) {
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		for n := 1; n <= 4; n++ {
			o := out(n, bob)
			o.Expires = int64(100 * n)
			put(t, b, o)
			if n != 3 {
				advance(t, b, n, bob, mailbox.Accepted, true)
			}
		}
		for _, c := range []struct {
			now   int64
			limit int
			want  []wire.ID
		}{{0, 0, []wire.ID{id(1), id(2), id(4)}}, {0, 1, []wire.ID{id(1)}}, {100, 9, []wire.ID{id(2), id(4)}}} {
			got, err := b.Unsettled(ctx, mesh, c.now, c.limit)
			check(t, err)
			equal(t, say(got), say(c.want))
		}
		got, err := b.Unsettled(ctx, mesh2, 0, 9)
		equal(t, say(got, err), "[] <nil>")
	})
}

func TestDrop(t *testing.T) {
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		o := out(1, bob, carol, alice)
		for i := range o.Recipients {
			o.Recipients[i].Wrap = []byte{1}
		}
		o.Recipients[1].Member = bob
		put(t, b, o)
		o.ID, o.Mesh = id(2), mesh2
		put(t, b, o)
		put(t, b, out(3, bob))
		advance(t, b, 3, bob, mailbox.Accepted, true)
		check(t, b.Drop(ctx, mesh, bob, wire.CodeRemoved, 44))
		for n, want := range map[int]string{
			1: "[bounced removed 44 0] [bounced removed 44 0] [stored  1001 1]",
			2: "[stored  1001 1] [stored  1001 1] [stored  1001 1]",
			3: "[accepted  7 0]",
		} {
			got, err := b.Outgoing(ctx, id(n))
			check(t, err)
			s := ""
			for _, r := range got.Recipients {
				s += fmt.Sprintf(" [%s %s %d %d]", r.State, r.Code, r.At, len(r.Wrap))
			}
			equal(t, s[1:], want)
		}
	})
}

func TestPruneOutgoing(t *testing.T) {
	forEach(t, func(t *testing.T, b mailbox.Mailbox) {
		for n := 1; n <= 4; n++ {
			o := out(n, bob)
			if n == 4 {
				o.Expires = 2000
			}
			put(t, b, o)
		}
		advance(t, b, 2, bob, mailbox.Bounced, true)
		advance(t, b, 3, bob, mailbox.Accepted, true)
		advance(t, b, 4, bob, mailbox.Accepted, true)
		for _, c := range []struct {
			now  int64
			gone string
		}{{1000, "[]"}, {1500 + 1000, "[2]"}, {3001, "[2 4]"}} {
			check(t, b.Prune(ctx, time.Second, c.now, 0))
			var gone []int
			for n := 1; n <= 4; n++ {
				if _, err := b.Outgoing(ctx, id(n)); errors.Is(err, mailbox.ErrNotFound) {
					gone = append(gone, n)
				}
			}
			equal(t, say(gone), c.gone)
		}
		if n := put(t, b, out(5, bob)); n != 5 {
			t.Fatalf("number %d was used again", n)
		}
	})
}
