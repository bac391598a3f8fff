package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/trust"
)

func (a *app) joinCommand() *cli.Command {
	return command(spec{
		name: "join", usage: "join a mesh by an invite link", args: "LINK|-", min: 1, max: 1,
		about: "Shows who invites to what, asks on a terminal, and joins. With - the link is read from\n" +
			"standard input and stays out of the shell's history. Both forms of the link are taken.",
		example: "claudemesh join ic://join/eyJ2Ijoy... --as bob\npbpaste | claudemesh join -",
		flags: []cli.Flag{
			asFlag(), yesFlag(), insecureFlag(), keyringFlag(),
		},
		run: a.runJoin,
	})
}

func (a *app) runJoin(ctx context.Context, c *cli.Command) error {
	link := c.Args().First()
	fromInput := link == "-"
	if fromInput {
		var err error
		if link, err = readLine(a.input(ctx)); err != nil {
			return err
		}
	}
	_, name, err := names("mesh", c.String("as"))
	if err != nil {
		return err
	}
	p, err := a.profile()
	if err != nil {
		return err
	}
	if err := a.checkLink(link, c.Bool("insecure")); err != nil {
		return err
	}
	inv, err := client.LookUp(ctx, link, c.Bool("insecure"))
	if err != nil {
		return joinError(err)
	}
	if err := notYetJoined(p, inv.Mesh, inv.MeshID); err != nil {
		return err
	}
	if err := checkKeyring(c.Bool("keyring")); err != nil {
		return err
	}
	a.showInvitation(inv, name)
	if _, ok := a.terminal(); ok && !fromInput && !c.Bool("yes") {
		if yes, err := a.confirm(ctx, "Join "+inv.Mesh+"?"); err != nil || !yes {
			return &failure{code: "declined", exit: exitFailed, text: "not joined; the link was not spent"}
		}
	}
	m, err := inv.Join(ctx, name)
	if err != nil {
		return joinError(err)
	}
	m.Insecure = c.Bool("insecure")
	if err := keep(p, m, c.Bool("keyring")); err != nil {
		return fmt.Errorf("%s admitted you, but it could not be stored; ask for %s to be removed and for a new link: %w", m.Mesh, name, err)
	}
	if a.json {
		a.printJSON(joinedOf(m))
		return nil
	}
	a.printf("joined %s as %s\n", m.Mesh, m.Member)
	a.printf("next: claudemesh install, then claudemesh peers\n")
	return nil
}

// checkLink refuses a damaged link, and a broker that is not to be talked to in
// the open, before anything leaves this machine.
func (a *app) checkLink(link string, insecure bool) error {
	l, err := trust.ParseLink(link)
	if err != nil {
		return &failure{code: "bad_link", exit: exitUsage, text: err.Error(), hint: "ask for the link again and copy it whole"}
	}
	if err := client.CheckBroker(l.Broker, insecure); err != nil {
		return insecureBroker(err)
	}
	return nil
}

// joinError gives errors of the join their own hints: --broker is none of its flags.
func joinError(err error) error {
	f := explain(err)
	if f.code == "unreachable" {
		f.hint = "the same link later; it was not spent"
	}
	return f
}

// showInvitation says what was verified of an invitation.
func (a *app) showInvitation(inv *client.Invitation, name string) {
	fmt.Fprintf(a.errw, "mesh         %s\ninvited by   %s\nrole         %s\nyour name    %s\nbroker       %s\nfingerprint  %s\n",
		inv.Mesh, inv.Inviter, inv.Role, name, inv.Broker, inv.Fingerprint)
	fmt.Fprintln(a.errw, "The inviter sees the same fingerprint with: claudemesh list")
}
