package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/client"
)

func (a *app) membersCommand() *cli.Command {
	return command(spec{
		name: "members", usage: "list who belongs to the mesh, or remove one",
		example: "claudemesh members", run: a.runMembers,
		sub: []*cli.Command{command(spec{
			name: "remove", usage: "take a member out of the mesh", args: "NAME|KEY", min: 1, max: 1,
			about: "Gives those who stay a new mesh key. Open invites that hold the old one are void; they are\n" +
				"listed, to be made again.",
			example: "claudemesh members remove carol --yes",
			flags:   []cli.Flag{yesFlag()},
			run:     a.runRemove,
		})},
	})
}

// member is one as members --json prints it.
type member struct {
	Mesh     string  `json:"mesh"`
	Name     string  `json:"name"`
	Role     string  `json:"role"`
	Pubkey   string  `json:"pubkey"`
	Self     bool    `json:"self"`
	JoinedAt *string `json:"joinedAt"`
}

func (a *app) runMembers(ctx context.Context, _ *cli.Command) error {
	s, err := a.observe(ctx)
	if err != nil {
		return err
	}
	defer s.end(ctx)
	out := []member{}
	rows := [][]string{{"NAME", "ROLE", "JOINED", "KEY", ""}}
	for i, cl := range s.clients {
		if s.errs[i] != nil {
			a.note("%s: this is what was last known: %s", cl.Mesh(), reasonOf(s.errs[i]))
		}
		for _, m := range cl.Members() {
			out = append(out, member{cl.Mesh(), m.Name, m.Role, m.Key.String(), m.Self, stampMs(m.Joined)})
			name, you := m.Name, ""
			if len(s.clients) > 1 {
				name = cl.Mesh() + ":" + name
			}
			if m.Self {
				you = "(you)"
			}
			rows = append(rows, []string{name, m.Role, time.UnixMilli(m.Joined).Local().Format("2006-01-02"), short(m.Key), you})
		}
	}
	if a.json {
		a.printJSON(out)
		return nil
	}
	a.table(rows)
	return nil
}

func (a *app) runRemove(ctx context.Context, c *cli.Command) error {
	s, cl, err := a.connectOne(ctx, client.Observer)
	if err != nil {
		return err
	}
	defer s.end(ctx)
	m, err := findMember(cl.Members(), c.Args().First())
	if err != nil {
		return err
	}
	if m.Self {
		return &failure{code: "self", exit: exitRefused, text: "that is you", hint: "claudemesh leave " + cl.Mesh()}
	}
	if err := a.sure(ctx, c.Bool("yes"), fmt.Sprintf("Remove %s (%s) from %s?", m.Name, short(m.Key), cl.Mesh())); err != nil {
		return err
	}
	voided, err := cl.Remove(ctx, m.Key)
	if err != nil {
		return err
	}
	ids := []string{}
	for _, id := range voided {
		ids = append(ids, id.String())
	}
	if a.json {
		a.printJSON(map[string]any{
			"mesh": cl.Mesh(), "removed": map[string]string{"name": m.Name, "pubkey": m.Key.String()}, "voidedInvites": ids,
		})
		return nil
	}
	a.printf("removed %s from %s; the others have a new mesh key\n", m.Name, cl.Mesh())
	if len(ids) > 0 {
		a.printf("void with it, make them again: %s\n", strings.Join(ids, " "))
	}
	return nil
}

// findMember finds a member by name, or by 8 and more digits of its key.
func findMember(all []client.Member, target string) (client.Member, error) {
	var hits []client.Member
	var names []string
	var candidates []client.Peer
	for _, m := range all {
		names = append(names, m.Name)
		if m.Name == target {
			return m, nil
		}
		if len(target) >= 8 && strings.HasPrefix(m.Key.String(), target) {
			hits = append(hits, m)
			candidates = append(candidates, client.Peer{Key: m.Key, Member: m.Key, Name: m.Name, Role: client.Person})
		}
	}
	switch len(hits) {
	case 1:
		return hits[0], nil
	case 0:
		f := &failure{
			code: "not_found", exit: exitNotFound, text: fmt.Sprintf("no member is called %q", target),
			hint: "claudemesh members lists them",
		}
		if near := nearest(target, names); near != "" {
			f.hint = near
		}
		return client.Member{}, f
	}
	return client.Member{}, &failure{
		code: "ambiguous", exit: exitAmbiguous, text: fmt.Sprintf("%q could be any of %d members", target, len(hits)),
		hint: "use one of these keys", candidates: candidates,
	}
}
