package main

import (
	"context"
	"errors"
	"os"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/localbroker"
	"github.com/claudemesh/claudemesh/internal/profile"
)

func (a *app) downCommand() *cli.Command {
	return command(spec{
		name: "down", usage: "stop the broker that up started",
		about: "Its database stays, and the mesh: claudemesh up goes on where it was. Sessions that run keep\n" +
			"what they send on this machine until then.",
		example: "claudemesh down\nclaudemesh down --purge --dry-run",
		flags: []cli.Flag{
			&cli.BoolFlag{Name: "service", Usage: "also take away what up --service added"},
			&cli.BoolFlag{Name: "purge", Usage: "also delete its database, and your keys and messages of its meshes"},
			&cli.BoolFlag{Name: "dry-run", Usage: "only say what would be done"},
			yesFlag(),
		},
		run: a.runDown,
	})
}

// downed is what down prints.
type downed struct {
	DryRun  bool     `json:"dryRun"`
	Stopped bool     `json:"stopped"` // it ran
	PID     int      `json:"pid"`
	Service string   `json:"service"` // the file that was taken away, or ""
	Deleted string   `json:"deleted"` // the directory that was, or ""
	Meshes  []string `json:"meshes"`  // that were forgotten
}

func (a *app) runDown(ctx context.Context, c *cli.Command) (err error) {
	p, err := a.profile()
	if err != nil {
		return err
	}
	b := localBroker(p)
	release, err := b.Lock(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	out, meshes, err := planDown(p, b, c.Bool("service") || c.Bool("purge"), c.Bool("purge"))
	if err != nil {
		return err
	}
	if out.DryRun = c.Bool("dry-run"); out.DryRun {
		a.showDown(out)
		return nil
	}
	if out.Deleted != "" {
		question := "Delete " + out.Deleted + " and your keys and messages of " + strings.Join(out.Meshes, ", ") + "?"
		if len(meshes) == 0 {
			question = "Delete " + out.Deleted + "?"
		}
		if err := a.sure(ctx, c.Bool("yes"), question); err != nil {
			return err
		}
	}
	if err := a.down(ctx, p, b, out, meshes); err != nil {
		return err
	}
	a.showDown(out)
	return nil
}

// planDown finds out what down has to do.
func planDown(p *profile.Profile, b *localbroker.Broker, service, purge bool) (downed, []client.Membership, error) {
	r, runs := b.Running()
	out := downed{Stopped: runs, PID: r.PID, Meshes: []string{}}
	if s, err := userService(b); service && err == nil && s.Written() {
		out.Service = s.Path
	}
	if !purge {
		return out, nil, nil
	}
	if _, err := os.Stat(b.Dir()); err == nil {
		out.Deleted = b.Dir()
	}
	all, err := p.Meshes()
	var local []client.Membership
	for _, m := range all {
		if m.Broker == b.URL() {
			local, out.Meshes = append(local, m), append(out.Meshes, m.Mesh)
		}
	}
	return out, local, err
}

// down does what was planned. The service goes first: its manager must not start
// again what is stopped.
func (a *app) down(ctx context.Context, p *profile.Profile, b *localbroker.Broker, plan downed, meshes []client.Membership) error {
	if plan.Service != "" {
		s, err := userService(b)
		if err != nil {
			return err
		}
		if err := s.Disable(ctx); err != nil {
			return err
		}
	}
	if _, _, err := b.Stop(ctx); err != nil {
		return err
	}
	for _, m := range meshes {
		if err := a.forget(ctx, p, m); err != nil {
			return err
		}
	}
	if plan.Deleted != "" {
		return b.Remove()
	}
	return nil
}

func (a *app) showDown(out downed) {
	if a.json {
		a.printJSON(out)
		return
	}
	would := ""
	if out.DryRun {
		would = "would be "
	}
	if out.Stopped {
		a.printf("the local broker, process %d, %sstopped\n", out.PID, map[bool]string{true: would, false: "has "}[out.DryRun])
	} else {
		a.printf("the local broker does not run\n")
	}
	if out.Service != "" {
		a.printf("%sdeleted: %s\n", would, out.Service)
	}
	for _, mesh := range out.Meshes {
		a.printf("%sforgotten: %s\n", would, mesh)
	}
	if out.Deleted != "" {
		a.printf("%sdeleted: %s\n", would, out.Deleted)
	}
}
