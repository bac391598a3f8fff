package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/profile"
	"github.com/claudemesh/claudemesh/internal/wire"
)

func (a *app) listCommand() *cli.Command {
	return command(spec{
		name: "list", usage: "list the meshes that were joined", example: "claudemesh list", run: a.runList,
	})
}

// listed is a mesh as status prints it.
type listed struct {
	Mesh     string  `json:"mesh"`
	MeshID   string  `json:"meshId"`
	Member   string  `json:"member"`
	Pubkey   string  `json:"pubkey"`
	Role     string  `json:"role"`
	Broker   string  `json:"broker"`
	JoinedAt *string `json:"joinedAt"`
}

// listedEntry is a mesh as list and whoami print it, which say where its keys are.
type listedEntry struct {
	listed
	Keys string `json:"keys"` // file or keyring
}

func listedEntryOf(e profile.Entry) listedEntry {
	l := listedEntry{listed{e.Mesh, e.MeshID.String(), e.Member, e.MemberKey().String(), e.Role, e.Broker, stampMs(e.Joined)}, "file"}
	if e.Keyring != nil {
		l.Keys = "keyring"
	}
	return l
}

func listedOf(m client.Membership) listed {
	return listed{m.Mesh, m.MeshID.String(), m.Member, m.MemberKey().String(), m.Role, m.Broker, stampMs(m.Joined)}
}

func (a *app) runList(context.Context, *cli.Command) error {
	_, meshes, err := a.entries()
	if errors.Is(err, errNothingJoined) && a.mesh == "" {
		if a.json {
			a.printJSON([]listedEntry{})
			return nil
		}
		a.note("no mesh was joined here; %s", joinHint)
		return nil
	}
	if err != nil {
		return err
	}
	out := []listedEntry{}
	rows := [][]string{{"MESH", "MEMBER", "ROLE", "JOINED", "BROKER", "KEYS", "FINGERPRINT"}}
	for _, m := range meshes {
		l := listedEntryOf(m)
		out = append(out, l)
		rows = append(rows, []string{
			m.Mesh, m.Member, m.Role, time.UnixMilli(m.Joined).Local().Format("2006-01-02"), m.Broker, l.Keys, fingerprint(m.MeshID),
		})
	}
	if a.json {
		a.printJSON(out)
		return nil
	}
	a.table(rows)
	return nil
}

// fingerprint is a mesh id in groups of four, as an invitation shows it.
func fingerprint(id client.ID) string {
	var groups []string
	for s := id.String(); s != ""; s = s[4:] {
		groups = append(groups, s[:4])
	}
	return strings.Join(groups, " ")
}

func (a *app) leaveCommand() *cli.Command {
	return command(spec{
		name: "leave", usage: "leave a mesh and forget its keys", args: "MESH", min: 1, max: 1,
		about: "Takes you out of the mesh for good: to come back needs a new invite. Messages that wait for you\n" +
			"are lost. The founder's machine holds the owner key, without which nobody can make admins.",
		example: "claudemesh leave acme --yes",
		flags: []cli.Flag{
			yesFlag(),
			&cli.BoolFlag{Name: "force", Usage: "leave although the owner key is lost with it"},
			&cli.BoolFlag{Name: "local", Usage: "only forget it here; the others go on seeing you as a member"},
		},
		run: a.runLeave,
	})
}

func (a *app) runLeave(ctx context.Context, c *cli.Command) error {
	if name := c.Args().First(); a.mesh == "" {
		a.mesh = name
	} else if a.mesh != name {
		return usagef("leave %s or --mesh %s: say one", name, a.mesh)
	}
	p, found, err := a.entries()
	if err != nil {
		return err
	}
	m := found[0]
	if m.Owns() && !c.Bool("force") {
		return &failure{
			code: "owner", exit: exitRefused,
			text: "you founded " + m.Mesh + ": its owner key is here alone, and without it nobody can make admins any more",
			hint: "keep it; or claudemesh leave " + m.Mesh + " --force",
		}
	}
	if err := a.sure(ctx, c.Bool("yes"), "Leave "+m.Mesh+" and delete its keys here?"); err != nil {
		return err
	}
	if !c.Bool("local") {
		if err := a.leaveBroker(ctx); err != nil {
			return err
		}
	}
	if err := a.forget(ctx, p, m.Membership); err != nil {
		return err
	}
	if a.json {
		a.printJSON(map[string]any{"mesh": m.Mesh, "meshId": m.MeshID.String(), "left": true, "local": c.Bool("local")})
		return nil
	}
	if c.Bool("local") {
		a.printf("forgot %s; to the others you are still its member %s\n", m.Mesh, m.Member)
		return nil
	}
	a.printf("left %s\n", m.Mesh)
	return nil
}

// leaveBroker signs the member out. Who is out already has nothing to sign.
func (a *app) leaveBroker(ctx context.Context) error {
	p, m, err := a.oneMembership()
	if err != nil {
		return err
	}
	s, err := a.connect(ctx, p, []client.Membership{m}, client.Observer)
	if err != nil {
		return err
	}
	defer s.close()
	if err = s.errs[0]; err == nil {
		err = s.clients[0].Leave(ctx)
	}
	if err == nil {
		return nil
	}
	f := explain(err)
	switch f.code {
	case string(wire.CodeRemoved):
		return nil
	case "unreachable":
		f.hint = "later, so that the others learn of it; or claudemesh leave " + m.Mesh + " --local to forget it here alone"
	}
	return f
}

// forget deletes everything of a mesh on this machine, its keys first. What a keyring
// that is locked still holds is an error at the end.
func (a *app) forget(ctx context.Context, p *profile.Profile, m client.Membership) error {
	held := p.Remove(m.MeshID)
	if held != nil && !errors.Is(held, profile.ErrKeyring) {
		return held
	}
	if err := p.RemoveSeats(m.MeshID); err != nil {
		return err
	}
	box, err := client.OpenMailbox(ctx, p.MailboxPath())
	if err != nil {
		return err
	}
	if err := errors.Join(box.Forget(ctx, m.MeshID), box.Close()); err != nil || held == nil {
		return err
	}
	return explain(held).hinted("all else of " + m.Mesh + " is forgotten here")
}
