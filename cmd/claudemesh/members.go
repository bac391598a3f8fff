package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/render"
)

func (a *app) membersCommand() *cli.Command {
	return command(spec{
		name: "members", usage: "list who belongs to the mesh, change roles, remove",
		about: "BY is who issued the invite that the member came by. The fingerprint is of the member's key:\n" +
			"claudemesh verify NAME compares keys by a number that both sides see.",
		example: "claudemesh members\nclaudemesh members promote bob\nclaudemesh members remove carol --reason lost",
		run:     a.runMembers,
		sub:     []*cli.Command{a.promoteCommand(), a.demoteCommand(), a.removeCommand(), a.kickCommand()},
	})
}

// member is one as members --json prints it.
type member struct {
	Mesh        string  `json:"mesh"`
	Name        string  `json:"name"`
	Role        string  `json:"role"`
	Pubkey      string  `json:"pubkey"`
	Fingerprint string  `json:"fingerprint"`
	Self        bool    `json:"self"`
	JoinedAt    *string `json:"joinedAt"`
	InvitedBy   string  `json:"invitedBy"`
	Invite      string  `json:"invite"`
	Online      bool    `json:"online"`
	LastSeen    *string `json:"lastSeen"`
	Level       string  `json:"level"`
	Blocked     bool    `json:"blocked"`
	Verified    bool    `json:"verified"`
}

func memberOf(mesh string, m client.Member, t mailbox.Trust) member {
	out := member{
		Level: string(cmp.Or(t.Level, mailbox.Normal)), Blocked: t.Blocked, Verified: t.Verified > 0,
		Mesh: mesh, Name: m.Name, Role: m.Role, Pubkey: m.Key.String(), Fingerprint: keyPrint(m.Key), Self: m.Self,
		JoinedAt: stampMs(m.Joined), InvitedBy: m.Issuer, Online: m.Online, LastSeen: stamp(m.LastSeen),
	}
	if !m.Invite.IsZero() {
		out.Invite = m.Invite.String()
	}
	return out
}

// keyPrint is the first 16 digits of a key, in groups of four, for people to compare.
func keyPrint(k client.Key) string {
	s := short(k)
	return strings.Join([]string{s[:4], s[4:8], s[8:12], s[12:]}, " ")
}

func (a *app) runMembers(ctx context.Context, _ *cli.Command) error {
	s, err := a.observe(ctx)
	if err != nil {
		return err
	}
	defer s.end(ctx)
	trusts, err := s.trusts(ctx)
	if err != nil {
		return err
	}
	out := []member{}
	rows := [][]string{{"NAME", "ROLE", "JOINED", "BY", "LAST SEEN", "FINGERPRINT", ""}}
	for i, cl := range s.clients {
		if s.errs[i] != nil {
			a.note("%s: this is what was last known: %s", cl.Mesh(), reasonOf(s.errs[i]))
		}
		if _, _, err := cl.Peers(ctx, true); err != nil { // they say who was seen when
			return err
		}
		for _, m := range cl.Members() {
			out = append(out, memberOf(cl.Mesh(), m, trusts.of(cl.MeshID(), m.Key)))
			rows = append(rows, memberRow(cl.Mesh(), m, trusts.marks(cl.MeshID(), m.Key), len(s.clients) > 1))
		}
	}
	if a.json {
		a.printJSON(out)
		return nil
	}
	a.table(rows)
	return nil
}

func memberRow(mesh string, m client.Member, marks []string, several bool) []string {
	name, by, seen := m.Name, m.Issuer, "never"
	if several {
		name = mesh + ":" + name
	}
	if by == "" {
		by = "founder"
	}
	switch {
	case m.Self:
		seen, marks = "now", []string{"(you)"}
	case m.Online:
		seen = "now"
	case !m.LastSeen.IsZero():
		seen = render.Clock(m.LastSeen, time.Now())
	}
	return []string{name, m.Role, time.UnixMilli(m.Joined).Local().Format("2006-01-02"), by, seen, keyPrint(m.Key), strings.Join(marks, ", ")}
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
