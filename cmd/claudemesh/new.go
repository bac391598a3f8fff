package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/brokerfile"
	"github.com/claudemesh/claudemesh/internal/profile"
	"github.com/claudemesh/claudemesh/internal/trust"
)

const (
	defaultBroker = "ws://127.0.0.1:7900/ws"
	envBroker     = "CLAUDEMESH_BROKER_URL"
	envToken      = "CLAUDEMESH_TOKEN"
)

func (a *app) newCommand() *cli.Command {
	return command(spec{
		name: "new", usage: "found a mesh at a broker", args: "NAME", min: 1, max: 1,
		about: "Makes the mesh's keys on this machine and registers it. The broker's admin token is\n" +
			"read from --token-file, $" + envToken + " or the terminal; a broker that runs with --open asks for none.",
		example: "claudemesh new acme --broker wss://mesh.example.com/ws --as alice",
		flags: []cli.Flag{
			&cli.StringFlag{Name: "broker", Usage: "the broker's `URL`, default $" + envBroker + " or " + defaultBroker},
			&cli.StringFlag{Name: "token-file", Usage: "the `FILE` with the broker's admin token"},
			asFlag(), insecureFlag(), keyringFlag(),
		},
		run: a.runNew,
	})
}

func asFlag() cli.Flag {
	return &cli.StringFlag{Name: "as", Usage: "your `NAME` in the mesh, default the user's at this machine"}
}

func insecureFlag() cli.Flag {
	return &cli.BoolFlag{Name: "insecure", Usage: "allow an unencrypted ws:// broker beyond this machine"}
}

func keyringFlag() cli.Flag {
	return &cli.BoolFlag{Name: "keyring", Usage: "keep your secret keys in the keyring of the operating system, and not in the file"}
}

// keep stores a membership where its secrets are to be.
func keep(p *profile.Profile, m client.Membership, keyring bool) error {
	if keyring {
		return p.AddToKeyring(m)
	}
	return p.Add(m)
}

// checkKeyring refuses one that does not serve before anything is spent.
func checkKeyring(wanted bool) error {
	if !wanted {
		return nil
	}
	err := profile.CheckKeyring()
	if err == nil {
		return nil
	}
	return explain(err).hinted("unlock the keyring of your login, or leave --keyring away: the file is open to you alone")
}

// joined is what new and join print.
type joined struct {
	Mesh   string `json:"mesh"`
	MeshID string `json:"meshId"`
	Member string `json:"member"`
	Pubkey string `json:"pubkey"`
	Broker string `json:"broker"`
}

func joinedOf(m client.Membership) joined {
	return joined{m.Mesh, m.MeshID.String(), m.Member, m.MemberKey().String(), m.Broker}
}

func (a *app) runNew(ctx context.Context, c *cli.Command) error {
	name, member, err := names(c.Args().First(), c.String("as"))
	if err != nil {
		return err
	}
	broker := c.String("broker")
	if broker == "" {
		broker = a.getenv(envBroker)
	}
	if broker == "" {
		broker = defaultBroker
	}
	if broker, err = normalizeBroker(broker); err != nil {
		return err
	}
	if err := client.CheckBroker(broker, c.Bool("insecure")); err != nil {
		return insecureBroker(err)
	}
	p, err := a.profile()
	if err != nil {
		return err
	}
	if err := notYetJoined(p, name, client.ID{}); err != nil {
		return err
	}
	if err := checkKeyring(c.Bool("keyring")); err != nil {
		return err
	}
	token, err := a.token(ctx, c.String("token-file"))
	if err != nil {
		return err
	}
	m, err := found(ctx, p, broker, token, founding{name, member, c.Bool("insecure"), c.Bool("keyring")})
	if err != nil {
		return at(broker, err)
	}
	if a.json {
		a.printJSON(joinedOf(m))
		return nil
	}
	a.printf("founded %s at %s; you are %s, its owner\n", m.Mesh, m.Broker, m.Member)
	a.printf("your keys are in %s\n", keysPlace(p, c.Bool("keyring")))
	a.offerBackup(ctx)
	a.printf("next: claudemesh invite\n")
	return nil
}

// keysPlace says where the keys of a mesh are.
func keysPlace(p *profile.Profile, keyring bool) string {
	if keyring {
		return "the keyring of the operating system, the rest in " + p.Dir()
	}
	return p.Dir()
}

// founding is what a person says of a new mesh.
type founding struct {
	mesh, member string
	insecure     bool // the broker's address may be unencrypted
	keyring      bool // takes the secrets
}

// found registers a new mesh at a broker and stores its keys.
func found(ctx context.Context, p *profile.Profile, broker, token string, f founding) (client.Membership, error) {
	m, err := client.Found(ctx, broker, token, f.mesh, f.member)
	if err != nil {
		return m, err
	}
	m.Insecure = f.insecure
	return m, keep(p, m, f.keyring)
}

// names checks the name of a mesh and makes, where none is given, that of the member.
func names(mesh, member string) (string, string, error) {
	if member == "" {
		member = defaultName()
	}
	for _, n := range []string{mesh, member} {
		if !trust.ValidName(n) {
			return "", "", &failure{
				code: "bad_name", exit: exitUsage, text: fmt.Sprintf("%q cannot be a name: %s", n, client.ErrBadName),
				hint: "a name like " + sanitizeName(n),
			}
		}
	}
	return mesh, member, nil
}

// at adds the broker's address to an error that it does not answer.
func at(broker string, err error) error {
	f := explain(err)
	if f.code == "unreachable" {
		f.hint = "check that claudemesh-broker runs at " + broker + ", or name another with --broker"
	}
	return f
}

func insecureBroker(err error) error {
	return &failure{code: "insecure_broker", exit: exitRefused, text: err.Error(), hint: "a wss:// address, or --insecure"}
}

// notYetJoined refuses, before anything is spent, a mesh that could not be stored.
func notYetJoined(p *profile.Profile, name string, id client.ID) error {
	meshes, err := p.Meshes()
	if err != nil {
		return err
	}
	for _, m := range meshes {
		switch {
		case !id.IsZero() && m.MeshID == id:
			return fmt.Errorf("%w: %s, as %s", profile.ErrJoined, m.Mesh, m.Member)
		case m.Mesh == name:
			return fmt.Errorf("%w: %s", profile.ErrNameTaken, m.Mesh)
		}
	}
	return nil
}

// token returns the broker's admin token, "" where nothing gives one.
func (a *app) token(ctx context.Context, file string) (string, error) {
	if file != "" {
		token, err := brokerfile.ReadToken(file)
		if err != nil {
			return "", usagef("--token-file: %s", err)
		}
		return token, nil
	}
	if token := strings.TrimSpace(a.getenv(envToken)); token != "" {
		return token, nil
	}
	if fd, ok := a.terminal(); ok {
		return a.secret(ctx, "admin token of the broker (empty if it is open): ", fd)
	}
	return "", nil
}
