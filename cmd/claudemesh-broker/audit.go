package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/internal/audit"
	"github.com/claudemesh/claudemesh/internal/render"
)

// auditOff is the --audit that keeps no log.
const auditOff = "off"

// openAudit opens the log that a broker writes, or returns nil for none: beside
// a SQLite file, unless another is named.
func openAudit(c *cli.Command, db database) (*audit.File, error) {
	path := c.String("audit")
	if path == "" && db.file != "" {
		path = db.file + ".audit"
	}
	if path == "" || path == auditOff {
		return nil, nil
	}
	f, err := audit.OpenFile(path)
	if broken := new(audit.Broken); errors.As(err, &broken) {
		return nil, fmt.Errorf("--audit: %w; keep that file, and name another", err)
	}
	if err != nil {
		return nil, fmt.Errorf("--audit: %w; name a file that this broker can write, or off", err)
	}
	return f, nil
}

// appendTo adds entries to a log. The broker serves on when that fails, and says so once.
func appendTo(f *audit.File, log *slog.Logger) func(audit.Entry) {
	var once sync.Once
	return func(e audit.Entry) {
		if err := f.Append(e); err != nil {
			once.Do(func() { log.Error("the audit log takes no more", "error", err) })
		}
	}
}

const auditHelp = `Prints the records of an audit log: who founded, joined, left, was removed, kicked, blocked
or given a role, pauses, and what was refused to whom. It never holds what a message says.
With --verify it checks that none was altered, taken out, moved or put in, and exits 1
otherwise. What is cut off at the end is not seen: note the last number elsewhere.

EXAMPLE
   claudemesh-broker audit mesh.db.audit
   claudemesh-broker audit mesh.db.audit --verify`

func auditCommand() *cli.Command {
	return &cli.Command{
		Name: "audit", Usage: "print or verify the broker's audit log, also while the broker runs", ArgsUsage: "FILE", Description: auditHelp,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "verify", Usage: "check that the records hang together"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON: an object a record, or with --verify one"},
		},
		Action: func(_ context.Context, c *cli.Command) error {
			if c.Args().Len() != 1 {
				return fmt.Errorf("audit takes the log's file, such as mesh.db.audit; %w", errUsage)
			}
			path, out := c.Args().First(), c.Root().Writer
			if c.Bool("verify") {
				return verifyAudit(out, path, c.Bool("json"))
			}
			return printAudit(out, path, c.Bool("json"))
		},
	}
}

func verifyAudit(out io.Writer, path string, asJSON bool) error {
	n, err := audit.VerifyFile(path)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if asJSON {
		return json.NewEncoder(out).Encode(map[string]any{"file": path, "records": n})
	}
	_, err = fmt.Fprintf(out, "%s is whole: %d records hang together\n", path, n)
	return err
}

func printAudit(out io.Writer, path string, asJSON bool) error {
	encoder := json.NewEncoder(out)
	for r, err := range audit.Records(path) {
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", path, err)
		case asJSON:
			err = encoder.Encode(r)
		default:
			_, err = fmt.Fprintln(out, auditLine(r))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// auditLine is a record for people. Whoever could write the file could put
// anything into its texts.
func auditLine(r audit.Record) string {
	line := fmt.Sprintf("%d %s %s", r.Number, time.UnixMilli(r.At).UTC().Format(time.RFC3339), r.Event)
	for _, f := range []struct{ name, value string }{
		{"mesh", short(r.Mesh.String(), r.Mesh.IsZero())}, {"member", short(r.Member.String(), r.Member.IsZero())},
		{"session", short(r.Session.String(), r.Session.IsZero())}, {"message", short(r.Message.String(), r.Message.IsZero())},
		{"code", r.Code}, {"note", r.Note},
	} {
		if f.value != "" {
			line += " " + f.name + "=" + f.value
		}
	}
	return render.Line(line)
}

// short is as much of an id as logs show.
func short(id string, zero bool) string {
	if zero {
		return ""
	}
	return id[:8]
}
