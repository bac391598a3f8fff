package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/internal/render"
)

// verdict is how a check came out.
type verdict string

const (
	fine    verdict = "ok"
	warning verdict = "warn" // it works, and could be better
	broken  verdict = "fail"
)

// finding is one line of doctor.
type finding struct {
	Check   string  `json:"check"`
	Verdict verdict `json:"verdict"`
	Text    string  `json:"text"`
	Mend    string  `json:"mend,omitempty"` // the command or act that mends it
}

func (a *app) doctorCommand() *cli.Command {
	return command(spec{
		name: "doctor", usage: "look for what is wrong here, and say how to mend it",
		about: "Checks the program, its files, each mesh's broker, Claude Code, and each session that runs. It changes\n" +
			"nothing. With --prove it sends one message to a session of this machine and waits until it was shown.\n" +
			"The exit code is 1 when a check fails.",
		example: "claudemesh doctor\nclaudemesh doctor --prove --session web",
		flags: []cli.Flag{
			&cli.BoolFlag{Name: "prove", Usage: "send a message to a session here, and time each step of its way"},
			&cli.StringFlag{Name: "session", Usage: "the `NAME` of the session to prove, when several run"},
		},
		run: a.runDoctor,
	})
}

func (a *app) runDoctor(ctx context.Context, c *cli.Command) error {
	var found []finding
	tell := func(f ...finding) {
		for _, f := range f {
			found = append(found, f)
			if !a.json {
				a.showFinding(f)
			}
		}
	}
	tell(a.checkBinary())
	tell(a.checkProfile(ctx)...)
	tell(a.checkClaude(ctx)...)
	if c.Bool("prove") && ctx.Err() == nil {
		tell(a.prove(ctx, c.String("session"))...)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if a.json {
		a.printJSON(struct {
			Findings []finding `json:"findings"`
		}{found})
	}
	if slices.ContainsFunc(found, func(f finding) bool { return f.Verdict == broken }) {
		return &failure{code: "unwell", exit: exitFailed, text: "something is wrong", shown: true}
	}
	return nil
}

func (a *app) showFinding(f finding) {
	a.printf("%-4s  %-10s %s\n", f.Verdict, f.Check, render.Line(f.Text))
	if f.Mend != "" {
		a.printf("%-4s  %-10s mend: %s\n", "", "", render.Line(f.Mend))
	}
}

func ok(check, format string, args ...any) finding {
	return finding{Check: check, Verdict: fine, Text: fmt.Sprintf(format, args...)}
}

// wrong is the finding of an error, with the hint that its command would give.
func wrong(check string, err error) finding {
	f := explain(err)
	return finding{Check: check, Verdict: broken, Text: f.text, Mend: f.hint}
}
