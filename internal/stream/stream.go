// Package stream is the courier behind the mod in Claude Code: the mod tells what
// happens in the session, and is told what to put into it.
package stream

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/claudemesh/claudemesh/internal/courier"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/process"
	"github.com/claudemesh/claudemesh/internal/wire"
)

const (
	// gather is how long a message that would start a turn waits for others.
	gather = 250 * time.Millisecond
	// calm is how long nothing is begun after a person has stopped a turn, or the
	// agent has refused something.
	calm = 10 * time.Second
	// patience is how long the mod may owe an answer while the agent is idle.
	patience = time.Minute
)

// errSilent ends a stream: another courier can do better.
var errSilent = errors.New("the mod does not answer")

// Stream is the courier behind a mod: it decides what enters the agent and how,
// the mod does it. One goroutine owns it: it calls Handle for what the mod
// tells and Look after a change of the mailbox and at Next.
type Stream struct {
	box  mailbox.Mailbox
	pid  int
	self process.Process
	say  func(Instruction) // does not block
	log  *slog.Logger
	now  func() time.Time

	agent   mailbox.Agent
	claimed bool                   // agent is there, and its mod is this process's
	changes []func(*mailbox.Agent) // that its record does not have yet

	bound   bool  // the mod has said hello
	busy    bool  // a turn of the main loop runs
	steps   int64 // requests to the model so far
	heard   time.Time
	rest    time.Time // nothing is begun before
	first   time.Time // since when something waits that may start a turn
	rung    int64     // the newest message that the model has been told of
	told    int64     // the newest one that the person has been told of
	counted int64     // the newest message when a turn was begun that could not hold all
	status  string
	revival time.Time // when the MCP server, which has died, is started again
	renewed time.Time
	next    time.Time

	parcels map[string]*parcel
	done    []string // parcels that are over, for the mod to forget
}

// NewStream returns the courier of the agent with a process id. Its instructions
// are handed to say, which must not block.
func NewStream(box mailbox.Mailbox, pid int, log *slog.Logger, say func(Instruction)) *Stream {
	return &Stream{
		box: box, pid: pid, self: process.Self(), say: say, log: log, now: time.Now, parcels: map[string]*parcel{},
	}
}

// Next is when to look again.
func (s *Stream) Next() time.Time { return s.next }

// Handle takes in an event and looks at what there is to do.
func (s *Stream) Handle(ctx context.Context, e Event) (a Answer, err error) {
	s.heard = s.now()
	hello := e.Name == "hello"
	s.setBusy(e.Busy)
	s.steps = e.Steps
	s.bound = s.bound || hello
	if hello && e.Session != "" {
		s.note(func(a *mailbox.Agent) { a.Session = e.Session })
	}
	if err := s.claim(ctx); err != nil {
		return a, err
	}
	for _, o := range e.Batches {
		if hello {
			s.adopt(o)
		}
		s.fared(ctx, o)
	}
	s.evidence(ctx)
	switch e.Name {
	case "turn.complete":
		s.completed(ctx, e.Aborted)
	case "session.end":
		s.ended(ctx)
	case "prompt": // before a look, which might start a turn of its own
		a, err = s.prompted(ctx)
	}
	if err == nil {
		err = s.Look(ctx)
	}
	if err == nil && e.Name == "tool" {
		a, err = s.ran(ctx)
	}
	a.Done, s.done = s.done, nil
	return a, err
}

func (s *Stream) setBusy(busy bool) {
	if s.busy != busy || !s.bound {
		s.note(func(a *mailbox.Agent) { a.Status = statusOf(busy) })
	}
	s.busy = busy
}

func statusOf(busy bool) string {
	if busy {
		return "working"
	}
	return "idle"
}

// completed is the end of a turn: what waits may start one, unless a person stopped this.
func (s *Stream) completed(ctx context.Context, aborted bool) {
	if aborted {
		s.rest = s.now().Add(calm)
	} else {
		s.first = s.now().Add(-gather)
	}
	for _, p := range s.parcels {
		switch {
		case !p.entered || p.read:
		case p.via == viaPrompt: // it asked for nothing
			s.back(ctx, p)
		case p.via == viaSubmit && !aborted: // it has asked, for that was what it was for
			p.read = true
			s.shown(ctx, p)
		}
	}
}

// ended is the end of a conversation: what it has not read is lost in it.
// Nothing is begun before the mod says hello in the next.
func (s *Stream) ended(ctx context.Context) {
	for _, p := range s.parcels {
		if !p.read && (p.entered || p.via == viaPrompt) {
			s.back(ctx, p)
		}
	}
	s.bound, s.claimed, s.rest = false, false, time.Time{}
}

// Look does what is due.
func (s *Stream) Look(ctx context.Context) error {
	now := s.now()
	s.next = now.Add(courier.LeaseFor / 3)
	if err := s.overdue(ctx, now); err != nil {
		return err
	}
	s.renew(ctx, now)
	if err := s.claim(ctx); err != nil || !s.claimed {
		return err
	}
	s.revive(now)
	if err := s.enter(ctx, now); err != nil {
		return err
	}
	return s.showStatus(ctx)
}

// enter brings in what may come unasked.
func (s *Stream) enter(ctx context.Context, now time.Time) error {
	switch {
	case s.agent.Mode == mailbox.Notice:
		b, err := s.courier().Ringing(ctx, s.agent, wire.PriorityNext)
		if err == nil && newest(b) > s.told {
			s.tell(b, "unread")
		}
		return err
	case s.agent.Mode != mailbox.Push:
		return nil
	case now.Before(s.rest):
		s.wakeAt(s.rest)
		return nil
	case s.busy || s.starting():
		return nil
	}
	return s.idle(ctx, now)
}

// wakeAt makes Next no later than t.
func (s *Stream) wakeAt(t time.Time) {
	if t.Before(s.next) {
		s.next = t
	}
}

// starting reports whether a turn is about to begin.
func (s *Stream) starting() bool {
	for _, p := range s.parcels {
		if !p.read && (p.via == viaPrompt || (p.via == viaSubmit && !p.entered)) {
			return true
		}
	}
	return false
}

// ran is the end of a tool call, whose result the model is about to read: what
// is urgent goes with it, of the rest the model is told. An append at any other
// time may miss the next request, and nobody can say whether it did.
func (s *Stream) ran(ctx context.Context) (a Answer, err error) {
	var p *parcel
	if s.claimed && s.busy && s.agent.Mode == mailbox.Push && !s.now().Before(s.rest) {
		if p, err = s.take(ctx, wire.PriorityNow, viaAppend); err != nil {
			return a, err
		}
	}
	if a, err = s.ring(ctx, wire.PriorityNext); err == nil && p != nil {
		s.tell(p.Batch, "put before Claude")
		a.Append, a.Batch, a.Holds = p.Text(), p.id(), p.holds()
	}
	return a, err
}

// idle starts a turn when something waits that may, and others that came with
// it had time to.
func (s *Stream) idle(ctx context.Context, now time.Time) error {
	b, err := s.courier().Waiting(ctx, s.agent, wire.PriorityNext)
	if err != nil {
		return err
	}
	fresh, err := s.fresh(ctx, b)
	if err != nil {
		return err
	}
	stuck := s.stuck()
	if !fresh && !stuck {
		s.first = time.Time{}
		return nil
	}
	if s.first.IsZero() {
		s.first = now
	}
	due := s.first.Add(gather)
	if now.Before(due) && !stuck && b.Messages[0].Urgency != wire.PriorityNow {
		s.wakeAt(due)
		return nil
	}
	s.first = time.Time{}
	p, err := s.take(ctx, wire.PriorityLow, viaSubmit)
	if err != nil {
		return err
	}
	if p == nil && stuck {
		p = s.carry(courier.NewBatch(s.agent, nil), s.courier(), viaSubmit)
	}
	if p == nil {
		return nil
	}
	s.say(Instruction{Do: "submit", Batch: p.id(), Text: cmp.Or(p.Text(), nudge), Holds: p.holds()})
	if p.Rest > 0 && !s.agent.DND {
		s.counted, err = s.latest(ctx)
	}
	return err
}

// fresh reports whether something waits that was not counted when others were
// brought in: the model knows of that, and fetches it when it likes.
func (s *Stream) fresh(ctx context.Context, b *courier.Batch) (bool, error) {
	if len(b.Messages) == 0 || s.counted == 0 {
		return len(b.Messages) > 0, nil
	}
	latest, err := s.latest(ctx)
	return latest > s.counted, err
}

// latest is the number of the newest message that may start a turn, read or not.
func (s *Stream) latest(ctx context.Context) (int64, error) {
	q := mailbox.Query{Recipients: s.agent.Recipients(), AtLeast: wire.PriorityNext, Read: true, Limit: 1}
	msgs, _, err := s.box.List(ctx, q)
	if err != nil || len(msgs) == 0 {
		return 0, err
	}
	return msgs[0].Number, nil
}

// stuck reports whether something was put into a turn that has ended without
// reading it: the next one's request has it.
func (s *Stream) stuck() bool {
	for _, p := range s.parcels {
		if p.via != viaPrompt && p.entered && !p.read {
			return true
		}
	}
	return false
}

// prompted is a person's prompt: all that waits goes with it. One that is typed
// while a turn runs may yet be taken back, and is only told of.
func (s *Stream) prompted(ctx context.Context) (a Answer, err error) {
	if !s.claimed {
		return a, nil
	}
	s.rest = time.Time{}
	if s.busy || s.agent.Mode != mailbox.Push {
		return s.ring(ctx, wire.PriorityLow)
	}
	p, err := s.take(ctx, wire.PriorityLow, viaPrompt)
	if err != nil || p == nil {
		return a, err
	}
	p.steps = s.steps
	s.tell(p.Batch, "read with your prompt")
	return Answer{Context: []string{p.Text()}, Batch: p.id(), Holds: p.holds()}, nil
}

// ring tells the model that somebody has written, once for each that is least urgent or more.
func (s *Stream) ring(ctx context.Context, least wire.Priority) (a Answer, err error) {
	if !s.claimed || (s.agent.Mode != mailbox.Push && s.agent.Mode != mailbox.Notice) {
		return a, nil
	}
	b, err := s.courier().Ringing(ctx, s.agent, wire.PriorityLow)
	if err != nil {
		return a, err
	}
	fresh := false
	for i := range b.Messages {
		m := &b.Messages[i]
		fresh = fresh || (m.Number > s.rung && m.Urgency.Rank() <= least.Rank())
	}
	if !fresh {
		return a, nil
	}
	s.rung = newest(b)
	if s.rung > s.told {
		s.tell(b, "unread; Claude knows")
	}
	return Answer{Context: []string{b.Doorbell()}}, nil
}

// courier is a new one to the agent.
func (s *Stream) courier() *courier.Courier {
	return courier.New(s.box, s.pid, mailbox.ByMod).Clock(s.now)
}
