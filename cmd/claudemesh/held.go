package main

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/audit"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/render"
)

func (a *app) heldCommand() *cli.Command {
	return command(spec{
		name: "held", usage: "look at what agents wanted to send and a person should see first",
		about: "A message of an agent is held, not sent, when it seems to hold a secret, or when the same text has\n" +
			"gone to others within ten minutes. Send it or drop it.",
		example: "claudemesh held\nclaudemesh held send 3\nclaudemesh held drop 3",
		run:     a.runHeld,
		sub: []*cli.Command{
			command(spec{
				name: "send", usage: "send a held message", args: "NUMBER", min: 1, max: 1, example: "claudemesh held send 3",
				flags: []cli.Flag{yesFlag()}, run: a.runHeldSend,
			}),
			command(spec{
				name: "drop", usage: "forget a held message", args: "NUMBER", min: 1, max: 1, example: "claudemesh held drop 3",
				run: a.runHeldDrop,
			}),
		},
	})
}

// held is a held message as held --json prints it.
type held struct {
	Number int64    `json:"number"`
	Mesh   string   `json:"mesh"`
	To     []string `json:"to"`
	Reason string   `json:"reason"`
	HeldAt *string  `json:"heldAt"`
	Text   string   `json:"text"`
}

func (a *app) runHeld(ctx context.Context, _ *cli.Command) error {
	_, meshes, err := a.memberships()
	if err != nil {
		return err
	}
	box, err := a.existingMailbox(ctx)
	if err != nil {
		return err
	}
	out := []held{}
	if box != nil {
		defer box.Close()
		for _, m := range meshes {
			list, err := box.HeldMessages(ctx, m.MeshID)
			if err != nil {
				return err
			}
			for _, h := range list {
				out = append(out, held{h.Number, m.Mesh, h.To, h.Reason, stampMs(h.At), h.Text})
			}
		}
	}
	if a.json {
		a.printJSON(out)
		return nil
	}
	if len(out) == 0 {
		a.note("nothing is held")
	}
	for _, h := range out {
		a.printf("--- %d  to %s in %s\n    held: %s\n", h.Number, render.Line(strings.Join(h.To, ", ")), h.Mesh, render.Line(h.Reason))
		a.showText(h.Text)
	}
	return nil
}

// findHeld reads the number and finds the message.
func (a *app) findHeld(ctx context.Context, box mailbox.Mailbox, c *cli.Command) (mailbox.Held, error) {
	none := &failure{code: "not_found", exit: exitNotFound, text: "no held message has that number", hint: "claudemesh held lists them"}
	number, err := strconv.ParseInt(c.Args().First(), 10, 64)
	if err != nil {
		return mailbox.Held{}, none
	}
	list, err := box.HeldMessages(ctx, client.ID{})
	if err != nil {
		return mailbox.Held{}, err
	}
	for _, h := range list {
		if h.Number == number {
			return h, nil
		}
	}
	return mailbox.Held{}, none
}

func (a *app) runHeldDrop(ctx context.Context, c *cli.Command) (err error) {
	box, err := a.existingMailbox(ctx)
	if err != nil {
		return err
	}
	if box == nil {
		return errNothingJoined
	}
	defer func() { err = errors.Join(err, box.Close()) }()
	h, err := a.findHeld(ctx, box, c)
	if err == nil {
		err = letGo(ctx, box, h, audit.Discarded, client.ID{})
	}
	if err != nil {
		return err
	}
	if a.json {
		a.printJSON(map[string]any{"dropped": h.Number})
		return nil
	}
	a.printf("dropped; it was not sent\n")
	return nil
}

func (a *app) runHeldSend(ctx context.Context, c *cli.Command) error {
	p, meshes, err := a.memberships()
	if err != nil {
		return err
	}
	s, err := a.connect(ctx, p, meshes, client.Observer)
	if err != nil {
		return err
	}
	defer s.end(ctx)
	h, err := a.findHeld(ctx, s.box, c)
	if err != nil {
		return err
	}
	i := indexOfMesh(meshes, h.Mesh)
	if i < 0 {
		return &failure{code: "not_joined", exit: exitNotJoined, text: "the mesh of that message was left", hint: "claudemesh held drop " + c.Args().First()}
	}
	if err := a.sure(ctx, c.Bool("yes"), "Send it to "+render.Line(strings.Join(h.To, ", "))+"?"); err != nil {
		return err
	}
	sent, err := s.clients[i].Send(ctx, client.Message{
		To: h.To, Text: h.Text, Priority: h.Priority, ReplyTo: h.ReplyTo, Hop: h.Hop,
		Expires: time.Duration(h.Expires) * time.Millisecond, Looked: true,
	})
	if err != nil { // it is held still
		return err
	}
	if err := letGo(context.WithoutCancel(ctx), s.box, h, audit.Released, sent.ID); err != nil {
		return err
	}
	if a.json {
		a.showReply(sent, nil, 0)
	} else {
		a.showSent(sent)
	}
	return refusedOf(sent)
}

// letGo forgets a held message and notes what became of it.
func letGo(ctx context.Context, box mailbox.Mailbox, h mailbox.Held, event audit.Event, id client.ID) error {
	if _, err := box.TakeHeld(ctx, h.Number); err != nil && !errors.Is(err, mailbox.ErrNotFound) { // somebody else was quicker
		return err
	}
	return box.Record(ctx, audit.Entry{At: time.Now().UnixMilli(), Event: event, Mesh: h.Mesh, Message: id})
}

func indexOfMesh(meshes []client.Membership, id client.ID) int {
	for i, m := range meshes {
		if m.MeshID == id {
			return i
		}
	}
	return -1
}
