package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/render"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// maxWait bounds --wait.
const maxWait = day

func (a *app) sendCommand() *cli.Command {
	return command(spec{
		name: "send", usage: "send a message", args: "TO MESSAGE|-", min: 2, max: 2,
		about: "TO is what claudemesh peers lists: member/label, label, member, @group, * for everyone, 8 to 64\n" +
			"digits of a key; mesh:target where several meshes are joined; or several of these with commas.\n" +
			"With - the message is read from standard input. Put -- before one that starts with a dash.\n" +
			"With the broker away the message is stored here and goes out with the next claudemesh command\n" +
			"or agent of this machine that connects.",
		example: "claudemesh send bob/api 'the schema changed' --priority now\ngit diff | claudemesh send @reviewers -",
		flags: []cli.Flag{
			&cli.StringFlag{Name: "priority", Usage: "the `PRIORITY`: now, next or low", Value: "next"},
			&cli.StringFlag{Name: "reply-to", Usage: "the `ID` of the message that this one answers"},
			&cli.BoolFlag{Name: "anyway", Usage: "send it also if it seems to hold a secret"},
			&cli.StringFlag{Name: "wait", Usage: "wait this `TIME` for a reply, and show it"},
		},
		run: a.runSend,
	})
}

// order is what the command line of send says.
type order struct {
	client.Message
	wait time.Duration
}

func (a *app) parseSend(ctx context.Context, c *cli.Command) (o order, err error) {
	o.Priority, o.By, o.Looked = client.Priority(c.String("priority")), client.ByPerson, c.Bool("anyway")
	if o.Priority.Rank() < 0 {
		return o, usagef("--priority is now, next or low, not %q", c.String("priority")).hinted("--priority next")
	}
	if id := c.String("reply-to"); id != "" {
		if o.ReplyTo, err = wire.ParseID(id); err != nil {
			return o, usagef("--reply-to: %q is no message id", id).hinted("the 32 digits that inbox shows")
		}
	}
	if w := c.String("wait"); w != "" {
		if o.wait, err = flagSpan("wait", w, 0, maxWait); err != nil {
			return o, err
		}
	}
	for t := range strings.SplitSeq(c.Args().Get(0), ",") {
		if t = strings.TrimSpace(t); t != "" {
			o.To = append(o.To, t)
		}
	}
	if len(o.To) == 0 {
		return o, usagef("TO is empty").hinted("claudemesh peers lists who is there")
	}
	if o.Text = c.Args().Get(1); o.Text == "-" {
		if o.Text, err = readMessage(a.input(ctx)); err != nil {
			return o, err
		}
	}
	return o, checkMessage(o.Text)
}

func (a *app) runSend(ctx context.Context, c *cli.Command) error {
	o, err := a.parseSend(ctx, c)
	if err != nil {
		return err
	}
	p, meshes, err := a.memberships()
	if err != nil {
		return err
	}
	role := client.Observer
	if o.wait > 0 {
		role = client.Person // a reply to the member reaches this process
	}
	s, err := a.connect(ctx, p, namedBy(o.To, meshes), role)
	if err != nil {
		return err
	}
	defer s.end(ctx)
	if err := s.refusal(); err != nil {
		return err
	}
	sent, err := s.clients.Send(ctx, o.Message)
	if err != nil {
		return s.unknownWhileAway(err)
	}
	var reply *mailbox.Incoming
	if !a.json {
		a.showSent(sent)
	}
	if o.wait > 0 {
		if reply, err = s.awaitReply(ctx, sent, o.wait); err != nil {
			return err
		}
	}
	a.showReply(sent, reply, o.wait)
	return refusedOf(sent)
}

// unknownWhileAway says, of a name that is not known here, that the broker may know it.
func (s *station) unknownWhileAway(err error) error {
	f := explain(err)
	if away := slices.ContainsFunc(s.errs, func(err error) bool { return err != nil }); away && f.code == "not_found" {
		f.hint = "the broker does not answer: only who was known before can be named; try again when it does"
	}
	return f
}

// namedBy leaves out the meshes that a target with a mesh's name excludes: their
// brokers need not answer.
func namedBy(targets []string, meshes []client.Membership) []client.Membership {
	mesh, _, ok := strings.Cut(targets[0], ":")
	if !ok {
		return meshes
	}
	for i, m := range meshes {
		if m.Mesh == mesh {
			return meshes[i : i+1]
		}
	}
	return meshes
}

func (s *station) awaitReply(ctx context.Context, sent *client.Sent, wait time.Duration) (*mailbox.Incoming, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	set, err := s.clients.Named(sent.Mesh)
	if err != nil {
		return nil, err
	}
	msg, ok, err := set[0].AwaitReply(ctx, sent.ID)
	if err != nil || !ok {
		return nil, err
	}
	return &msg, nil
}

// sentTarget is one recipient as send --json prints it.
type sentTarget struct {
	Target string `json:"target"`
	Name   string `json:"name"`
	Pubkey string `json:"pubkey"`
	State  string `json:"state"`
	Online bool   `json:"online"`
	Reason string `json:"reason"`
	reach
}

// The states of a recipient as send says them.
const (
	stateAccepted = "accepted"
	stateStored   = "stored"
	stateRefused  = "refused"
)

func sentTargetOf(t client.SentTarget) sentTarget {
	out := sentTarget{Target: t.Target, Name: t.Name, State: stateAccepted, Online: t.Online, reach: reachOf(t.Wakeability)}
	if !t.Key.IsZero() {
		out.Pubkey = t.Key.String()
	}
	switch {
	case t.Err != nil:
		out.State, out.Reason = stateRefused, reasonOfTarget(t.Err)
	case t.State == client.Bounced:
		out.State, out.Reason = stateRefused, t.Code.Info().Text
	case t.State == client.Stored:
		out.State, out.Reason = stateStored, brokerAway
	}
	return out
}

// reasonOfTarget is why a target did not resolve, with the keys that would.
func reasonOfTarget(err error) string {
	f := explain(err)
	text := f.text
	for i, p := range f.candidates {
		text += []string{": ", ", "}[min(i, 1)] + p.FullName() + " " + short(p.Key)
	}
	return text
}

// showSent says what is known of each target.
func (a *app) showSent(sent *client.Sent) {
	groups := map[string][]client.SentTarget{}
	var order []string
	for _, t := range sent.Targets {
		key := t.Target
		if !strings.HasPrefix(key, "@") && key != "*" {
			key += "\x00" + t.Key.String()
		}
		if groups[key] == nil {
			order = append(order, key)
		}
		groups[key] = append(groups[key], t)
	}
	now := time.Now()
	for _, key := range order {
		g := groups[key]
		if t := g[0]; t.Err == nil && (strings.HasPrefix(t.Target, "@") || t.Target == "*") {
			a.printf("%s\n", render.Line(describeGroup(t.Target, g)))
			continue
		}
		a.printf("%s\n", render.Line(describeTarget(g[0], sent.Priority, now)))
	}
	if slices.ContainsFunc(sent.Targets, func(t client.SentTarget) bool { return t.State == client.Stored }) {
		a.printf("%s\n", a.whenAway())
	}
	if !sent.ID.IsZero() {
		a.printf("id %s\n", sent.ID)
	}
}

// brokerAway is why a message is stored here.
const brokerAway = "the broker does not answer"

// whenAway says who carries what is stored here.
func (a *app) whenAway() string {
	if p, err := a.profile(); err == nil && p.Running() {
		return "an agent of this machine is running and sends it when the broker is back"
	}
	return "no claudemesh process is running here: it goes out with the next command or agent that connects"
}

// describeTarget is one recipient in a sentence.
func describeTarget(t client.SentTarget, p client.Priority, now time.Time) string {
	s := sentTargetOf(t)
	switch {
	case s.State == stateRefused && t.Err != nil:
		return "refused: " + s.Reason
	case s.State == stateRefused:
		return "refused for " + s.Name + ": " + s.Reason
	case s.State == stateStored:
		return "stored here for " + s.Name + ": " + brokerAway
	}
	return "accepted; " + t.Outlook(p, now)
}

// describeGroup counts the recipients of a group.
func describeGroup(target string, all []client.SentTarget) string {
	n := map[string]int{}
	offline := 0
	for _, t := range all {
		s := sentTargetOf(t)
		n[s.State]++
		if s.State == stateAccepted && !s.Online {
			offline++
		}
	}
	var parts []string
	if n[stateAccepted] > 0 {
		part := "accepted for " + plural(n[stateAccepted], "peer")
		if offline > 0 {
			part += fmt.Sprintf(", %d of them offline", offline)
		}
		parts = append(parts, part)
	}
	if n[stateStored] > 0 {
		parts = append(parts, "stored here for "+plural(n[stateStored], "peer")+": "+brokerAway)
	}
	if n[stateRefused] > 0 {
		parts = append(parts, "refused for "+plural(n[stateRefused], "peer"))
	}
	return target + ": " + strings.Join(parts, "; ")
}

// showReply ends what send prints.
func (a *app) showReply(sent *client.Sent, reply *mailbox.Incoming, wait time.Duration) {
	if a.json {
		out := struct {
			OK    bool         `json:"ok"`
			ID    string       `json:"id"`
			Mesh  string       `json:"mesh"`
			To    []sentTarget `json:"to"`
			Reply *message     `json:"reply,omitempty"`
		}{sent.OK(), sent.ID.String(), sent.Mesh, []sentTarget{}, nil}
		for _, t := range sent.Targets {
			out.To = append(out.To, sentTargetOf(t))
		}
		if reply != nil {
			m := messageOf(*reply, sent.Mesh, "")
			out.Reply = &m
		}
		a.printJSON(out)
		return
	}
	switch {
	case reply != nil:
		a.showMessage(messageOf(*reply, sent.Mesh, ""))
	case wait > 0:
		a.note("no reply within %s; claudemesh inbox shows one that comes later", render.Span(wait))
	}
}

// explainSent is the failure of one target, nil when it has none.
func explainSent(t client.SentTarget) *failure {
	switch {
	case t.Err != nil:
		return explain(t.Err)
	case t.State == client.Bounced:
		return explain(&client.Fault{Code: t.Code})
	}
	return nil
}

// refusedOf returns the first refusal: what stands on standard output already,
// for its exit code.
func refusedOf(sent *client.Sent) error {
	for _, t := range sent.Targets {
		if f := explainSent(t); f != nil {
			f.shown = true
			return f
		}
	}
	return nil
}
