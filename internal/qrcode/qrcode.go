// Package qrcode draws QR codes on a terminal.
package qrcode

import (
	"fmt"
	"strings"

	"rsc.io/qr"
)

const (
	quiet  = 4  // modules of light around the code; readers ask for so many
	narrow = 2  // and do with so few, in a code that would not fit otherwise
	width  = 80 // columns of a terminal

	ink   = "\x1b[38;5;16;48;5;231m" // black on white, whatever the terminal's own colours are
	plain = "\x1b[0m"
)

// Draw returns the code of a text as lines of half blocks, two modules to a
// character, with a quiet zone around it. It brings its own colours, so that it
// is dark on light in every terminal. It fails when the text is too long for a code.
func Draw(text string) (string, error) {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return "", fmt.Errorf("draw the QR code: %w", err)
	}
	margin := quiet
	if code.Size+2*quiet > width {
		margin = narrow
	}
	var out strings.Builder
	for y := -margin; y < code.Size+margin; y += 2 {
		out.WriteString(ink)
		for x := -margin; x < code.Size+margin; x++ {
			out.WriteString(block(code.Black(x, y), code.Black(x, y+1)))
		}
		out.WriteString(plain + "\n")
	}
	return out.String(), nil
}

func block(top, bottom bool) string {
	switch {
	case top && bottom:
		return "█"
	case top:
		return "▀"
	case bottom:
		return "▄"
	}
	return " "
}
