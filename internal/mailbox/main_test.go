package mailbox_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/wire"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("MAILBOX_TEST_CHILD"); path != "" {
		if err := child(path, os.Getenv("MAILBOX_TEST_NUMBER")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// private returns a directory that Open accepts.
func private(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "p")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func open(t testing.TB, path string) mailbox.Mailbox {
	t.Helper()
	b, err := mailbox.Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b
}

// forEach runs a test on both implementations.
func forEach(t *testing.T, f func(t *testing.T, b mailbox.Mailbox)) {
	t.Run("disk", func(t *testing.T) { t.Parallel(); f(t, open(t, filepath.Join(private(t), "m.db"))) })
	t.Run("memory", func(t *testing.T) { t.Parallel(); f(t, mailbox.NewMemory()) })
}

func key(n int) (k wire.Key) { binary.BigEndian.PutUint64(k[:], uint64(n)); k[31] = 1; return k }
func id(n int) (i wire.ID)   { binary.BigEndian.PutUint64(i[:], uint64(n)); i[15] = 1; return i }

var (
	ctx   = context.Background()
	mesh  = id(1 << 40)
	mesh2 = id(1 << 41)
	alice = key(1) // a session
	bob   = key(2)
	carol = key(3)
	owner = key(9) // alice's member key
)

// out is a message of alice to the recipients.
func out(n int, to ...wire.Key) mailbox.Outgoing {
	o := mailbox.Outgoing{Mesh: mesh, Sender: alice, ID: id(n), Mode: wire.ModeDM, Target: "bob", Priority: wire.PriorityNext,
		Sent: int64(1000 + n), Expires: 1 << 40, Text: "hi", Nonce: []byte{1}, Ciphertext: []byte{2, 3}}
	for _, k := range to {
		o.Recipients = append(o.Recipients, mailbox.OutRecipient{Key: k, Member: k, Name: "bob", State: mailbox.Stored, At: o.Sent})
	}
	return o
}

func lane(to wire.Key) mailbox.Lane {
	return mailbox.Lane{Mesh: mesh, Sender: alice, Recipient: to, Priority: wire.PriorityNext}
}

func put(t testing.TB, b mailbox.Mailbox, o mailbox.Outgoing) int64 {
	t.Helper()
	n, err := b.Put(ctx, nil, func([]uint64) (mailbox.Outgoing, error) { return o, nil })
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// in is a message of alice to bob.
func in(n int) mailbox.Incoming {
	return mailbox.Incoming{Mesh: mesh, Recipient: bob, SenderMember: owner, SenderSession: alice, SenderName: "alice/x", ID: id(n),
		Mode: wire.ModeDM, Target: "bob", Priority: wire.PriorityNext, ContentType: "text/plain", Text: say("text ", n),
		Sent: 5, Expires: 1 << 40, Received: int64(1000 + n)}
}

func receive(t testing.TB, b mailbox.Mailbox, msgs ...mailbox.Incoming) []bool {
	t.Helper()
	fresh, errs, err := b.Receive(ctx, msgs)
	check(t, err)
	for _, err := range errs {
		check(t, err)
	}
	return fresh
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T comparable](t testing.TB, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("got %v, want %v", got, want)
	}
}

// numbers of messages, as the ids were made by id.
func idsOf(msgs []mailbox.Incoming) string {
	var ids []uint64
	for _, m := range msgs {
		ids = append(ids, binary.BigEndian.Uint64(m.ID[:]))
	}
	return say(ids)
}

func outIDs(msgs []mailbox.Outgoing) string {
	var ids []uint64
	for _, m := range msgs {
		ids = append(ids, binary.BigEndian.Uint64(m.ID[:]))
	}
	return say(ids)
}

// say joins values by spaces.
func say(v ...any) string { return strings.TrimSuffix(fmt.Sprintln(v...), "\n") }
