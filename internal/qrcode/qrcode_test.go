package qrcode_test

import (
	"strings"
	"testing"

	"rsc.io/qr"

	"github.com/claudemesh/claudemesh/internal/qrcode"
)

// modules reads a drawing back: whether the module of a column and a row is dark.
func modules(t *testing.T, drawn string) (dark [][]bool) {
	t.Helper()
	for line := range strings.Lines(drawn) {
		line, inked := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "\x1b[38;5;16;48;5;231m")
		line, ended := strings.CutSuffix(line, "\x1b[0m")
		if !inked || !ended {
			t.Fatalf("a line without its colours: %q", line)
		}
		var top, bottom []bool
		for _, r := range line {
			if !strings.ContainsRune(" ▀▄█", r) {
				t.Fatalf("%q", line)
			}
			top, bottom = append(top, r == '▀' || r == '█'), append(bottom, r == '▄' || r == '█')
		}
		dark = append(dark, top, bottom)
	}
	return dark
}

// TestDraw: what is drawn is the library's bitmap, in light on all sides.
func TestDraw(t *testing.T) {
	t.Parallel()
	for text, margin := range map[string]int{
		"":                                       4,
		strings.Repeat("0123456789", 6):          4,
		"ic://join/" + strings.Repeat("aB", 200): 4,
		strings.Repeat("aB", 240):                2, // 77 modules: four more on each side do not fit 80 columns
	} {
		drawn, err := qrcode.Draw(text)
		if err != nil {
			t.Fatal(err)
		}
		code, err := qr.Encode(text, qr.L)
		if err != nil {
			t.Fatal(err)
		}
		dark := modules(t, drawn)
		if rows := code.Size + 2*margin; len(dark) != rows+rows%2 || len(dark[0]) != rows {
			t.Errorf("%q: %d rows of %d for %d modules", text, len(dark), len(dark[0]), code.Size)
		}
		for y, row := range dark {
			for x, got := range row {
				if got != code.Black(x-margin, y-margin) {
					t.Fatalf("%q: module %d, %d is %v", text, x-margin, y-margin, got)
				}
			}
		}
	}
	if _, err := qrcode.Draw(strings.Repeat("x", 3000)); err == nil {
		t.Error("a text that no code holds is drawn")
	}
}
