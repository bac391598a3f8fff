package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/profile"
)

const (
	connectWait = 5 * time.Second         // for a broker that has not answered yet
	retryWait   = 1500 * time.Millisecond // for one that could not be reached at first
	flushWait   = 2 * time.Second         // for the outbox to drain before the end
)

// station is the clients of one command with the mailbox they share.
type station struct {
	box     mailbox.Mailbox
	clients client.Set
	errs    []error // by client: why it is not online, nil when it is
}

// connect opens the mailbox and connects to the brokers of some meshes. A
// broker that does not answer is no error here: what is known is used.
func (a *app) connect(ctx context.Context, p *profile.Profile, meshes []client.Membership, role client.Role) (*station, error) {
	box, err := client.OpenMailbox(ctx, p.MailboxPath())
	if err != nil {
		return nil, err
	}
	s := &station{box: box, errs: make([]error, len(meshes))}
	for _, m := range meshes {
		c, err := client.Dial(ctx, client.Options{Membership: m, Role: role, Mailbox: box, Logger: a.logger(slog.LevelError + 1)})
		if err != nil {
			s.close()
			return nil, err
		}
		s.clients = append(s.clients, c)
	}
	var wg sync.WaitGroup
	for i, c := range s.clients {
		wg.Go(func() { s.errs[i] = ready(ctx, c) })
	}
	wg.Wait()
	if ctx.Err() != nil {
		s.close()
		return nil, ctx.Err()
	}
	return s, s.keepRoles(p, meshes)
}

// keepRoles writes into the profile what has become of this member's roles.
func (s *station) keepRoles(p *profile.Profile, meshes []client.Membership) error {
	for i, c := range s.clients {
		role := c.MemberRole()
		if s.errs[i] != nil || role == meshes[i].Role {
			continue
		}
		meshes[i].Role = role
		if err := p.Amend(c.MeshID(), func(m *client.Membership) error { m.Role = role; return nil }); err != nil {
			s.close()
			return err
		}
	}
	return nil
}

// connectOne is connect for what needs the broker of one mesh.
func (a *app) connectOne(ctx context.Context, role client.Role) (*station, *client.Client, error) {
	p, m, err := a.oneMembership()
	if err != nil {
		return nil, nil, err
	}
	s, err := a.connect(ctx, p, []client.Membership{m}, role)
	if err != nil {
		return nil, nil, err
	}
	if s.errs[0] != nil {
		s.close()
		return nil, nil, s.errs[0]
	}
	return s, s.clients[0], nil
}

// ready waits for a connection: longer while the first attempt is under way
// than after it has failed.
func ready(ctx context.Context, c *client.Client) error {
	first, cancel := context.WithTimeout(ctx, retryWait)
	defer cancel()
	err := c.Ready(first)
	if err == nil || c.State().Final || c.State().Err != nil || ctx.Err() != nil {
		return err
	}
	more, cancel := context.WithTimeout(ctx, connectWait-retryWait)
	defer cancel()
	return c.Ready(more)
}

// observe connects to every mesh as an observer. A mesh that refuses this member
// for good is an error; a broker that is away is none.
func (a *app) observe(ctx context.Context) (*station, error) {
	p, meshes, err := a.memberships()
	if err != nil {
		return nil, err
	}
	s, err := a.connect(ctx, p, meshes, client.Observer)
	if err != nil {
		return nil, err
	}
	if err := s.refusal(); err != nil {
		s.end(ctx)
		return nil, err
	}
	return s, nil
}

// refusal returns the first error that is more than an absent broker.
func (s *station) refusal() error {
	for i, c := range s.clients {
		if s.errs[i] != nil && c.State().Final {
			return s.errs[i]
		}
	}
	return nil
}

// flush waits until the broker has what these clients have to say: messages
// that wait in the outbox, and receipts for what was read.
func (s *station) flush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushWait)
	defer cancel()
	changes := s.box.Watch(ctx)
	for s.owes(ctx) {
		select {
		case <-changes:
		case <-ctx.Done():
			return
		}
	}
}

func (s *station) owes(ctx context.Context) bool {
	for _, c := range s.clients {
		if !c.State().Online || !c.PausedUntil().IsZero() {
			continue
		}
		if read, err := s.box.Unreceipted(ctx, c.MeshID(), c.Key(), 1); err == nil && len(read) > 0 {
			return true
		}
		if out, err := s.box.Pending(ctx, c.MeshID(), c.Key(), 0, 0, 1); err == nil && len(out) > 0 {
			return true
		}
	}
	return false
}

// close ends the connections after what is owed, and closes the mailbox.
func (s *station) close() {
	s.clients.Close()
	_ = s.box.Close()
}

// end is close after flush.
func (s *station) end(ctx context.Context) {
	if ctx.Err() == nil {
		s.flush(ctx)
	}
	s.close()
}

// logger logs to standard error what CLAUDEMESH_LOG asks for: debug, info, warn
// or error; without it, what is at least of a level.
func (a *app) logger(level slog.Level) *slog.Logger {
	if text := a.getenv("CLAUDEMESH_LOG"); text != "" {
		if err := level.UnmarshalText([]byte(text)); err != nil {
			level = slog.LevelDebug
		}
	}
	return slog.New(slog.NewTextHandler(a.errw, &slog.HandlerOptions{Level: level}))
}
