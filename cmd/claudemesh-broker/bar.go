package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/claudemesh/claudemesh/internal/move"
)

// barWidth is the length of a bar in characters.
const barWidth = 30

// bar shows how far a move is: as a bar that is drawn anew on a terminal, else
// in a line now and then.
type bar struct {
	w        io.Writer
	terminal bool

	phase string
	shown time.Time
}

func (b *bar) show(p move.Progress) {
	every := 10 * time.Second
	if b.terminal {
		every = 100 * time.Millisecond
	}
	if p.Phase == b.phase && time.Since(b.shown) < every && p.Done < p.Total {
		return
	}
	b.phase, b.shown = p.Phase, time.Now()
	share := min(1, float64(p.Done)/float64(max(1, p.Total)))
	if !b.terminal {
		fmt.Fprintf(b.w, "%s: %.0f%%, %d of %d rows\n", p.Phase, 100*share, p.Done, p.Total)
		return
	}
	full := int(share * barWidth)
	fmt.Fprintf(b.w, "\r\x1b[K%-9s [%s%s] %3.0f%%  %d of %d rows  %s", p.Phase,
		strings.Repeat("#", full), strings.Repeat("-", barWidth-full), 100*share, p.Done, p.Total, p.Table)
}

// end takes the bar away.
func (b *bar) end() {
	if b.terminal && b.phase != "" {
		fmt.Fprint(b.w, "\r\x1b[K")
	}
}
