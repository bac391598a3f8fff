package mcpserver

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/courier"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/process"
)

const (
	// recordEvery bounds how often the record and the cards are changed.
	recordEvery = time.Second
	leaveTime   = 2 * time.Second
)

// errUnchanged leaves a record as it is.
var errUnchanged = errors.New("unchanged")

// record is what this server keeps of its agent in the mailbox: couriers, hooks
// and the status line know from it who the agent is and whose messages it gets.
// It outlives the server: what waits in the mailbox is still brought in.
type record struct {
	box   client.Mailbox
	fleet Fleet
	log   *slog.Logger
	start mailbox.Agent // as the agent was known at the start
	cards mirror
}

// newRecord returns nil when it is not known whose server this is.
func newRecord(o *Options) *record {
	if !o.Agent.Alive() {
		return nil
	}
	r := &record{box: o.Mailbox, fleet: o.Fleet, log: o.Logger, start: o.Agent, cards: mirror{log: o.Logger}}
	r.start.Server = process.Self()
	return r
}

// register writes the record. What couriers and hooks have noted of an agent
// that goes on stays: its server has only started again.
func (r *record) register(ctx context.Context) error {
	if err := courier.Sweep(ctx, r.box); err != nil {
		return err
	}
	fresh := r.start
	fresh.Seats = r.seats(ctx)
	_, err := r.box.ChangeAgent(ctx, fresh.PID, func(a *mailbox.Agent) error {
		if a.Process != fresh.Process {
			*a = fresh
			return nil
		}
		a.Server, a.Seats, a.Held, a.Cwd = fresh.Server, fresh.Seats, nil, fresh.Cwd
		a.Attended = a.Attended || fresh.Attended
		if a.Session == "" { // else a hook knows better
			a.Session = fresh.Session
		}
		if a.Mode == "" { // else it was chosen since
			a.Mode = fresh.Mode
		}
		return nil
	})
	if errors.Is(err, mailbox.ErrNoAgent) {
		err = r.box.PutAgent(ctx, fresh)
	}
	return err
}

// follow keeps the record true until ctx ends.
func (r *record) follow(ctx context.Context) {
	tick := time.NewTicker(recordEvery)
	defer tick.Stop()
	for {
		if err := r.sync(ctx); err != nil && ctx.Err() == nil {
			r.log.Warn("the record of this agent is not kept", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// sync writes what has changed of the seats, and shows what has changed of the record.
func (r *record) sync(ctx context.Context) error {
	a, err := r.box.Agent(ctx, r.start.PID)
	switch {
	case errors.Is(err, mailbox.ErrNoAgent):
		return r.register(ctx)
	case err != nil:
		return err
	case a.Server != r.start.Server: // a younger server of the same agent keeps it
		return nil
	}
	r.cards.show(ctx, &a, r.fleet.Clients())
	seats := r.seats(ctx)
	if slices.Equal(seats, a.Seats) {
		return nil
	}
	return r.change(ctx, func(a *mailbox.Agent) { a.Seats = seats })
}

// now is the record as it is; nil when it is not known.
func (r *record) now(ctx context.Context) *mailbox.Agent {
	if r == nil {
		return nil
	}
	a, err := r.box.Agent(ctx, r.start.PID)
	if err != nil {
		return nil
	}
	return &a
}

// change alters the record while it is this server's. Without a record it does nothing.
func (r *record) change(ctx context.Context, change func(*mailbox.Agent)) error {
	if r == nil {
		return nil
	}
	_, err := r.box.ChangeAgent(ctx, r.start.PID, func(a *mailbox.Agent) error {
		if a.Server != r.start.Server {
			return errUnchanged
		}
		change(a)
		return nil
	})
	if errors.Is(err, errUnchanged) || errors.Is(err, mailbox.ErrNoAgent) {
		return nil
	}
	return err
}

// leave says that no server serves the agent any more.
func (r *record) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
	defer cancel()
	err := r.change(ctx, func(a *mailbox.Agent) {
		a.Server, a.Held = process.Process{}, nil
		for i := range a.Seats {
			a.Seats[i].Online, a.Seats[i].Peers = false, 0
		}
	})
	if err != nil {
		r.log.Warn("the record of this agent still names its server", "error", err)
	}
}

// seats are the sessions of the agent as they are now.
func (r *record) seats(ctx context.Context) (seats []mailbox.AgentSeat) {
	for _, cl := range r.fleet.Clients() {
		online := cl.State().Online
		peers := 0
		if online {
			peers = cl.PeersOnline(ctx)
		}
		seats = append(seats, mailbox.AgentSeat{
			Mesh: cl.MeshID(), Name: cl.Mesh(), Key: cl.Key(), Member: cl.MemberKey(), Self: cl.Name(),
			Offset: cl.ClockOffset().Milliseconds(), Online: online, Peers: peers,
		})
	}
	return seats
}
