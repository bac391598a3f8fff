package postgres_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/pgtest"
	"github.com/claudemesh/claudemesh/internal/postgres"
	"github.com/claudemesh/claudemesh/internal/wire"
)

type result struct {
	broker.Accepted
	err error
}

// acceptAll gives messages together and returns their outcomes.
func acceptAll(t *testing.T, s broker.Store, messages ...*broker.Message) (out []result) {
	t.Helper()
	got := make(chan result, len(messages))
	for _, m := range messages {
		s.Accept(m, func(a broker.Accepted, err error) { got <- result{a, err} })
	}
	for range messages {
		select {
		case r := <-got:
			out = append(out, r)
		case <-time.After(60 * time.Second):
			t.Fatal("done was not called")
		}
	}
	return out
}

// A message that was checked before members were cast out is refused alone; a
// repeat of a stored one is a repeat whatever the version.
func TestStaleMembers(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	s := open(t, url)
	o := settleIn(t, s)
	repeat := o.message()
	first := acceptAll(t, s, repeat)[0]
	c, err := pgx.Connect(bg, url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(bg)
	if _, err := c.Exec(bg, "UPDATE mesh SET members_version = 6, outcast_version = 5"); err != nil {
		t.Fatal(err)
	}
	stale, current, unchecked := o.message(), o.message(), o.message()
	stale.MembersVersion, current.MembersVersion, unchecked.MembersVersion = 4, 5, 0
	got := acceptAll(t, s, current, stale, repeat, unchecked)
	if got[0].err != nil || !errors.Is(got[1].err, broker.ErrStaleMembers) || got[3].err != nil {
		t.Errorf("current, stale and unchecked are accepted as %+v", got)
	}
	if r := got[2]; r.err != nil || !r.Duplicate || len(r.Outcomes) != 1 || r.Outcomes[0].Delivery != first.First {
		t.Errorf("a repeat is accepted as %+v", r)
	}
	if _, _, err := s.Lookup(bg, o.from, stale.ID); !errors.Is(err, broker.ErrNotFound) {
		t.Errorf("the stale message is stored: %v", err)
	}
}

// A message that the server refuses fails alone.
func TestRefusedAlone(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	s := open(t, url)
	o := settleIn(t, s)
	c, err := pgx.Connect(bg, url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(bg)
	if _, err := c.Exec(bg, "ALTER TABLE message ADD CHECK (expires <> 42)"); err != nil {
		t.Fatal(err)
	}
	var messages []*broker.Message
	for range 20 {
		messages = append(messages, o.message())
	}
	messages[7].Expires = time.UnixMilli(42)
	for i, r := range acceptAll(t, s, messages...) {
		if (r.err == nil) != (i != 7) {
			t.Errorf("message %d: %v", i, r.err)
		}
	}
}

// Close waits for a server that is away as long as it is patient, and then says
// of what was not committed that it was not.
func TestCloseWithoutServer(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t, pgtest.Options{})
	s, err := postgres.Open(bg, server.Database(t), postgres.Options{Patience: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	o := settleIn(t, s)
	if err := server.Stop(pgtest.Immediate); err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 2)
	s.Accept(o.message(), func(_ broker.Accepted, err error) { got <- err })
	s.Settle([]broker.Settlement{{Mesh: o.mesh, Delivery: 1, Recipient: o.to, State: wire.StateDelivered}},
		func(_ []bool, err error) { got <- err })
	if err := s.Ready(bg); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ready without a server: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := <-got; !errors.Is(err, broker.ErrClosed) {
			t.Errorf("%v, want ErrClosed", err)
		}
	}
}
