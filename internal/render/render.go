// Package render shows text of other people's agents: with control and
// direction characters made visible, bounded, and labelled as what it is.
package render

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Visible keeps line breaks and tabs and writes every other control, format
// and direction character as \u{XXXX}; invalid UTF-8 becomes U+FFFD.
func Visible(s string) string {
	var b strings.Builder
	pile := bare
	for _, r := range s {
		b.WriteString(pile.show(r))
	}
	return b.String()
}

// Line is Visible on one line: line breaks and tabs are written \n and \t.
func Line(s string) string { return oneLine.Replace(Visible(s)) }

var oneLine = strings.NewReplacer("\n", `\n`, "\t", `\t`)

// Rows is Visible as rows of a terminal: its lines, each cut where it would be
// wider than columns (at least 2), for what a terminal wraps by itself starts at
// its edge, where our own words do.
func Rows(s string, columns int) (rows []string) {
	for line := range strings.SplitSeq(Visible(s), "\n") {
		from, width := 0, 0
		for i, r := range line {
			w := columnsOf(r)
			if width += w; width > columns {
				rows, from, width = append(rows, line[from:i]), i, w
			}
		}
		rows = append(rows, line[from:])
	}
	return rows
}

// columnsOf is the most that a character takes of a row.
func columnsOf(r rune) int {
	switch {
	case r == '\t':
		return 8
	case r < utf8.RuneSelf:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	}
	return 2
}

// JSON writes what is hidden in a JSON text as \uXXXX, so that it can go to a
// terminal: what it decodes to is the same. Hidden characters outside of
// strings are none of JSON's.
func JSON(text []byte) []byte {
	out := make([]byte, 0, len(text))
	pile := bare
	for _, r := range string(text) {
		switch plain := pile.carries(r) && (!hidden(r) || r == '\n' || r == '\t'); {
		case plain:
			out = utf8.AppendRune(out, r)
		case r > 0xFFFF:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		if r == '"' {
			pile = bare
		}
	}
	return out
}

// maxPile is how many combining marks one character carries: no script needs
// more, and a tower of them covers the lines around it.
const maxPile = 4

// pile counts the combining marks on the last character that was shown.
type pile int

// bare is the pile where no character is to carry a mark, so that it would sit
// on one of ours.
const bare pile = maxPile

// carries counts the next character and reports whether it may stand there as it is.
func (p *pile) carries(r rune) bool {
	switch {
	case !unicode.In(r, unicode.Mn, unicode.Me) || hidden(r):
		*p = 0
		if r == '\n' || r == '\t' {
			*p = bare
		}
		return true
	case *p < maxPile:
		*p++
		return true
	}
	return false
}

// show is the next character of a text as Visible writes it.
func (p *pile) show(r rune) string {
	switch carried := p.carries(r); {
	case r == '\n' || r == '\t':
		return string(r)
	case r == '\r':
		return `\r`
	case !carried || hidden(r):
		return escaped(r)
	}
	return string(r)
}

func escaped(r rune) string { return fmt.Sprintf(`\u{%04X}`, r) }

// hidden reports whether a rune shows nothing, or changes how others show.
func hidden(r rune) bool {
	return unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co, unicode.Cs) ||
		unicode.Is(unicode.Noncharacter_Code_Point, r) || unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r) ||
		unicode.Is(unicode.Variation_Selector, r)
}

// Clip cuts s to at most n bytes at a rune's start and says how much is left out.
func Clip(s string, n int) (out string, cut int) {
	if len(s) <= n {
		return s, 0
	}
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return s[:n], len(s) - n
}
