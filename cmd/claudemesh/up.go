package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/brokerfile"
	"github.com/claudemesh/claudemesh/internal/claudecode"
	"github.com/claudemesh/claudemesh/internal/localbroker"
	"github.com/claudemesh/claudemesh/internal/profile"
)

// localMesh is the mesh that up founds.
const localMesh = "local"

func (a *app) upCommand() *cli.Command {
	return command(spec{
		name: "up", usage: "one machine: start a broker of your own and found the mesh " + localMesh,
		about: "Starts claudemesh-broker on loopback in the background, with its database in the configuration\n" +
			"directory, founds the mesh " + localMesh + " once, and offers to install the tools into Claude Code. Every session\n" +
			"of yours on this machine is then on it. What runs already stays as it is.",
		example: "claudemesh up",
		flags: []cli.Flag{
			&cli.BoolFlag{Name: "service", Usage: "keep it over reboots, by systemd or launchd"},
			&cli.StringFlag{Name: "as", Usage: "your `NAME` in the mesh when it is founded, default the user's at this machine"},
			keyringFlag(),
			&cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask: install when the mesh is founded"},
		},
		run: a.runUp,
	})
}

// upped is what up prints.
type upped struct {
	Running bool   `json:"running"`
	Started bool   `json:"started"` // by this command
	PID     int    `json:"pid"`
	Broker  string `json:"broker"`
	Mesh    string `json:"mesh"`
	Member  string `json:"member"`
	Founded bool   `json:"founded"` // by this command
	Service string `json:"service"` // systemd, launchd or "": what keeps it running
	Log     string `json:"log"`     // its file, or the command that shows it
	Next    string `json:"next"`
}

func (a *app) runUp(ctx context.Context, c *cli.Command) error {
	_, member, err := names(localMesh, c.String("as"))
	if err != nil {
		return err
	}
	if err := checkKeyring(c.Bool("keyring")); err != nil {
		return err
	}
	p, err := a.profile()
	if err != nil {
		return err
	}
	b := localBroker(p)
	out, err := a.up(ctx, p, b, founding{mesh: localMesh, member: member, keyring: c.Bool("keyring")}, c.Bool("service"))
	if err != nil {
		return err
	}
	if a.json {
		a.printJSON(out)
		return nil
	}
	what := "is up"
	if out.Started {
		what = "started"
	}
	a.printf("the local broker %s at %s, process %d; its log: %s\n", what, out.Broker, out.PID, out.Log)
	if out.Founded {
		a.printf("founded %s; you are %s, its owner\n", out.Mesh, out.Member)
		a.printf("your keys are in %s; back them up: claudemesh backup FILE\n", keysPlace(p, c.Bool("keyring")))
	} else {
		a.printf("you are %s in %s\n", out.Member, out.Mesh)
	}
	if out.Founded && a.offerInstall(ctx, c.Bool("yes")) {
		a.printf("next: start claude in two projects\n")
		return nil
	}
	a.printf("next: %s\n", out.Next)
	return nil
}

// offerInstall runs install, which shows what it would do and asks; where there is
// nobody to ask it does nothing without yes. It reports whether that is done.
func (a *app) offerInstall(ctx context.Context, yes bool) bool {
	if yes {
		return a.again(ctx, a.in, a.errw, "install", "--yes") == nil
	}
	_, attended := a.terminal()
	return attended && a.again(ctx, a.in, a.errw, "install") == nil
}

// localBroker is the broker that up starts for a profile.
func localBroker(p *profile.Profile) *localbroker.Broker {
	return localbroker.In(filepath.Join(p.Dir(), "broker"))
}

// up brings the broker and the mesh to where they should be, whatever is there of them.
func (a *app) up(ctx context.Context, p *profile.Profile, b *localbroker.Broker, mesh founding, service bool) (out upped, err error) {
	release, err := b.Lock(ctx)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, release()) }()
	if err := checkDatabase(p, b); err != nil {
		return out, err
	}
	r, started, manager, err := a.runBroker(ctx, b, service)
	if err != nil {
		return out, localError(b, err)
	}
	if was := b.URL(); was != r.URL { // the memberships first: what is interrupted here is done by the next up
		if was != "" {
			a.note("%s was taken by another program; the local broker listens at %s from now on", was, r.URL)
			if err := p.Move(was, r.URL); err != nil {
				return out, err
			}
		}
		if err := b.Remember(r.URL); err != nil {
			return out, err
		}
	}
	m, founded, err := foundLocal(ctx, p, b, r.URL, mesh)
	if err != nil {
		return out, at(r.URL, err)
	}
	out = upped{
		Running: true, Started: started, PID: r.PID, Broker: r.URL, Mesh: m.Mesh, Member: m.Member, Founded: founded,
		Log: b.LogPath(), Next: "claudemesh install, then start claude",
	}
	if manager != nil {
		out.Service, out.Log = manager.Manager, manager.Log()
	}
	return out, nil
}

// checkDatabase refuses to start an empty broker for meshes that it should know.
func checkDatabase(p *profile.Profile, b *localbroker.Broker) error {
	meshes, err := p.Meshes()
	if err != nil || b.Exists() || b.URL() == "" {
		return err
	}
	if slices.ContainsFunc(meshes, func(m client.Membership) bool { return m.Broker == b.URL() }) {
		return &failure{
			code: "no_database", exit: exitFailed, text: "the local broker's database is gone: " + b.Database(),
			hint: "restore it from a backup; or claudemesh down --purge, then claudemesh up, to start anew",
		}
	}
	return nil
}

// runBroker returns the broker that runs, after starting it if none does: by the
// service manager that knows it, which is then returned too, or in the background.
func (a *app) runBroker(ctx context.Context, b *localbroker.Broker, service bool) (r brokerfile.Running, started bool, manager *localbroker.Service, err error) {
	s, err := userService(b)
	if service && err != nil {
		return r, false, nil, err
	}
	answers := s != nil && (service || s.Written()) && s.Answers(ctx)
	if answers && s.Active(ctx) {
		manager = s
	}
	if _, runs := b.Running(); runs && (!service || manager != nil) {
		r, err = b.Ready(ctx, nil)
		return r, false, manager, err
	}
	program, err := brokerProgram()
	if err != nil {
		return r, false, nil, err
	}
	if s != nil && (service || s.Written()) { // the port and the program may be others than before
		if err := b.WriteService(ctx, s, program); err != nil {
			return r, false, nil, err
		}
	}
	switch {
	case answers:
		r, err = a.startService(ctx, b, s, service)
		return r, true, s, err
	case service:
		a.note("%s does not answer here; %s is written. Where it does, run:", s.Manager, s.Path)
		fmt.Fprintln(a.errw, "  claudemesh down")
		for _, c := range s.EnableCommands() {
			fmt.Fprintf(a.errw, "  %s\n", claudecode.Quote(c))
		}
	}
	if r, runs := b.Running(); runs {
		return r, false, nil, nil
	}
	a.note("starting %s ...", program)
	r, err = b.Start(ctx, program)
	return r, true, nil, err
}

// startService has the manager start the broker in the place of one that runs.
func (a *app) startService(ctx context.Context, b *localbroker.Broker, s *localbroker.Service, enable bool) (brokerfile.Running, error) {
	if r, _, err := b.Stop(ctx); err != nil {
		return r, err
	}
	a.note("%s starts %s ...", s.Manager, s.Name)
	r, err := b.StartService(ctx, s, enable)
	if err == nil && enable && s.Manager == "systemd" {
		a.note("it runs while you are logged in; to run it from the boot on: loginctl enable-linger")
	}
	return r, err
}

// brokerProgram finds claudemesh-broker.
func brokerProgram() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	return localbroker.Find(self)
}

// userService is the local broker's entry at this user's service manager.
func userService(b *localbroker.Broker) (*localbroker.Service, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, err
	}
	return b.Service(localbroker.User{OS: runtime.GOOS, Home: home, Config: os.Getenv("XDG_CONFIG_HOME"), UID: os.Getuid()})
}

// foundLocal returns the membership at the local broker, after founding the mesh if there is none.
func foundLocal(ctx context.Context, p *profile.Profile, b *localbroker.Broker, url string, mesh founding) (client.Membership, bool, error) {
	meshes, err := p.Meshes()
	if err != nil {
		return client.Membership{}, false, err
	}
	if i := slices.IndexFunc(meshes, func(m client.Membership) bool { return m.Broker == url }); i >= 0 {
		return meshes[i], false, nil
	}
	if err := notYetJoined(p, mesh.mesh, client.ID{}); err != nil {
		return client.Membership{}, false, err
	}
	token, err := brokerfile.ReadToken(b.TokenPath())
	if err != nil {
		return client.Membership{}, false, err
	}
	m, err := found(ctx, p, url, token, mesh)
	return m, err == nil, err
}

// localError says where to look when the local broker does not start.
func localError(b *localbroker.Broker, err error) error {
	f := explain(err)
	if errors.Is(err, localbroker.ErrNotReady) {
		f.hint = "look into " + b.LogPath() + ", then claudemesh up again"
	}
	return f
}
