package client

import (
	"context"

	"github.com/claudemesh/claudemesh/internal/audit"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/trust"
)

// note writes into the audit log of this machine.
func (c *Client) note(ctx context.Context, entries ...audit.Entry) {
	if len(entries) == 0 {
		return
	}
	for i := range entries {
		entries[i].Mesh, entries[i].At = c.m.MeshID, c.now().UnixMilli()
	}
	if err := c.box.Record(ctx, entries...); err != nil && ctx.Err() == nil {
		c.log.Error("the audit log is not written", "error", err)
	}
}

// chronicle notes the statements that are news to this machine.
func (c *Client) chronicle(ctx context.Context, list []mailbox.Statement, fresh []bool) {
	var entries []audit.Entry
	for i, s := range list {
		if e, ok := c.newsOf(s); ok && fresh[i] {
			entries = append(entries, e)
		}
	}
	c.note(ctx, entries...)
}

// newsOf is what the log says of a statement, which was verified.
func (c *Client) newsOf(s mailbox.Statement) (e audit.Entry, ok bool) {
	switch {
	case s.Removal != nil:
		r, err := trust.ParseRemoval(*s.Removal)
		return audit.Entry{Event: audit.Removed, Member: r.Member, Code: r.Reason, Note: "by " + r.Signer.Short()}, err == nil
	case s.Close != nil:
		r, err := trust.ParseClose(*s.Close)
		return audit.Entry{Event: audit.Closed, Member: r.Signer, Note: "invite " + r.Invite.String()}, err == nil
	case s.Role != nil:
		r, err := trust.ParseRole(c.m.Owner, *s.Role)
		return audit.Entry{Event: audit.Role, Member: r.Member, Code: r.Role}, err == nil
	case s.Pause != nil:
		r, err := trust.ParsePause(*s.Pause)
		e := audit.Entry{Event: audit.Paused, Member: r.Signer}
		if r.Until == 0 {
			e.Event = audit.Resumed
		}
		return e, err == nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.roster.Members() {
		if m.Certificate[0].Sig == s.Certificate[0].Sig && m.Certificate[len(m.Certificate)-1].Sig == s.Certificate[len(s.Certificate)-1].Sig {
			e := audit.Entry{Event: audit.Joined, Member: m.Key, Code: m.Role}
			if !m.Invite.IsZero() {
				e.Note = "by invite " + m.Invite.String()
			}
			return e, true
		}
	}
	return audit.Entry{}, false
}

// keepPause lets what shares the mailbox, and has no roster, know of a pause.
func (c *Client) keepPause(ctx context.Context) error {
	var until int64
	if t := c.PausedUntil(); !t.IsZero() {
		until = t.UnixMilli()
	}
	return c.box.SetPause(ctx, c.m.MeshID, until)
}

// KnownNames returns the names of all who ever were members of a mesh, as far as a
// mailbox knows, by member key.
func KnownNames(ctx context.Context, box Mailbox, m Membership) (map[Key]string, error) {
	_, list, err := box.Statements(ctx, m.MeshID)
	if err != nil {
		return nil, err
	}
	roster, err := trust.NewRoster(m.Owner, m.Genesis)
	if err != nil {
		return nil, err
	}
	names := map[Key]string{m.MemberKey(): m.Member}
	for _, s := range list {
		if s.Role != nil {
			_, _ = roster.AddRole(*s.Role) // they let in members that promoted admins have admitted
		}
		if len(s.Certificate) == 0 {
			continue
		}
		if known, err := roster.Add(s.Certificate); err == nil {
			names[known.Key] = known.Name
		}
	}
	return names, nil
}
