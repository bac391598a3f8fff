package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/audit"
	"github.com/claudemesh/claudemesh/internal/render"
	"github.com/claudemesh/claudemesh/internal/trust"
)

func (a *app) promoteCommand() *cli.Command {
	return command(spec{
		name: "promote", usage: "make a member an admin", args: "NAME|KEY", min: 1, max: 1,
		about:   "An admin invites members, removes plain ones, kicks, and pauses the mesh. Only the owner promotes.",
		example: "claudemesh members promote bob",
		run:     func(ctx context.Context, c *cli.Command) error { return a.setRole(ctx, c, trust.RoleAdmin) },
	})
}

func (a *app) demoteCommand() *cli.Command {
	return command(spec{
		name: "demote", usage: "make an admin a plain member", args: "NAME|KEY", min: 1, max: 1,
		about:   "Whom it has admitted stays; its open invites are closed. Only the owner demotes.",
		example: "claudemesh members demote bob",
		run:     func(ctx context.Context, c *cli.Command) error { return a.setRole(ctx, c, trust.RoleMember) },
	})
}

func (a *app) removeCommand() *cli.Command {
	reasons := strings.Join(othersReasons(), ", ")
	return command(spec{
		name: "remove", usage: "take a member out of the mesh", args: "NAME|KEY", min: 1, max: 1,
		about: "Closes its connections, voids what waits for it, and gives those who stay a new mesh key. Its key\n" +
			"never comes back; a person needs a new invite. Open invites that hold the old key are void; they are\n" +
			"listed, to be made again.",
		example: "claudemesh members remove carol --reason lost --yes",
		flags: []cli.Flag{
			&cli.StringFlag{Name: "reason", Usage: "the `REASON`; the others are told one of " + reasons + ", other words stay in your audit log", Value: trust.ReasonRemoved}, yesFlag(),
		},
		run: a.runRemove,
	})
}

// maxReason bounds a reason in words of one's own.
const maxReason = 200

// othersReasons are those for which one removes another.
func othersReasons() []string {
	return slices.DeleteFunc(slices.Clone(trust.Reasons), func(r string) bool { return r == trust.ReasonLeft })
}

func (a *app) kickCommand() *cli.Command {
	return command(spec{
		name: "kick", usage: "close a member's connections", args: "NAME|KEY", min: 1, max: 1,
		about:   "It stays a member, and connects again within half a minute: claudemesh members remove takes it out.",
		example: "claudemesh members kick carol",
		run:     a.runKick,
	})
}

// otherMember connects and finds the member that the first argument names, which
// is not oneself.
func (a *app) otherMember(ctx context.Context, c *cli.Command) (*station, *client.Client, client.Member, error) {
	s, cl, err := a.connectOne(ctx, client.Observer)
	if err != nil {
		return nil, nil, client.Member{}, err
	}
	m, err := findMember(cl.Members(), c.Args().First())
	if err == nil && m.Self {
		err = &failure{code: "self", exit: exitRefused, text: "that is you", hint: "claudemesh leave " + cl.Mesh()}
	}
	if err != nil {
		s.end(ctx)
		return nil, nil, m, err
	}
	return s, cl, m, nil
}

func (a *app) setRole(ctx context.Context, c *cli.Command, role string) error {
	s, cl, m, err := a.otherMember(ctx, c)
	if err != nil {
		return err
	}
	defer s.end(ctx)
	if m.Role == trust.RoleOwner {
		return &failure{code: "forbidden", exit: exitRefused, text: "the owner's role does not change", hint: "claudemesh members"}
	}
	was := m.Role
	if was != role {
		if err := cl.SetRole(ctx, m.Key, role); err != nil {
			return ofMember(m, err)
		}
	}
	switch {
	case a.json:
		a.printJSON(map[string]any{"mesh": cl.Mesh(), "name": m.Name, "pubkey": m.Key.String(), "role": role, "was": was})
	case was == role:
		a.printf("%s is %s already\n", m.Name, role)
	default:
		a.printf("%s is now %s in %s\n", m.Name, role, cl.Mesh())
	}
	return nil
}

// ofMember says who is gone.
func ofMember(m client.Member, err error) error {
	if errors.Is(err, client.ErrGone) {
		return &failure{
			code: "gone", exit: exitNotFound, text: m.Name + " " + client.ErrGone.Error(),
			hint: "claudemesh members lists who is; somebody else may have been quicker",
		}
	}
	return err
}

func (a *app) runRemove(ctx context.Context, c *cli.Command) error {
	reason, told := c.String("reason"), trust.ReasonRemoved
	if slices.Contains(othersReasons(), reason) {
		told = reason
	} else if len(reason) > maxReason {
		return usagef("--reason has at most %d bytes", maxReason).hinted("--reason " + trust.ReasonLost)
	}
	s, cl, m, err := a.otherMember(ctx, c)
	if err != nil {
		return err
	}
	defer s.end(ctx)
	if err := a.sure(ctx, c.Bool("yes"), fmt.Sprintf("Remove %s (%s) from %s?", m.Name, keyPrint(m.Key), cl.Mesh())); err != nil {
		return err
	}
	voided, err := cl.Remove(ctx, m.Key, told)
	if err != nil {
		return ofMember(m, err)
	}
	if reason != told {
		err := s.box.Record(ctx, audit.Entry{
			At: time.Now().UnixMilli(), Event: audit.Removed, Mesh: cl.MeshID(), Member: m.Key, Code: told, Note: reason,
		})
		if err != nil {
			return err
		}
	}
	ids := []string{}
	for _, id := range voided {
		ids = append(ids, id.String())
	}
	if a.json {
		a.printJSON(map[string]any{
			"mesh": cl.Mesh(), "removed": map[string]string{"name": m.Name, "pubkey": m.Key.String()}, "reason": reason, "voidedInvites": ids,
		})
		return nil
	}
	a.printf("removed %s from %s; the others have a new mesh key\n", m.Name, cl.Mesh())
	if len(ids) > 0 {
		a.printf("void with it, make them again: %s\n", strings.Join(ids, " "))
	}
	return nil
}

func (a *app) runKick(ctx context.Context, c *cli.Command) error {
	s, cl, m, err := a.otherMember(ctx, c)
	if err != nil {
		return err
	}
	defer s.end(ctx)
	if err := cl.Kick(ctx, m.Key); err != nil {
		return err
	}
	if a.json {
		a.printJSON(map[string]any{"mesh": cl.Mesh(), "kicked": map[string]string{"name": m.Name, "pubkey": m.Key.String()}, "mayReconnect": true})
		return nil
	}
	a.printf("closed the connections of %s; it is still a member and may connect again\n", m.Name)
	a.printf("to keep it out: claudemesh members remove %s\n", m.Name)
	return nil
}

func (a *app) pauseCommand() *cli.Command {
	return command(spec{
		name: "pause", usage: "stop all messages of the mesh for a while",
		about: "For when agents run wild: until then nobody's messages are taken, and none that has come enters\n" +
			"an agent. People still read theirs with claudemesh inbox. Any admin pauses, and any admin ends it.",
		example: "claudemesh pause --for 2h\nclaudemesh resume",
		flags:   []cli.Flag{&cli.StringFlag{Name: "for", Usage: "how long, as `TIME`, at most 30d", Value: "1h"}},
		run:     a.runPause,
	})
}

func (a *app) resumeCommand() *cli.Command {
	return command(spec{
		name: "resume", usage: "let the messages of a paused mesh go on",
		example: "claudemesh resume", run: a.runResume,
	})
}

func (a *app) runPause(ctx context.Context, c *cli.Command) error {
	span, err := flagSpan("for", c.String("for"), time.Second, client.MaxPause)
	if err != nil {
		return err
	}
	s, cl, err := a.connectOne(ctx, client.Observer)
	if err != nil {
		return err
	}
	defer s.end(ctx)
	until, err := cl.Pause(ctx, span)
	if err != nil {
		return err
	}
	if a.json {
		a.printJSON(map[string]any{"mesh": cl.Mesh(), "paused": true, "until": stamp(until)})
		return nil
	}
	a.printf("%s is paused until %s; claudemesh resume ends it before\n", cl.Mesh(), render.Clock(until, time.Now()))
	return nil
}

func (a *app) runResume(ctx context.Context, _ *cli.Command) error {
	s, cl, err := a.connectOne(ctx, client.Observer)
	if err != nil {
		return err
	}
	defer s.end(ctx)
	was, err := cl.Resume(ctx)
	if err != nil {
		return err
	}
	switch {
	case a.json:
		a.printJSON(map[string]any{"mesh": cl.Mesh(), "paused": false, "was": was})
	case was:
		a.printf("the messages of %s go on\n", cl.Mesh())
	default:
		a.printf("%s is not paused\n", cl.Mesh())
	}
	return nil
}
