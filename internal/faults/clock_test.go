package faults

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/clustertest"
	"github.com/claudemesh/claudemesh/internal/meshtest"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// TestClientClockWrong: a peer whose clock is a day off is a peer like others.
func TestClientClockWrong(t *testing.T) {
	clustertest.Aside(t)
	w := meshtest.New(t, nil)
	owner := w.Found("mesh", "alice")
	right := w.Dial(owner, "right", func(o *client.Options) { o.Mailbox = w.Mailbox() })
	for _, shift := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		t.Run(shift.String(), func(t *testing.T) {
			began := time.Now()
			wrong := w.Dial(owner, fmt.Sprintf("wrong%d", shift/time.Hour+100), func(o *client.Options) {
				o.Mailbox, o.Now = w.Mailbox(), func() time.Time { return time.Now().Add(shift) }
			})
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("it took %s to connect", took)
			}
			if off := wrong.ClockOffset() + shift; off > time.Second || off < -time.Second {
				t.Errorf("it does not know how wrong it is: off by %s", off)
			}
			for _, p := range []client.Priority{client.Now, client.Next} {
				for _, way := range []struct{ from, to *client.Client }{{wrong, right}, {right, wrong}} {
					text := fmt.Sprintf("%s %s %s", way.from.Name(), p, shift)
					s, err := way.from.Send(t.Context(), client.Message{To: []string{way.to.Key().String()}, Text: text, Priority: p})
					clustertest.Must(t, err)
					if !s.OK() || s.Targets[0].State == client.Stored {
						t.Errorf("%s: %+v", text, s.Targets)
					}
					r := w.Next(way.to)
					sent, left := time.UnixMilli(r.Sent), time.Until(time.UnixMilli(r.Expires))
					if r.Text != text {
						t.Errorf("got %q, want %q", r.Text, text)
					}
					if d := time.Since(sent); d > 10*time.Second || d < -10*time.Second {
						t.Errorf("%s: shown as sent %s ago", text, d)
					}
					if p == client.Now && (left < 50*time.Minute || left > 61*time.Minute) || p == client.Next && left < 6*24*time.Hour {
						t.Errorf("%s: expires in %s", text, left)
					}
				}
			}
			clustertest.Must(t, wrong.Close())
		})
	}
}

// TestBrokerClockSteps steps the broker's clock by an hour both ways, with
// messages in flight, queued, and sent by peers that knew the time before.
func TestBrokerClockSteps(t *testing.T) {
	clustertest.Aside(t)
	for _, step := range []time.Duration{time.Hour, -time.Hour} {
		t.Run(step.String(), func(t *testing.T) { clockStep(t, step) })
	}
}

func clockStep(t *testing.T, step time.Duration) {
	clustertest.Aside(t)
	var offset atomic.Int64
	w := meshtest.New(t, func(c *broker.Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	})
	owner := w.Found("mesh", "alice")
	c := clustertest.NewCrowd(t)
	senders := c.Add([]client.Membership{owner}, 2, true, nil)
	recipients := c.Add([]client.Membership{owner}, 4, true, nil)
	var seed client.Secret
	box := w.Mailbox()
	sleeper := w.Dial(owner, "sleeper", func(o *client.Options) { seed, o.Mailbox = o.SessionSeed, box })
	key := sleeper.Key().String()
	clustertest.Must(t, sleeper.Close())
	// 90 minutes outlive a step of an hour; half an hour does not.
	for text, age := range map[string]time.Duration{"week": 0, "90m": 90 * time.Minute, "30m": 30 * time.Minute} {
		s, err := senders[0].C.Send(t.Context(), client.Message{To: []string{key}, Text: text, Expires: age})
		clustertest.Must(t, err)
		if s.Targets[0].State != client.Accepted {
			t.Fatalf("%s: %+v", text, s.Targets)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	wg := c.Load(ctx, senders, recipients, 40)
	time.Sleep(500 * time.Millisecond)
	offset.Store(int64(step))
	time.Sleep(5500 * time.Millisecond) // the janitor looks for expired messages every 5 s
	cancel()
	wg.Wait()
	f := c.Settle(15*time.Second, clustertest.OfSend)
	for text, id := range c.Ledger.Texts() { // after a step of an hour, what lives for one is over
		out, err := senders[0].Box.Outgoing(t.Context(), id)
		if err != nil {
			out, err = senders[1].Box.Outgoing(t.Context(), id)
		}
		clustertest.Must(t, err)
		for _, r := range out.Recipients {
			if r.State == client.Bounced && (r.Code != wire.CodeExpired || step < 0 || out.Priority != client.Now) {
				t.Errorf("%s, %s: bounced: %s", text, out.Priority, r.Code)
			}
		}
	}
	back := w.Dial(owner, "sleeper", func(o *client.Options) { o.SessionSeed, o.Mailbox = seed, box })
	want := map[string]bool{"week": true, "90m": true, "30m": step < 0}
	got := map[string]bool{}
	for {
		r, err := meshtest.Next(back, 700*time.Millisecond)
		if err != nil {
			break
		}
		got[r.Text] = true
	}
	for text, ok := range want {
		if got[text] != ok {
			t.Errorf("a message of %s, after a step of %s: arrives %t, want %t", text, step, got[text], ok)
		}
	}
	// A peer that still reckons by the time before the step may use the longest lifetime.
	s, err := senders[1].C.Send(t.Context(), client.Message{To: []string{key}, Text: "longest", Expires: 30 * 24 * time.Hour})
	clustertest.Must(t, err)
	if !s.OK() || s.Targets[0].State == client.Stored {
		t.Errorf("the longest lifetime: %+v", s.Targets)
	}
	t.Logf("step %s: %+v", step, f)
}
