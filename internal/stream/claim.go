package stream

import (
	"context"
	"errors"
	"slices"

	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/process"
)

// note keeps a change of the agent's record until it can be stored.
func (s *Stream) note(change func(*mailbox.Agent)) { s.changes = append(s.changes, change) }

// claim reads the agent's record, and makes it this mod's when the mod has
// said hello and no other that runs has it.
func (s *Stream) claim(ctx context.Context) error {
	s.claimed = false
	a, err := s.box.Agent(ctx, s.pid)
	if errors.Is(err, mailbox.ErrNoAgent) || (err == nil && !s.bound) {
		return nil
	}
	if err != nil {
		return err
	}
	if !a.Alive() || (a.Mod != s.self && a.Mod.Alive()) {
		return nil
	}
	if a.Mod != s.self || len(s.changes) > 0 {
		changes := append(slices.Clip(s.changes), func(a *mailbox.Agent) { a.Mod = s.self })
		a, err = s.box.ChangeAgent(ctx, s.pid, func(a *mailbox.Agent) error {
			for _, change := range changes {
				change(a)
			}
			return nil
		})
		if err != nil {
			return err
		}
		s.changes = nil
	}
	s.agent, s.claimed = a, true
	return nil
}

// Close puts back what is on its way and gives up the agent.
func (s *Stream) Close(ctx context.Context) error {
	for _, p := range s.parcels {
		s.back(ctx, p)
	}
	_, err := s.box.ChangeAgent(ctx, s.pid, func(a *mailbox.Agent) error {
		if a.Mod == s.self {
			a.Mod, a.Status = process.Process{}, ""
		}
		return nil
	})
	if errors.Is(err, mailbox.ErrNoAgent) {
		return nil
	}
	return err
}
