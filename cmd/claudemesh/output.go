package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/render"
)

// printJSON writes a result for programs, whose strings are exact; nothing in it
// moves the terminal that it may go to. A failure to write shows in no other way.
func (a *app) printJSON(v any) {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	_ = e.Encode(v)
	_, _ = a.out.Write(render.JSON(text.Bytes()))
}

func (a *app) printf(format string, args ...any) { fmt.Fprintf(a.out, format, args...) }

// showFailure writes the cause, and a line with what to do next. Only words of
// ours are more than a line: explain has seen to others'.
func (a *app) showFailure(f *failure) {
	fmt.Fprintf(a.errw, "claudemesh: %s\n", render.Visible(f.text))
	if f.hint != "" {
		fmt.Fprintf(a.errw, "  try: %s\n", render.Line(f.hint))
	}
	showCandidates(a.errw, f.candidates)
}

// showCandidates lists peers so that each key can be pasted.
func showCandidates(w io.Writer, peers []client.Peer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i, c := range candidatesOf(peers) {
		fmt.Fprintf(t, "    %s\t%s\t%s\n", short(peers[i].Key), c.Name, clip(c.Cwd, maxCwd))
	}
	_ = t.Flush()
}

// candidate is one whom a target may mean, as it is printed.
type candidate struct {
	Name   string `json:"name"`
	Pubkey string `json:"pubkey"`
	Cwd    string `json:"cwd"`
}

// candidatesOf names peers, with their meshes where these differ.
func candidatesOf(peers []client.Peer) []candidate {
	out := []candidate{}
	several := slices.ContainsFunc(peers, func(p client.Peer) bool { return p.Mesh != peers[0].Mesh })
	for _, p := range peers {
		name := p.FullName()
		if several {
			name = p.Mesh + ":" + name
		}
		out = append(out, candidate{name, p.Key.String(), p.Card.Cwd})
	}
	return out
}

// table writes rows in columns; the first row is the head.
func (a *app) table(rows [][]string) {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(t, strings.Join(r, "\t"))
	}
	_ = t.Flush()
	for line := range strings.Lines(b.String()) { // the last column may be empty
		a.printf("%s\n", strings.TrimRight(line, " \n"))
	}
}

// short is the 16 hex digits that name a key in tables, and that send takes.
func short(k client.Key) string { return k.String()[:16] }

// maxCwd is how many bytes of a peer's directory a table shows.
const maxCwd = 120

// clip is peer text for a cell of a table, without gaps like those between columns.
func clip(s string, n int) string {
	line, cut := render.Clip(strings.Join(strings.Fields(render.Line(s)), " "), n)
	if cut > 0 {
		return line + "..."
	}
	return line
}

// stamp is a time in JSON; nil, which is null, when there is none.
func stamp(t time.Time) *string {
	if t.IsZero() || t.UnixMilli() == 0 {
		return nil
	}
	s := t.UTC().Format("2006-01-02T15:04:05.000Z")
	return &s
}

func stampMs(ms int64) *string {
	if ms == 0 {
		return nil
	}
	return stamp(time.UnixMilli(ms))
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
