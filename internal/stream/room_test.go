package stream

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/process"
	"github.com/claudemesh/claudemesh/internal/wire"
)

func key(n int) (k wire.Key) { binary.BigEndian.PutUint64(k[:], uint64(n)); k[31] = 1; return k }
func id(n int) (i wire.ID)   { binary.BigEndian.PutUint64(i[:], uint64(n)); i[15] = 1; return i }

// failer is a test, or one run of a property.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

func check(t failer, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
}

// room is a stream with a clock and a mailbox of its own; the test is its mod.
type room struct {
	failer
	box   mailbox.Mailbox
	s     *Stream
	clock time.Time
	out   []Instruction
	busy  bool
	steps int64
	sent  int
}

func openBox(t testing.TB) mailbox.Mailbox {
	dir := filepath.Join(t.TempDir(), "p")
	check(t, os.Mkdir(dir, 0o700))
	box, err := mailbox.Open(context.Background(), filepath.Join(dir, "m.db"))
	check(t, err)
	t.Cleanup(func() { check(t, box.Close()) })
	return box
}

var ctx = context.Background()

// newRoom has an agent of this process, seated in a mesh.
func newRoom(t testing.TB, mode mailbox.Mode) *room {
	r := emptyRoom(t, openBox(t))
	check(t, r.box.PutAgent(ctx, agentOf(mode)))
	r.hello()
	return r
}

func emptyRoom(t failer, box mailbox.Mailbox) *room {
	r := &room{failer: t, box: box, clock: time.UnixMilli(1_700_000_000_000)}
	r.trust(mailbox.Trusted)
	r.restart()
	return r
}

// trust sets the level of the member who writes.
func (r *room) trust(l mailbox.Level) {
	_, err := r.box.ChangeTrust(ctx, id(1), key(3), 1, func(t *mailbox.Trust) error { t.Level, t.Grants = l, nil; return nil })
	check(r, err)
}

// restart is a new process after the old one was killed.
func (r *room) restart() {
	r.s = NewStream(r.box, process.Self().PID, slog.New(slog.DiscardHandler), func(i Instruction) { r.out = append(r.out, i) })
	r.s.now = func() time.Time { return r.clock }
}

func (r *room) hello(batches ...Outcome) Answer {
	return r.event(Event{Name: "hello", Session: "s1", Batches: batches})
}

// event tells the stream, with how the agent stands.
func (r *room) event(e Event) Answer {
	r.Helper()
	e.Busy, e.Steps = r.busy, r.steps
	return r.deliver(e)
}

func (r *room) deliver(e Event) Answer {
	r.Helper()
	a, err := r.s.Handle(ctx, e)
	check(r, err)
	return a
}

func (r *room) begin() { r.busy = true; r.event(Event{Name: "turn.start"}) }
func (r *room) step()  { r.steps++; r.event(Event{Name: "step"}) }

func (r *room) complete(aborted bool) {
	r.Helper()
	r.busy = false
	r.event(Event{Name: "turn.complete", Aborted: aborted})
}

// tool ends a tool call and returns the text and batch that go in with its result.
func (r *room) tool(texts ...int) Instruction {
	r.Helper()
	a := r.event(Event{Name: "tool"})
	r.holds(a.Append, texts...)
	return Instruction{Batch: a.Batch, Holds: a.Holds}
}

// over tells how a batch fared.
func (r *room) over(i Instruction, how via, failed string) {
	r.Helper()
	r.event(Event{Name: "outcome", Batches: []Outcome{{Batch: i.Batch, Via: how, Holds: i.Holds, Over: true, Failed: failed, Steps: r.steps}}})
}

// receive puts messages into the mailbox, each with a text of its own, and hints.
func (r *room) receive(priorities ...wire.Priority) {
	r.Helper()
	r.receiveHop(0, priorities...)
}

// receiveHop is receive of what an agent wrote by itself, for a hop above 0.
func (r *room) receiveHop(hop uint64, priorities ...wire.Priority) {
	r.Helper()
	for _, p := range priorities {
		r.sent++
		_, _, err := r.box.Receive(ctx, []mailbox.Incoming{{
			Mesh: id(1), Recipient: key(1), SenderMember: key(3), SenderSession: key(4), SenderName: "bob/api", ID: id(100 + r.sent),
			Mode: wire.ModeDM, Target: "alice/web", Priority: p, ContentType: "text/plain", Text: text(r.sent), Sent: 5, Expires: 1 << 50,
			Received: r.clock.UnixMilli(), Seq: uint64(r.sent), Hop: hop,
		}})
		check(r, err)
	}
	check(r, r.s.Look(ctx))
}

func text(n int) string { return fmt.Sprintf("(text %d)", n) }

// pass lets time go by; the stream looks when it asked to.
func (r *room) pass(d time.Duration) {
	r.Helper()
	for end := r.clock.Add(d); ; {
		next := r.s.Next()
		if next.After(end) {
			r.clock = end
			return
		}
		if next.After(r.clock) {
			r.clock = next
		}
		check(r, r.s.Look(ctx))
	}
}

// did returns the instructions since the last call, those of what alone, as "do: text numbers".
func (r *room) did(what ...string) (done []Instruction) {
	for _, i := range r.out {
		if strings.Contains(strings.Join(what, " "), i.Do) {
			done = append(done, i)
		}
	}
	r.out = nil
	return done
}

// one is the only turn that was begun since the last call, with these texts alone.
func (r *room) one(texts ...int) Instruction {
	r.Helper()
	got := r.did("submit")
	if len(got) != 1 {
		r.Fatalf("want one turn: %+v", got)
	}
	r.holds(got[0].Text, texts...)
	return got[0]
}

func (r *room) none() {
	r.Helper()
	if got := r.did("submit"); len(got) > 0 {
		r.Fatalf("nothing should be begun: %+v", got)
	}
}

// holds checks which messages stand in a text, each once.
func (r *room) holds(s string, texts ...int) {
	r.Helper()
	want := map[int]bool{}
	for _, n := range texts {
		want[n] = true
	}
	for n := 1; n <= r.sent; n++ {
		if c := strings.Count(s, text(n)); (c == 1) != want[n] || c > 1 {
			r.Fatalf("message %d is there %d times, want %v:\n%s", n, c, want[n], s)
		}
	}
}

// unread checks how many messages are unread, and how many of them nobody holds.
func (r *room) unread(all, free int) {
	r.Helper()
	count := func(q mailbox.Query) int {
		q.Recipients = []wire.Key{key(1)}
		msgs, more, err := r.box.List(ctx, q)
		check(r, err)
		return len(msgs) + more
	}
	a, f := count(mailbox.Query{}), count(mailbox.Query{Now: r.clock.UnixMilli(), Holder: "nobody"})
	if a != all || f != free {
		r.Fatalf("%d unread, %d of them free, want %d and %d", a, f, all, free)
	}
}

func (r *room) agent() mailbox.Agent {
	r.Helper()
	a, err := r.box.Agent(ctx, process.Self().PID)
	check(r, err)
	return a
}
