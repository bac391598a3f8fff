package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/audit"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/profile"
	"github.com/claudemesh/claudemesh/internal/qrcode"
	"github.com/claudemesh/claudemesh/internal/safety"
)

func (a *app) verifyCommand() *cli.Command {
	return command(spec{
		name: "verify", usage: "compare keys with another member, so that nobody stands between", args: "[NAME|KEY]", max: 1,
		about: "Shows the mesh's fingerprint, which names its owner's key, and a safety number for you and another\n" +
			"member. Both of you see the same 60 digits, six words and QR code: compare them on a call or side by\n" +
			"side, not through the mesh. --confirm records that you did. The words are a short form of the digits,\n" +
			"for reading aloud.\n" +
			"--accept-broker is for a broker whose key has changed, which stops every command of the mesh: it shows\n" +
			"both keys and asks, at a terminal only, whether you know why.",
		example: "claudemesh verify bob\nclaudemesh verify bob --confirm",
		flags: []cli.Flag{
			&cli.BoolFlag{Name: "confirm", Usage: "record that the numbers are the same"},
			&cli.BoolFlag{Name: "revoke", Usage: "take that back"},
			&cli.BoolFlag{Name: "accept-broker", Usage: "accept the key that the broker shows now"},
		},
		run: a.runVerify,
	})
}

// verified is a member as verify --json prints it.
type verified struct {
	Name         string   `json:"name"`
	Pubkey       string   `json:"pubkey"`
	SafetyNumber string   `json:"safetyNumber"`
	Words        []string `json:"words"`
	Verified     bool     `json:"verified"`
	VerifiedAt   *string  `json:"verifiedAt"`
}

// anchors are the keys on which all else stands, as verify --json prints them.
type anchors struct {
	Mesh        string `json:"mesh"`
	MeshID      string `json:"meshId"`
	Fingerprint string `json:"fingerprint"`
	OwnerKey    string `json:"ownerPubkey"`
	BrokerKey   string `json:"brokerPubkey"`
	OwnKey      string `json:"ownPubkey"`
}

func anchorsOf(m client.Membership) anchors {
	return anchors{m.Mesh, m.MeshID.String(), fingerprint(m.MeshID), m.Owner.String(), m.BrokerKey.String(), m.MemberKey().String()}
}

func verifiedOf(own client.Membership, m client.Member, t mailbox.Trust) verified {
	number := safety.Number(own.MeshID, own.MemberKey(), m.Key)
	return verified{m.Name, m.Key.String(), number, safety.Words(number), t.Verified > 0, stampMs(t.Verified)}
}

func (a *app) runVerify(ctx context.Context, c *cli.Command) error {
	p, own, err := a.oneMembership()
	if err != nil {
		return err
	}
	name := c.Args().First()
	switch {
	case c.Bool("accept-broker"):
		return a.acceptBroker(ctx, p, own)
	case name == "" && (c.Bool("confirm") || c.Bool("revoke")):
		return usagef("whose number did you compare?").hinted("claudemesh verify NAME --confirm")
	case name == "":
		return a.verifyAll(ctx, p, own)
	}
	s, cl, m, err := a.knownMember(ctx, name)
	if err != nil {
		return err
	}
	defer s.end(ctx)
	t, err := s.box.Trust(ctx, cl.MeshID(), m.Key)
	if err == nil && (c.Bool("confirm") || c.Bool("revoke")) {
		t, err = s.box.ChangeTrust(ctx, cl.MeshID(), m.Key, time.Now().UnixMilli(), func(t *mailbox.Trust) error {
			if t.Verified = 0; c.Bool("confirm") {
				t.Verified = time.Now().UnixMilli()
			}
			return nil
		})
	}
	if err != nil {
		return err
	}
	v := verifiedOf(own, m, t)
	if a.json {
		a.printJSON(struct {
			anchors
			verified
		}{anchorsOf(own), v})
		return nil
	}
	if c.Bool("confirm") {
		a.printf("%s is verified\n", m.Name)
		return nil
	}
	return a.showSafety(own, v)
}

// showSafety shows one safety number in its three forms.
func (a *app) showSafety(own client.Membership, v verified) error {
	a.printf("mesh %s, owner's fingerprint %s\n\n", own.Mesh, fingerprint(own.MeshID))
	a.printf("safety number of you (%s) and %s:\n\n", own.Member, v.Name)
	groups := safety.Groups(v.SafetyNumber)
	for i := 0; i < len(groups); i += 4 {
		a.printf("    %s\n", strings.Join(groups[i:i+4], "  "))
	}
	a.printf("\n    %s\n\n", strings.Join(v.Words, " "))
	qr, err := qrcode.Draw(v.SafetyNumber)
	if err != nil {
		return err
	}
	a.printf("%s\n", qr)
	if v.Verified {
		a.printf("you have verified %s\n", v.Name)
		return nil
	}
	a.printf("the same at %s's, compared on another way than the mesh? then: claudemesh verify %s --confirm\n", v.Name, v.Name)
	return nil
}

// verifyAll lists the numbers with all members, also when the broker is not to be trusted.
func (a *app) verifyAll(ctx context.Context, p *profile.Profile, own client.Membership) error {
	s, err := a.connect(ctx, p, []client.Membership{own}, client.Observer)
	if err != nil {
		return err
	}
	defer s.end(ctx)
	if s.errs[0] != nil {
		a.note("%s: this is what was last known: %s", own.Mesh, reasonOf(s.errs[0]))
	}
	trusts, err := s.trusts(ctx)
	if err != nil {
		return err
	}
	list := []verified{}
	rows := [][]string{{"NAME", "SAFETY NUMBER", "WORDS", ""}}
	for _, m := range s.clients[0].Members() {
		if m.Self {
			continue
		}
		v := verifiedOf(own, m, trusts.of(own.MeshID, m.Key))
		list = append(list, v)
		rows = append(rows, []string{v.Name, strings.Join(safety.Groups(v.SafetyNumber), " "), strings.Join(v.Words, " "), mark(v.Verified, "verified")})
	}
	if a.json {
		a.printJSON(struct {
			anchors
			Members []verified `json:"members"`
		}{anchorsOf(own), list})
		return nil
	}
	a.printf("mesh %s, owner's fingerprint %s\nbroker's key %s\n\n", own.Mesh, fingerprint(own.MeshID), own.BrokerKey)
	a.table(rows)
	return nil
}

func mark(is bool, word string) string {
	if is {
		return word
	}
	return ""
}

// trustBook is what is granted to members, by mesh and key.
type trustBook map[trustID]mailbox.Trust

type trustID struct {
	mesh   client.ID
	member client.Key
}

func (b trustBook) of(mesh client.ID, member client.Key) mailbox.Trust {
	return b[trustID{mesh, member}]
}

// marks are the words that stand beside a member in lists.
func (b trustBook) marks(mesh client.ID, member client.Key) (words []string) {
	t := b.of(mesh, member)
	if t.Verified > 0 {
		words = append(words, "verified")
	}
	if t.Level != "" && t.Level != mailbox.Normal {
		words = append(words, string(t.Level))
	}
	if t.Blocked {
		words = append(words, "blocked")
	}
	return words
}

// trusts reads what is granted in all meshes of a station.
func (s *station) trusts(ctx context.Context) (trustBook, error) {
	book := trustBook{}
	for _, cl := range s.clients {
		list, err := s.box.Trusts(ctx, cl.MeshID())
		if err != nil {
			return nil, err
		}
		for _, t := range list {
			book[trustID{t.Mesh, t.Member}] = t
		}
	}
	return book, nil
}

// acceptBroker takes the key that the broker shows for the one that was pinned.
// Only a person at a terminal can: an agent that runs commands must not.
func (a *app) acceptBroker(ctx context.Context, p *profile.Profile, own client.Membership) error {
	shown, err := client.BrokerKey(ctx, own.Broker)
	if err != nil {
		return at(own.Broker, err)
	}
	if shown == own.BrokerKey {
		a.printf("the broker at %s shows the key that is known: %s\n", own.Broker, shown)
		return nil
	}
	text := fmt.Sprintf("the broker at %s shows another key than the one that %s was joined at\n  known %s\n  shown %s\n"+
		"A broker keeps its key in its database: another one means a new database, another broker, or somebody in between.\n"+
		"Ask its operator, on another way, for the key that claudemesh-broker prints at its start.",
		own.Broker, own.Mesh, own.BrokerKey, shown)
	if _, ok := a.terminal(); !ok {
		return &failure{
			code: "wrong_broker", exit: exitRefused, text: text,
			hint: "run it at a terminal: only a person can accept a key",
		}
	}
	a.printf("%s\n", text)
	yes, err := a.confirm(ctx, "Accept the new key?")
	if err != nil {
		return err
	}
	if !yes {
		return &failure{code: "declined", exit: exitFailed, text: "nothing was done"}
	}
	if err := a.pinBroker(ctx, p, own, shown); err != nil {
		return err
	}
	a.printf("accepted; open invites of %s name the old key and must be made again\n", own.Mesh)
	return nil
}

// pinBroker stores the key that a person has accepted, and notes it. A key that
// somebody else has stored meanwhile stays.
func (a *app) pinBroker(ctx context.Context, p *profile.Profile, own client.Membership, key client.Key) error {
	err := p.Amend(own.MeshID, func(m *client.Membership) error {
		if m.BrokerKey != own.BrokerKey {
			return &failure{code: "changed", exit: exitFailed, text: "another process has changed the key meanwhile", hint: "run it again"}
		}
		m.BrokerKey = key
		return nil
	})
	if err != nil {
		return err
	}
	box, err := client.OpenMailbox(ctx, p.MailboxPath())
	if err != nil {
		return err
	}
	defer box.Close()
	return box.Record(ctx, audit.Entry{
		At: time.Now().UnixMilli(), Event: audit.KeyChanged, Mesh: own.MeshID, Note: "broker " + own.BrokerKey.Short() + " to " + key.Short(),
	})
}
