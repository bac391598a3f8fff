package stream

import (
	"context"
	"time"

	"github.com/claudemesh/claudemesh/internal/courier"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// via is how a parcel enters.
type via string

const (
	viaSubmit via = "submit" // as a turn of its own
	viaAppend via = "append" // into the running turn
	viaPrompt via = "prompt" // beside a person's prompt
)

// parcel is a batch on its way into the agent. Its courier, and so its lease, is
// its own: what is on its way is not taken again.
type parcel struct {
	*courier.Batch
	courier *courier.Courier
	via     via
	sent    time.Time
	entered bool  // the agent has accepted it
	steps   int64 // requests to the model by then: a later one shows it
	read    bool  // it was shown; the mailbox may not know yet
	adopted bool  // the batch does not know its agent
}

func (p *parcel) id() string { return p.courier.Holder() }

// hold names a message to a later process.
type hold struct {
	Number int64   `json:"number"`
	Mesh   wire.ID `json:"mesh"`
}

func (p *parcel) holds() []hold {
	holds := make([]hold, len(p.Messages))
	for i := range p.Messages {
		holds[i] = hold{p.Messages[i].Number, p.Messages[i].Mesh}
	}
	return holds
}

// take leases what waits as a parcel; nil when nothing does.
func (s *Stream) take(ctx context.Context, least wire.Priority, how via) (*parcel, error) {
	c := s.courier()
	b, err := c.Take(ctx, s.agent, least, s.now().Add(courier.LeaseFor))
	if err != nil || len(b.Messages) == 0 {
		return nil, err
	}
	return s.carry(b, c, how), nil
}

func (s *Stream) carry(b *courier.Batch, c *courier.Courier, how via) *parcel {
	p := &parcel{Batch: b, courier: c, via: how, sent: s.now()}
	s.parcels[p.id()] = p
	return p
}

// maxHolds bounds what the mod may say that a parcel is of.
const maxHolds = 100

// adopt takes over a parcel that an earlier stream gave to the mod, under its lease.
func (s *Stream) adopt(o Outcome) {
	c := courier.Resume(s.box, s.pid, mailbox.ByMod, o.Batch)
	if c == nil || s.parcels[o.Batch] != nil || len(o.Holds) > maxHolds {
		return
	}
	var msgs []mailbox.Incoming
	for _, h := range o.Holds {
		msgs = append(msgs, mailbox.Incoming{Number: h.Number, Mesh: h.Mesh})
	}
	p := s.carry(courier.NewBatch(s.agent, msgs), c.Clock(s.now), o.Via)
	p.steps, p.adopted = o.Steps, !s.claimed
}

// fared notes the outcome of a parcel.
func (s *Stream) fared(ctx context.Context, o Outcome) {
	p := s.parcels[o.Batch]
	switch {
	case p == nil:
		s.done = append(s.done, o.Batch)
	case !o.Over || p.entered:
	case o.Failed != "":
		s.log.Info("the agent did not take messages", "via", string(p.via), "reason", o.Failed)
		s.rest = s.now().Add(calm)
		s.back(ctx, p)
	default:
		p.entered = true
		if p.via != viaPrompt { // which counts from before it was entered: only its own turn follows
			p.steps = o.Steps
		}
	}
}

// evidence marks read what the model has been sent.
func (s *Stream) evidence(ctx context.Context) {
	for _, p := range s.parcels {
		if p.entered && s.steps > p.steps {
			p.read = true
		}
		if p.read {
			s.shown(ctx, p)
		}
	}
}

// shown marks a parcel read; what fails is tried again.
func (s *Stream) shown(ctx context.Context, p *parcel) {
	if len(p.Messages) > 0 {
		if p.adopted { // before the agent was known
			if !s.claimed {
				return
			}
			p.Batch, p.adopted = courier.NewBatch(s.agent, p.Messages), false
		}
		if err := p.courier.Shown(ctx, p.Batch); err != nil {
			s.log.Error("messages that were shown are not marked read yet", "error", err)
			return
		}
		at := s.now().UnixMilli()
		s.note(func(a *mailbox.Agent) { a.Prove(mailbox.ByMod, at) })
	}
	s.forget(p)
}

// back puts a parcel back, unless it was read.
func (s *Stream) back(ctx context.Context, p *parcel) {
	if p.read {
		s.shown(ctx, p)
		return
	}
	if err := p.courier.Back(ctx, p.Batch); err != nil {
		s.log.Error("messages are put back when their lease ends", "error", err)
	}
	s.counted = 0
	s.forget(p)
}

func (s *Stream) forget(p *parcel) {
	delete(s.parcels, p.id())
	s.done = append(s.done, p.id())
}

// overdue takes back what the idle agent has not said a word of.
func (s *Stream) overdue(ctx context.Context, now time.Time) error {
	for _, p := range s.parcels {
		if s.busy || p.read || (p.entered && p.via != viaPrompt) {
			continue
		}
		since := p.sent
		if s.heard.After(since) {
			since = s.heard
		}
		switch due := since.Add(patience); {
		case now.Before(due):
			s.wakeAt(due)
		case p.via == viaPrompt:
			s.back(ctx, p)
		default:
			return errSilent
		}
	}
	return nil
}

// renew holds on to what is on its way.
func (s *Stream) renew(ctx context.Context, now time.Time) {
	if now.Sub(s.renewed) < courier.LeaseFor/3 {
		return
	}
	s.renewed = now
	s.evidence(ctx)
	for id := range s.parcels {
		if err := s.box.Renew(ctx, id, now.Add(courier.LeaseFor).UnixMilli()); err != nil {
			s.log.Error("a lease is not renewed", "error", err)
		}
	}
}
