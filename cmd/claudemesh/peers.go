package main

import (
	"cmp"
	"context"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/render"
)

func (a *app) peersCommand() *cli.Command {
	return command(spec{
		name: "peers", usage: "list the sessions of the mesh, and the people at a terminal",
		about:   "Each name and each key of the list is valid input to send.",
		example: "claudemesh peers --all",
		flags:   []cli.Flag{&cli.BoolFlag{Name: "all", Usage: "also those that are offline and were seen in the last 30 days"}},
		run:     a.runPeers,
	})
}

// peer is a session or person as peers --json prints it.
type peer struct {
	Mesh         string  `json:"mesh"`
	Name         string  `json:"name"`
	Member       string  `json:"member"`
	Label        string  `json:"label"`
	Pubkey       string  `json:"pubkey"`
	MemberPubkey string  `json:"memberPubkey"`
	Online       bool    `json:"online"`
	ThisSession  bool    `json:"thisSession"`
	Status       string  `json:"status"`
	Summary      string  `json:"summary"`
	Groups       []group `json:"groups"`
	Cwd          string  `json:"cwd"`
	Host         string  `json:"host"`
	PeerType     string  `json:"peerType"`
	LastSeen     *string `json:"lastSeen"`
	Level        string  `json:"level"`
	Blocked      bool    `json:"blocked"`
	Verified     bool    `json:"verified"`
	reach
}

// reach is how a message gets into a session that is online; "" and null when it is not known.
type reach struct {
	Wake    client.Path `json:"wake"`
	WokenAt *string     `json:"wokenAt"`
}

func reachOf(w client.Wakeability) reach { return reach{w.Wake, stamp(w.Woken)} }

type group struct {
	Name string `json:"name"`
	Role string `json:"role"`
}

func peerOf(p client.Peer, t mailbox.Trust) peer {
	out := peer{
		Level: string(cmp.Or(t.Level, mailbox.Normal)), Blocked: t.Blocked, Verified: t.Verified > 0,
		Mesh: p.Mesh, Name: p.FullName(), Member: p.Name, Label: p.Card.Label, Pubkey: p.Key.String(),
		MemberPubkey: p.Member.String(), Online: p.Online, Status: p.Card.Status, Summary: p.Card.Summary,
		Groups: []group{}, Cwd: p.Card.Cwd, Host: p.Card.Host, PeerType: p.Card.PeerType, LastSeen: stamp(p.LastSeen),
		reach: reachOf(p.Wakeability()),
	}
	for _, g := range p.Card.Groups {
		out.Groups = append(out.Groups, group{g.Name, g.Role})
	}
	return out
}

func (a *app) runPeers(ctx context.Context, c *cli.Command) error {
	s, err := a.observe(ctx)
	if err != nil {
		return err
	}
	defer s.end(ctx)
	trusts, err := s.trusts(ctx)
	if err != nil {
		return err
	}
	out := []peer{}
	rows := [][]string{{"NAME", "STATUS", "WAKE", "SUMMARY", "CWD", "LAST SEEN", "KEY", ""}}
	for i, cl := range s.clients {
		peers, fresh, err := cl.Peers(ctx, c.Bool("all"))
		if err != nil {
			return err
		}
		if !fresh {
			a.note("%s: this is what was last known, who is online is not: %s", cl.Mesh(), reasonOf(s.errs[i]))
			if !c.Bool("all") {
				a.note("%s: claudemesh peers --all lists who was seen before", cl.Mesh())
			}
		}
		for _, p := range peers {
			out = append(out, peerOf(p, trusts.of(cl.MeshID(), p.Member)))
			rows = append(rows, peerRow(p, trusts.marks(cl.MeshID(), p.Member), len(s.clients) > 1))
		}
	}
	switch {
	case a.json:
		a.printJSON(out)
	case len(out) == 0:
		a.note("nobody is online; claudemesh peers --all lists who was")
	default:
		a.table(rows)
	}
	return nil
}

// reasonOf says why there is no connection.
func reasonOf(err error) string {
	if err == nil {
		return "the connection was lost"
	}
	return explain(err).text
}

func peerRow(p client.Peer, marks []string, several bool) []string {
	name, status, seen := p.FullName(), p.Card.Status, "now"
	if several {
		name = p.Mesh + ":" + name
	}
	switch {
	case !p.Online:
		status, seen = "offline", render.Clock(p.LastSeen, time.Now())
	case p.Role == client.Person:
		status = "at a terminal"
	case status == "":
		status = "online"
	}
	wake := cmp.Or(string(p.Wakeability().Wake), "-")
	return []string{name, status, wake, clip(p.Card.Summary, 60), clip(p.Card.Cwd, maxCwd), seen, short(p.Key), strings.Join(marks, ", ")}
}
