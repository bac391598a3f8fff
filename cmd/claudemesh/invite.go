package main

import (
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/qrcode"
)

const (
	maxInviteAge  = 90 * day
	maxInviteUses = 10_000
)

func (a *app) inviteCommand() *cli.Command {
	return command(spec{
		name: "invite", usage: "make a link with which others join",
		about: "The link is a secret: who has it can join, as often as --uses says. It is printed alone on\n" +
			"standard output; nobody, the broker included, can show it again.",
		example: "claudemesh invite --uses 5 --expires 12h",
		flags: []cli.Flag{
			&cli.StringFlag{Name: "role", Usage: "the `ROLE` of who joins: member, or by the owner admin", Value: "member"},
			&cli.IntFlag{Name: "uses", Usage: "how many `N` may join with it", Value: 1},
			&cli.StringFlag{Name: "expires", Usage: "the `TIME` after which it is void, at most 90d", Value: "7d"},
			&cli.BoolFlag{Name: "qr", Usage: "also draw the link as a QR code"},
		},
		run: a.runInvite,
	})
}

func (a *app) runInvite(ctx context.Context, c *cli.Command) error {
	role, uses := c.String("role"), c.Int("uses")
	age, err := flagSpan("expires", c.String("expires"), time.Second, maxInviteAge)
	switch {
	case err != nil:
		return err
	case role != "member" && role != "admin":
		return usagef("--role is member or admin, not %q", role).hinted("--role member")
	case uses < 1 || uses > maxInviteUses:
		return usagef("--uses is from 1 to %d, not %d", maxInviteUses, uses).hinted("--uses 5")
	}
	s, cl, err := a.connectOne(ctx, client.Observer)
	if err != nil {
		return err
	}
	defer s.end(ctx)
	inv, err := cl.NewInvite(ctx, role, uses, age)
	if err != nil {
		return err
	}
	if a.json {
		a.printJSON(struct {
			Link      string  `json:"link"`
			URL       string  `json:"url"`
			ID        string  `json:"id"`
			Role      string  `json:"role"`
			Uses      int     `json:"uses"`
			ExpiresAt *string `json:"expiresAt"`
		}{inv.Link, inv.Web, inv.ID.String(), inv.Role, inv.MaxUses, stamp(inv.Expires)})
		return nil
	}
	a.printf("%s\n", inv.Link)
	if c.Bool("qr") {
		code, err := qrcode.Draw(inv.Link)
		if err != nil {
			return err
		}
		a.printf("%s", code)
	}
	fmt.Fprintf(a.errw, "The link above lets %s join %s as %s until %s. Send it by a private channel.\n",
		plural(inv.MaxUses, "person"), cl.Mesh(), inv.Role, inv.Expires.Local().Format("2006-01-02 15:04"))
	fmt.Fprintf(a.errw, "For a browser: %s\n", inv.Web)
	fmt.Fprintf(a.errw, "There: claudemesh join -    Undo: claudemesh invites revoke %s\n", inv.ID)
	return nil
}

func (a *app) invitesCommand() *cli.Command {
	return command(spec{
		name: "invites", usage: "list the invites of a mesh, or revoke one",
		example: "claudemesh invites", run: a.runInvites,
		sub: []*cli.Command{command(spec{
			name: "revoke", usage: "close an invite; who came by it stays", args: "ID", min: 1, max: 1,
			example: "claudemesh invites revoke 4be1", run: a.runRevoke,
			about: "ID is the invite's id as listed, or its first digits.",
		})},
	})
}

func (a *app) runInvites(ctx context.Context, _ *cli.Command) error {
	s, cl, err := a.connectOne(ctx, client.Observer)
	if err != nil {
		return err
	}
	defer s.end(ctx)
	list, err := cl.Invites(ctx)
	if err != nil {
		return err
	}
	type invite struct {
		ID        string  `json:"id"`
		Role      string  `json:"role"`
		State     string  `json:"state"`
		Used      int     `json:"used"`
		Uses      int     `json:"uses"`
		Issuer    string  `json:"issuer"`
		CreatedAt *string `json:"createdAt"`
		ExpiresAt *string `json:"expiresAt"`
	}
	out := []invite{}
	rows := [][]string{{"ID", "STATE", "USED", "ROLE", "BY", "EXPIRES"}}
	for _, i := range list {
		out = append(out, invite{i.ID.String(), i.Role, i.State, i.Uses, i.MaxUses, i.Issuer, stamp(i.Created), stamp(i.Expires)})
		rows = append(rows, []string{
			i.ID.String(), i.State, fmt.Sprintf("%d of %d", i.Uses, i.MaxUses), i.Role, i.Issuer,
			i.Expires.Local().Format("2006-01-02 15:04"),
		})
	}
	switch {
	case a.json:
		a.printJSON(out)
	case len(list) == 0:
		a.note("%s has no invites; claudemesh invite makes one", cl.Mesh())
	default:
		a.table(rows)
	}
	return nil
}

func (a *app) runRevoke(ctx context.Context, c *cli.Command) error {
	s, cl, err := a.connectOne(ctx, client.Observer)
	if err != nil {
		return err
	}
	defer s.end(ctx)
	list, err := cl.Invites(ctx)
	if err != nil {
		return err
	}
	inv, err := findInvite(list, c.Args().First())
	if err != nil {
		return err
	}
	if err := cl.CloseInvite(ctx, inv.ID); err != nil {
		return err
	}
	if a.json {
		a.printJSON(map[string]any{"mesh": cl.Mesh(), "revoked": inv.ID.String()})
		return nil
	}
	a.printf("revoked %s; nobody joins %s by it any more\n", inv.ID, cl.Mesh())
	return nil
}

// findInvite finds an invite by its id or the first digits of it.
func findInvite(list []client.Invite, id string) (client.Invite, error) {
	var hits []client.Invite
	for _, i := range list {
		if len(id) >= 4 && len(id) <= 32 && i.ID.String()[:len(id)] == id {
			hits = append(hits, i)
		}
	}
	switch len(hits) {
	case 1:
		return hits[0], nil
	case 0:
		return client.Invite{}, &failure{
			code: "not_found", exit: exitNotFound, text: fmt.Sprintf("there is no invite %q", id),
			hint: "claudemesh invites lists them; give at least 4 digits",
		}
	}
	return client.Invite{}, &failure{
		code: "ambiguous", exit: exitAmbiguous, text: fmt.Sprintf("%d invites start with %q", len(hits), id), hint: "give more digits",
	}
}
