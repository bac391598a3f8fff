package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/mailbox"
)

func (a *app) blockCommand() *cli.Command {
	return command(spec{
		name: "block", usage: "take no messages from a member", args: "NAME|KEY", min: 1, max: 1,
		about: "On this machine, by the member's key: nothing of it reaches an agent any more, also of what has come\n" +
			"and is unread. The broker is told, and refuses it at once; the member is told that it is blocked.",
		example: "claudemesh block carol",
		run:     func(ctx context.Context, c *cli.Command) error { return a.setBlock(ctx, c, true) },
	})
}

func (a *app) unblockCommand() *cli.Command {
	return command(spec{
		name: "unblock", usage: "take messages from a member again", args: "NAME|KEY", min: 1, max: 1,
		example: "claudemesh unblock carol",
		run:     func(ctx context.Context, c *cli.Command) error { return a.setBlock(ctx, c, false) },
	})
}

func (a *app) grantCommand() *cli.Command {
	c := command(spec{
		name: "grant", usage: "show or set what a member's messages may do here", args: "NAME|KEY [LEVEL|GRANTS]", min: 1, max: 2,
		about: "LEVEL is quarantine (nothing enters an agent by itself), normal (the default) or trusted. GRANTS is\n" +
			"some of dm, broadcast, now and wake, with commas, or none; +now adds one, no-wake takes one away.\n" +
			"Without dm or broadcast such messages are refused; without now a message of priority now counts as\n" +
			"next; without wake it wakes nobody.\n" +
			"It holds on this machine, for the member's key, at once, in sessions that run too.",
		example: "claudemesh grant bob trusted\nclaudemesh grant carol +now,no-wake\nclaudemesh grant bob",
		run:     a.runGrant,
	})
	c.ShellComplete = func(ctx context.Context, c *cli.Command) {
		cli.DefaultCompleteWithFlags(ctx, c)
		if c.Args().Len() == 1 {
			a.printf("%s\n", strings.Join(levelNames(), "\n"))
		}
	}
	return c
}

// trusted is what is granted to a member, as grant and block print it.
type trusted struct {
	Mesh     string          `json:"mesh"`
	Name     string          `json:"name"`
	Pubkey   string          `json:"pubkey"`
	Level    mailbox.Level   `json:"level"`
	Grants   []mailbox.Grant `json:"grants"`
	Blocked  bool            `json:"blocked"`
	Verified *string         `json:"verifiedAt"`
}

func trustedOf(mesh string, m client.Member, t mailbox.Trust) trusted {
	return trusted{mesh, m.Name, m.Key.String(), t.Level, append([]mailbox.Grant{}, t.Grants...), t.Blocked, stampMs(t.Verified)}
}

// knownMember opens one mesh, as far as its broker answers, and finds another
// member by name or key.
func (a *app) knownMember(ctx context.Context, name string) (*station, *client.Client, client.Member, error) {
	p, membership, err := a.oneMembership()
	if err != nil {
		return nil, nil, client.Member{}, err
	}
	s, err := a.connect(ctx, p, []client.Membership{membership}, client.Observer)
	if err != nil {
		return nil, nil, client.Member{}, err
	}
	cl := s.clients[0]
	m, err := findMember(cl.Members(), name)
	switch {
	case s.refusal() != nil:
		err = s.refusal()
	case err == nil && m.Self:
		err = &failure{code: "self", exit: exitRefused, text: "that is you", hint: "claudemesh members lists the others"}
	}
	if err != nil {
		s.end(ctx)
		return nil, nil, m, err
	}
	return s, cl, m, nil
}

func (a *app) setBlock(ctx context.Context, c *cli.Command, on bool) error {
	s, cl, m, err := a.knownMember(ctx, c.Args().First())
	if err != nil {
		return err
	}
	defer s.end(ctx)
	was := false
	t, err := s.box.ChangeTrust(ctx, cl.MeshID(), m.Key, time.Now().UnixMilli(), func(t *mailbox.Trust) error {
		was, t.Blocked = t.Blocked, on
		return nil
	})
	if err != nil {
		return err
	}
	told := cl.Block(ctx, m.Key, on)
	if a.json {
		a.printJSON(struct {
			trusted
			Told bool `json:"brokerTold"`
		}{trustedOf(cl.Mesh(), m, t), told == nil})
		return nil
	}
	said := map[bool]string{true: "blocked", false: "not blocked any more"}[on]
	if was == on {
		said = map[bool]string{true: "blocked already", false: "not blocked"}[on]
	}
	a.printf("%s is %s here\n", m.Name, said)
	if told != nil {
		a.note("the broker is not told yet (%s); it holds here all the same", reasonOf(told))
	}
	return nil
}

func (a *app) runGrant(ctx context.Context, c *cli.Command) error {
	grant, err := parseGrant(c.Args().Get(1))
	if err != nil {
		return err
	}
	s, cl, m, err := a.knownMember(ctx, c.Args().First())
	if err != nil {
		return err
	}
	defer s.end(ctx)
	t, err := s.box.Trust(ctx, cl.MeshID(), m.Key)
	if err == nil && grant != nil {
		t, err = s.box.ChangeTrust(ctx, cl.MeshID(), m.Key, time.Now().UnixMilli(), func(t *mailbox.Trust) error { grant(t); return nil })
	}
	if err != nil {
		return err
	}
	if a.json {
		a.printJSON(trustedOf(cl.Mesh(), m, t))
		return nil
	}
	a.printf("%s: %s\n", m.Name, describeTrust(t))
	if said := unheard(t); said != "" {
		a.note("%s: %s", m.Name, said)
	}
	return nil
}

func describeTrust(t mailbox.Trust) string {
	names := []string{"none"}
	if len(t.Grants) > 0 {
		names = names[:0]
		for _, g := range t.Grants {
			names = append(names, string(g))
		}
	}
	text := fmt.Sprintf("%s (%s)", t.Level, strings.Join(names, ", "))
	if t.Blocked {
		text += ", blocked"
	}
	if t.Verified > 0 {
		text += ", verified " + time.UnixMilli(t.Verified).Local().Format("2006-01-02")
	}
	return text
}

func levelNames() (names []string) {
	for _, l := range mailbox.Levels {
		names = append(names, string(l))
	}
	return names
}

// parseGrant reads a level, or a list of grants: those that there are to be, or
// changes of those there are. It returns what it makes of what is known; nil for "".
func parseGrant(text string) (func(*mailbox.Trust), error) {
	switch level := mailbox.Level(text); {
	case text == "":
		return nil, nil
	case slices.Contains(mailbox.Levels, level):
		return func(t *mailbox.Trust) { t.Level, t.Grants = level, nil }, nil
	case text == "none":
		return func(t *mailbox.Trust) { t.Level, t.Grants = mailbox.Normal, []mailbox.Grant{} }, nil
	}
	var plain, more, less []mailbox.Grant
	for word := range strings.SplitSeq(text, ",") {
		word = strings.TrimSpace(word)
		list := &plain
		if rest, ok := strings.CutPrefix(word, "+"); ok {
			list, word = &more, rest
		} else if rest, ok := strings.CutPrefix(word, "no-"); ok {
			list, word = &less, rest
		}
		if !slices.Contains(mailbox.AllGrants, mailbox.Grant(word)) {
			return nil, usagef("%q is neither a level nor a grant", word).
				hinted("one of: " + strings.Join(levelNames(), ", ") + "; or some of dm,broadcast,now,wake; or +now, no-wake and the like; or none")
		}
		*list = append(*list, mailbox.Grant(word))
	}
	if len(plain) > 0 && len(more)+len(less) > 0 {
		return nil, usagef("%q says both what there is to be and what changes", text).hinted("+now,no-wake changes two; dm,now sets them all")
	}
	return func(t *mailbox.Trust) {
		next := append(slices.Clone(plain), more...)
		if len(plain) == 0 {
			next = append(next, t.Grants...)
		}
		next = slices.DeleteFunc(next, func(g mailbox.Grant) bool { return slices.Contains(less, g) })
		t.Level, t.Grants = mailbox.Normal, next
		if !slices.ContainsFunc(mailbox.AllGrants, func(g mailbox.Grant) bool { return !slices.Contains(next, g) }) {
			t.Level = mailbox.Trusted
		}
	}, nil
}

// unheard says which kinds of messages are refused now.
func unheard(t mailbox.Trust) string {
	dm, broadcast := t.May(mailbox.GrantDM), t.May(mailbox.GrantBroadcast)
	switch {
	case !dm && !broadcast:
		return "all its messages are refused here"
	case !dm:
		return "its direct messages are refused here"
	case !broadcast && t.Level != mailbox.Quarantine:
		return "its messages to groups and to all are refused here"
	}
	return ""
}
