package main

import (
	"context"
	"encoding/hex"
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

func (a *app) auditCommand() *cli.Command {
	return command(spec{
		name: "audit", usage: "show what was received, refused, shown and changed on this machine",
		about: "Each entry holds the hash of the one before, so that one which is altered, dropped or put in between\n" +
			"shows: --verify looks. It holds no text of messages. What is cut off at the end does not show: note\n" +
			"the last hash elsewhere if that matters to you.",
		example: "claudemesh audit --last 20\nclaudemesh audit --verify",
		flags: []cli.Flag{
			&cli.BoolFlag{Name: "verify", Usage: "check that the entries follow on each other"},
			&cli.IntFlag{Name: "last", Usage: "only the last `N` entries, 0 for all", Value: 100},
		},
		run: a.runAudit,
	})
}

// entry is one as audit --json prints it.
type entry struct {
	Number  int64   `json:"number"`
	At      *string `json:"at"`
	Event   string  `json:"event"`
	Mesh    string  `json:"mesh"`
	Member  string  `json:"member"`
	Name    string  `json:"name"`
	Session string  `json:"session"`
	Message string  `json:"message"`
	Code    string  `json:"code"`
	Note    string  `json:"note"`
	Hash    string  `json:"hash"`
}

// auditPage is how many entries are read at once.
const auditPage = 1000

func (a *app) runAudit(ctx context.Context, c *cli.Command) (err error) {
	box, err := a.existingMailbox(ctx)
	if err != nil {
		return err
	}
	if box == nil {
		return errNothingJoined
	}
	defer func() { err = errors.Join(err, box.Close()) }()
	all, err := readAudit(ctx, box)
	if err != nil {
		return err
	}
	if c.Bool("verify") {
		return a.verifyAudit(all)
	}
	if n := c.Int("last"); n > 0 && len(all) > n {
		all = all[len(all)-n:]
	}
	names, err := a.names(ctx, box)
	if err != nil {
		return err
	}
	out := make([]entry, 0, len(all))
	rows := [][]string{{"NUMBER", "TIME", "EVENT", "MESH", "WHO", "MESSAGE", "WHY"}}
	for _, r := range all {
		e := names.entry(r)
		out = append(out, e)
		rows = append(rows, e.row(r.At))
	}
	switch {
	case a.json:
		a.printJSON(out)
	case len(out) == 0:
		a.note("nothing has happened yet")
	default:
		a.table(rows)
	}
	return nil
}

func readAudit(ctx context.Context, box mailbox.Mailbox) (all []audit.Record, err error) {
	after := int64(0)
	for {
		page, err := box.Audit(ctx, after, auditPage)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if len(page) < auditPage {
			return all, nil
		}
		after = page[len(page)-1].Number
	}
}

func (a *app) verifyAudit(all []audit.Record) error {
	n, err := audit.Verify(func(yield func(audit.Record, error) bool) {
		for _, r := range all {
			if !yield(r, nil) {
				return
			}
		}
	})
	if err != nil {
		return &failure{
			code: "audit_broken", exit: exitFailed, text: err.Error(),
			hint: "somebody or something has altered the log; what stands before that entry is as it was written",
		}
	}
	head := ""
	if len(all) > 0 {
		head = hex.EncodeToString(all[len(all)-1].Hash[:])
	}
	if a.json {
		a.printJSON(map[string]any{"entries": n, "intact": true, "head": head})
		return nil
	}
	a.printf("%s; each follows on the one before\n", plural(n, "record"))
	if head != "" {
		a.printf("the last hash is %s\n", head)
	}
	return nil
}

// namesBook names meshes and members.
type namesBook struct {
	meshes  map[client.ID]string
	members map[client.Key]string
}

// names reads who is called how from what this machine knows of its meshes.
func (a *app) names(ctx context.Context, box mailbox.Mailbox) (namesBook, error) {
	book := namesBook{map[client.ID]string{}, map[client.Key]string{}}
	p, err := a.profile()
	if err != nil {
		return book, err
	}
	all, err := p.Meshes()
	if err != nil {
		return book, err
	}
	for _, m := range all {
		book.meshes[m.MeshID] = m.Mesh
		known, err := client.KnownNames(ctx, box, m)
		if err != nil {
			return book, err
		}
		book.members[m.Owner] = "the owner"
		for key, name := range known {
			book.members[key] = name
		}
	}
	return book, nil
}

func (b namesBook) entry(r audit.Record) entry {
	e := entry{
		Number: r.Number, At: stampMs(r.At), Event: string(r.Event), Mesh: b.meshes[r.Mesh], Name: b.members[r.Member],
		Code: r.Code, Note: r.Note, Hash: hex.EncodeToString(r.Hash[:]),
	}
	if !r.Member.IsZero() {
		e.Member = r.Member.String()
	}
	if !r.Session.IsZero() {
		e.Session = r.Session.String()
	}
	if !r.Message.IsZero() {
		e.Message = r.Message.String()
	}
	return e
}

// row is an entry for people.
func (e entry) row(at int64) []string {
	who, why := e.Name, e.Code
	if who == "" && e.Member != "" {
		who = e.Member[:16]
	}
	if e.Note != "" {
		why = strings.TrimSpace(why + " " + e.Note)
	}
	return []string{
		strconv.FormatInt(e.Number, 10), render.Clock(time.UnixMilli(at), time.Now()), e.Event, e.Mesh, render.Line(who), e.Message, render.Line(why),
	}
}
