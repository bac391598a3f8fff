package main

import (
	"cmp"
	"context"
	"os"
	"slices"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/profile"
	"github.com/claudemesh/claudemesh/internal/render"
)

const (
	settleQuiet = 300 * time.Millisecond // without a new message: the broker has sent what waited
	settleWait  = 3 * time.Second
	inboxPage   = 100
)

func (a *app) inboxCommand() *cli.Command {
	return command(spec{
		name: "inbox", usage: "show the messages for you",
		about: "Fetches what was sent to you as a member, shows it and marks it read; the senders hear of that.\n" +
			"What agents of this directory have not seen yet is shown too, and stays unread for them.",
		example: "claudemesh inbox --wait 30s",
		flags: []cli.Flag{
			&cli.StringFlag{Name: "wait", Usage: "wait this `TIME` for a new message if there is none"},
			&cli.BoolFlag{Name: "all", Usage: "also show what was read before"},
		},
		run: a.runInbox,
	})
}

// message is one as inbox --json prints it.
type message struct {
	ID         string  `json:"id"`
	Mesh       string  `json:"mesh"`
	From       sender  `json:"from"`
	To         string  `json:"to"`
	Kind       string  `json:"kind"`
	Priority   string  `json:"priority"`
	Text       string  `json:"text"`
	ReplyTo    *string `json:"replyTo"`
	SentAt     *string `json:"sentAt"`
	ReceivedAt *string `json:"receivedAt"`
	Unread     bool    `json:"unread"` // it is an agent's, and this showing does not count

	number int64
	sent   time.Time
}

type sender struct {
	Name         string `json:"name"`
	Pubkey       string `json:"pubkey"`
	MemberPubkey string `json:"memberPubkey"`
}

// messageOf describes a message to a recipient's name; to a group, and without a
// name, it is to what the sender named.
func messageOf(m mailbox.Incoming, mesh, to string) message {
	out := message{
		ID: m.ID.String(), Mesh: mesh, From: sender{m.SenderName, m.SenderSession.String(), m.SenderMember.String()},
		To: to, Kind: string(m.Mode), Priority: string(m.Priority), Text: m.Text,
		SentAt: stampMs(m.Sent), ReceivedAt: stampMs(m.Received), number: m.Number, sent: time.UnixMilli(m.Sent),
	}
	if out.To == "" || !m.Mode.Direct() {
		out.To = m.Target
	}
	if !m.ReplyTo.IsZero() {
		id := m.ReplyTo.String()
		out.ReplyTo = &id
	}
	return out
}

// reader reads the inboxes of one command.
type reader struct {
	*station
	profile *profile.Profile
	cwd     string
	known   []client.Membership
	old     map[int64]bool // what agents had unread at the start
}

func (a *app) runInbox(ctx context.Context, c *cli.Command) error {
	var wait time.Duration
	if w := c.String("wait"); w != "" {
		var err error
		if wait, err = flagSpan("wait", w, 0, maxWait); err != nil {
			return err
		}
	}
	p, meshes, err := a.memberships()
	if err != nil {
		return err
	}
	cwd, err := os.Getwd()
	if err != nil {
		return err
	}
	s, err := a.connect(ctx, p, meshes, client.Person)
	if err != nil {
		return err
	}
	defer s.end(ctx)
	if err := s.refusal(); err != nil {
		return err
	}
	for i, err := range s.errs {
		if err != nil {
			a.note("%s: only what was fetched before: %s", meshes[i].Mesh, reasonOf(err))
		}
	}
	r := &reader{station: s, profile: p, cwd: cwd, known: meshes}
	r.settle(ctx)
	shown, err := r.read(ctx, wait)
	if err == nil && c.Bool("all") {
		shown, err = r.history(ctx, shown)
	}
	if err != nil && len(shown) == 0 {
		return err
	}
	a.showInbox(shown, wait) // even after an error: what was taken is not shown again
	if err != nil {
		return err
	}
	if more := r.left(ctx); more > 0 {
		a.note("%s more; run it again", plural(more, "message"))
	}
	return ctx.Err()
}

// settle waits until the brokers have sent what waited for the member.
func (r *reader) settle(ctx context.Context) {
	if !slices.ContainsFunc(r.errs, func(err error) bool { return err == nil }) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, settleWait)
	defer cancel()
	changes := r.box.Watch(ctx)
	last := -1
	for quiet := time.NewTimer(settleQuiet); ; {
		n := r.left(ctx)
		if n != last {
			quiet.Reset(settleQuiet)
			last = n
		}
		select {
		case <-changes:
		case <-quiet.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// left counts what is unread for the member and can be taken.
func (r *reader) left(ctx context.Context) (n int) {
	for _, c := range r.clients {
		if list, more, err := r.box.List(ctx, forMember(c, time.Now(), 1)); err == nil {
			n += len(list) + more
		}
	}
	return n
}

// forMember selects what is unread for the member, also of those who are blocked,
// but for what is being brought into an agent.
func forMember(c *client.Client, now time.Time, limit int) mailbox.Query {
	return mailbox.Query{Mesh: c.MeshID(), Recipients: []client.Key{c.Key()}, Gate: mailbox.Shut, Now: now.UnixMilli(), Limit: limit}
}

// read takes what is unread for the member and adds what agents of this
// directory have not seen; it waits for the first when there is none.
func (r *reader) read(ctx context.Context, wait time.Duration) ([]message, error) {
	deadline, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	changes := r.box.Watch(deadline)
	for {
		mine, err := r.take(ctx)
		if err != nil {
			return mine, err
		}
		theirs, err := r.seats(ctx)
		if err != nil {
			return mine, err
		}
		fresh := len(mine) > 0
		for _, m := range theirs {
			fresh = fresh || (r.old != nil && !r.old[m.number])
		}
		if fresh || wait == 0 || deadline.Err() != nil {
			return append(mine, theirs...), nil
		}
		if r.old == nil {
			r.old = map[int64]bool{}
			for _, m := range theirs {
				r.old[m.number] = true
			}
		}
		select {
		case <-changes:
		case <-deadline.Done():
		}
	}
}

// take marks the member's unread messages read and returns them.
func (r *reader) take(ctx context.Context) (out []message, err error) {
	for i, c := range r.clients {
		now := time.Now()
		at := now.Add(c.ClockOffset()).UnixMilli()
		msgs, _, err := r.box.Take(context.WithoutCancel(ctx), forMember(c, now, inboxPage), c.Key(), at)
		if err != nil {
			return out, err
		}
		for _, m := range msgs {
			out = append(out, messageOf(m, c.Mesh(), r.known[i].Member))
		}
	}
	return out, nil
}

// seats returns what agents of this directory have not seen.
func (r *reader) seats(ctx context.Context) (out []message, err error) {
	for i, c := range r.clients {
		seats, err := r.profile.Seats(c.MeshID(), r.cwd)
		if err != nil {
			return nil, err
		}
		for _, seat := range seats {
			q := mailbox.Query{Mesh: c.MeshID(), Recipients: []client.Key{seat.Key}, Gate: mailbox.Shut, Limit: inboxPage}
			msgs, _, err := r.box.List(ctx, q)
			if err != nil {
				return nil, err
			}
			for _, m := range msgs {
				d := messageOf(m, c.Mesh(), "")
				d.To, d.Unread = r.known[i].Member+"/"+seat.Label, true
				out = append(out, d)
			}
		}
	}
	return out, nil
}

// history adds to what is shown what the member and its agents here have read
// before, oldest first.
func (r *reader) history(ctx context.Context, shown []message) ([]message, error) {
	have := map[int64]bool{}
	for _, m := range shown {
		have[m.number] = true
	}
	for i, c := range r.clients {
		names := map[client.Key]string{c.Key(): r.known[i].Member}
		seats, err := r.profile.Seats(c.MeshID(), r.cwd)
		if err != nil {
			return shown, err
		}
		for _, seat := range seats {
			names[seat.Key] = r.known[i].Member + "/" + seat.Label
		}
		q := mailbox.Query{Mesh: c.MeshID(), Read: true, Gate: mailbox.Shut, Limit: inboxPage}
		for key := range names {
			q.Recipients = append(q.Recipients, key)
		}
		msgs, _, err := r.box.List(ctx, q)
		if err != nil {
			return shown, err
		}
		for _, m := range msgs {
			if !have[m.Number] && m.ReadAt > 0 {
				shown = append(shown, messageOf(m, c.Mesh(), names[m.Recipient]))
			}
		}
	}
	slices.SortStableFunc(shown, func(a, b message) int { return cmp.Compare(a.number, b.number) })
	return shown, nil
}

func (a *app) showInbox(shown []message, wait time.Duration) {
	if a.json {
		if shown == nil {
			shown = []message{}
		}
		a.printJSON(shown)
		return
	}
	if len(shown) == 0 {
		if wait > 0 {
			a.note("no new message within %s", render.Span(wait))
		} else {
			a.note("no new messages")
		}
	}
	for _, m := range shown {
		a.showMessage(m)
	}
}

const (
	// margin stands before each row of a message's text.
	margin = "  | "
	// maxName is how many bytes of a sender's or target's name are shown.
	maxName = 128
)

// showMessage writes one message as a labelled block. Its text is another's: a
// row of it cannot look like a label.
func (a *app) showMessage(m message) {
	a.printf("--- from %s to %s, %s\n", clip(m.From.Name, maxName), clip(m.To, maxName), render.Clock(m.sent, time.Now()))
	if m.Unread {
		a.printf("    for      %s (unread by its agent)\n", render.Line(m.To))
	}
	a.printf("    mesh     %s\n    key      %s\n    id       %s\n", m.Mesh, m.From.Pubkey[:16], m.ID)
	if m.ReplyTo != nil {
		a.printf("    reply to %s\n", *m.ReplyTo)
	}
	if m.Priority != string(client.Next) {
		a.printf("    priority %s\n", m.Priority)
	}
	a.showText(m.Text)
	a.printf("\n")
}

// showText writes the text of a message behind the margin.
func (a *app) showText(text string) {
	for _, row := range render.Rows(text, a.columns()-len(margin)) {
		a.printf("%s%s\n", margin, row)
	}
}
