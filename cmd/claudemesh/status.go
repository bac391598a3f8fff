package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/profile"
	"github.com/claudemesh/claudemesh/internal/render"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// clockSlack is how far this machine's clock may be off before status says so.
const clockSlack = 10 * time.Minute

// maxQueued bounds how many waiting messages are counted.
const maxQueued = 1000

func (a *app) whoamiCommand() *cli.Command {
	return command(spec{
		name: "whoami", usage: "say who you are in each mesh", about: "Needs no broker.",
		example: "claudemesh whoami --json", run: a.runWhoami,
	})
}

func (a *app) runWhoami(context.Context, *cli.Command) error {
	_, meshes, err := a.entries()
	if err != nil {
		return err
	}
	out := []listedEntry{}
	for _, m := range meshes {
		out = append(out, listedEntryOf(m))
		if !a.json {
			a.printf("%s in %s (%s)\n  key     %s\n  broker  %s\n", m.Member, m.Mesh, m.Role, m.MemberKey(), m.Broker)
		}
	}
	if a.json {
		a.printJSON(out)
	}
	return nil
}

func (a *app) statusCommand() *cli.Command {
	return command(spec{
		name: "status", usage: "say how this machine stands with each mesh",
		about:   "Connects to each broker and counts what waits here. A broker that does not answer is a result, not an error.",
		example: "claudemesh status", run: a.runStatus,
	})
}

// meshStatus is what status prints of one mesh.
type meshStatus struct {
	listed
	Online        bool         `json:"online"`
	Error         string       `json:"error"`
	ClockOffsetMs int64        `json:"clockOffsetMs"`
	Queued        int          `json:"queued"`
	Unread        int          `json:"unread"`
	Seats         []seatStatus `json:"seats"`
	Local         *localStatus `json:"local"` // null when the mesh is at another broker
	// Suspicions are what the broker was caught at on this connection.
	Suspicions []client.Suspicion `json:"suspicions"`
	caught     string             // the same in a sentence
}

// localStatus is how the broker that up starts stands.
type localStatus struct {
	Running bool `json:"running"`
	PID     int  `json:"pid"`
}

// seatStatus is a place where agents of this machine have been.
type seatStatus struct {
	Name   string `json:"name"`
	Dir    string `json:"dir"`
	Unread int    `json:"unread"`
}

func (a *app) runStatus(ctx context.Context, _ *cli.Command) error {
	p, meshes, err := a.memberships()
	if err != nil {
		return err
	}
	s, err := a.connect(ctx, p, meshes, client.Observer)
	if err != nil {
		return err
	}
	defer s.end(ctx)
	s.flush(ctx)
	out := []meshStatus{}
	for i, m := range meshes {
		st, err := a.statusOf(ctx, p, s, i, m)
		if err != nil {
			return err
		}
		out = append(out, st)
	}
	if a.json {
		a.printJSON(out)
		return nil
	}
	for _, st := range out {
		a.showStatus(st)
	}
	return nil
}

func (a *app) statusOf(ctx context.Context, p *profile.Profile, s *station, i int, m client.Membership) (meshStatus, error) {
	st := meshStatus{
		listed: listedOf(m), Online: s.errs[i] == nil, Seats: []seatStatus{},
		Suspicions: s.clients[i].Suspicions(), caught: s.clients[i].Caught(),
	}
	if s.errs[i] != nil {
		st.Error = explain(s.errs[i]).text
	} else {
		st.ClockOffsetMs = s.clients[i].ClockOffset().Milliseconds()
	}
	if b := localBroker(p); m.Broker == b.URL() {
		r, runs := b.Running()
		st.Local = &localStatus{runs, r.PID}
	}
	pending, err := s.box.Pending(ctx, m.MeshID, wire.Key{}, 0, 0, maxQueued)
	if err != nil {
		return st, err
	}
	for _, out := range pending {
		if out.Mode != wire.ModeReceipt {
			st.Queued++
		}
	}
	if st.Unread, err = unread(ctx, s.box, m.MeshID, m.MemberKey()); err != nil {
		return st, err
	}
	seats, err := p.AllSeats(m.MeshID)
	for _, seat := range seats {
		n, err := unread(ctx, s.box, m.MeshID, seat.Key)
		if err != nil {
			return st, err
		}
		st.Seats = append(st.Seats, seatStatus{m.Member + "/" + seat.Label, seat.Dir, n})
	}
	return st, err
}

// unread counts the messages to a key that nobody has been shown.
func unread(ctx context.Context, box mailbox.Mailbox, mesh client.ID, key client.Key) (int, error) {
	msgs, more, err := box.List(ctx, mailbox.Query{Mesh: mesh, Recipients: []client.Key{key}, Gate: mailbox.Shut, Limit: 1})
	if errors.Is(err, mailbox.ErrNotFound) {
		return 0, nil
	}
	return len(msgs) + more, err
}

// skew says how wrong this machine's clock is, from the broker's less this one.
func skew(off time.Duration) string {
	if off > 0 {
		return render.Span(off.Abs()) + " slow"
	}
	return render.Span(off.Abs()) + " fast"
}

func (a *app) showStatus(st meshStatus) {
	a.printf("%s: %s (%s), %s\n", st.Mesh, st.Member, st.Role, map[bool]string{true: "online", false: "offline"}[st.Online])
	a.printf("  broker  %s\n", st.Broker)
	switch {
	case st.Local == nil:
	case st.Local.Running:
		a.printf("          on this machine, process %d\n", st.Local.PID)
	default:
		a.printf("          on this machine, and does not run; claudemesh up starts it\n")
	}
	if st.Error != "" {
		a.printf("  error   %s\n", render.Line(st.Error))
	}
	if st.caught != "" {
		a.printf("  caught  the broker shows what does not hold, and nothing of it was taken: %s\n", st.caught)
	}
	if off := time.Duration(st.ClockOffsetMs) * time.Millisecond; off.Abs() > clockSlack {
		a.printf("  clock   this machine's clock is %s\n", skew(off))
	}
	queued := plural(st.Queued, "message")
	if st.Queued >= maxQueued {
		queued = fmt.Sprintf("%d messages or more", maxQueued)
	}
	a.printf("  outbox  %s not yet at the broker\n", queued)
	a.printf("  inbox   %d unread for %s\n", st.Unread, st.Member)
	for _, seat := range st.Seats {
		if seat.Unread > 0 {
			a.printf("          %d unread for %s in %s\n", seat.Unread, seat.Name, render.Line(seat.Dir))
		}
	}
}
