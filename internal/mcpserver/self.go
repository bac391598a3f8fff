package mcpserver

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/render"
)

// selfResult says where a change of this session's card is seen.
type selfResult struct {
	OK      bool     `json:"ok"`
	ShownTo []string `json:"shownTo"`           // meshes
	Pending []string `json:"pending,omitempty"` // meshes that see it on connection
}

func setSummary(ctx context.Context, c *call) (*result, error) {
	var a struct {
		Summary *string `json:"summary"`
	}
	if err := arguments(c, &a); err != nil {
		return nil, err
	}
	if a.Summary == nil {
		return nil, badArgument("summary is missing")
	}
	said := `Your summary is set.`
	if *a.Summary == "" {
		said = "Your summary is removed."
	}
	return c.changeCard(ctx, said, func(cl *client.Client) error { return cl.SetSummary(ctx, *a.Summary) })
}

func setStatus(ctx context.Context, c *call) (*result, error) {
	var a struct {
		Status string `json:"status"`
	}
	if err := arguments(c, &a); err != nil {
		return nil, err
	}
	switch a.Status {
	case client.StatusIdle, client.StatusWorking, client.StatusDND:
	default:
		return nil, badArgument("status is idle, working or dnd, not %q", render.Inline(a.Status, 64))
	}
	if err := c.record.change(ctx, func(r *mailbox.Agent) { r.DND = a.Status == client.StatusDND }); err != nil {
		return nil, err
	}
	defer c.nudge() // what dnd has held back
	return c.changeCard(ctx, "Your status is "+a.Status+".", func(cl *client.Client) error { return cl.SetStatus(ctx, a.Status) })
}

func joinGroup(ctx context.Context, c *call) (*result, error) {
	var a struct {
		Name string `json:"name"`
		Role string `json:"role"`
	}
	if err := arguments(c, &a); err != nil {
		return nil, err
	}
	name := strings.TrimPrefix(a.Name, "@")
	if name == "all" {
		return nil, badArgument("@all is everyone; choose another name")
	}
	said := "You are in @" + render.Inline(name, 64)
	if a.Role != "" {
		said += " as " + render.Inline(a.Role, 64)
	}
	return c.changeCard(ctx, said+".", func(cl *client.Client) error { return cl.JoinGroup(ctx, name, a.Role) })
}

func leaveGroup(ctx context.Context, c *call) (*result, error) {
	var a struct {
		Name string `json:"name"`
	}
	if err := arguments(c, &a); err != nil {
		return nil, err
	}
	name, was := strings.TrimPrefix(a.Name, "@"), false
	r, err := c.changeCard(ctx, "You have left @"+render.Inline(name, 64)+".", func(cl *client.Client) error {
		in, err := cl.LeaveGroup(ctx, name)
		was = was || in
		return err
	})
	if err == nil && !was {
		return nil, &failure{
			Code: "not_found", Message: "you are not in @" + render.Inline(name, 64),
			Hint: "list_peers shows your groups beside the entry that is you.",
		}
	}
	return r, err
}

// changeCard changes this session's card on every mesh and says where it is seen.
func (c *call) changeCard(ctx context.Context, said string, change func(*client.Client) error) (*result, error) {
	c.settle(ctx, c.set)
	data := selfResult{OK: true, ShownTo: []string{}}
	for _, cl := range c.set {
		online := cl.State().Online
		err := change(cl)
		switch {
		case err == nil && online:
			data.ShownTo = append(data.ShownTo, cl.Mesh())
		case err == nil, refusedNot(err):
			data.Pending = append(data.Pending, cl.Mesh())
		default:
			return nil, err
		}
	}
	text := said
	if len(data.ShownTo) > 0 {
		text += " Shown to: " + strings.Join(data.ShownTo, ", ") + "."
	}
	if len(data.Pending) > 0 {
		text += fmt.Sprintf(" Offline now: %s; shown there on connection.", strings.Join(data.Pending, ", "))
	}
	return &result{text: text, data: data}, nil
}

// refusedNot reports whether a card was changed here and only not shown.
func refusedNot(err error) bool {
	var f *client.Fault
	return !errors.As(err, &f) && !errors.Is(err, context.Canceled)
}
