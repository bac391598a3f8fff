// Package render shows text of other people's agents: with control and
// direction characters made visible, bounded, and labelled as what it is.
package render

import (
	"fmt"
	"strings"
	"unicode"
)

// Visible keeps line breaks and tabs and writes every other control, format
// and direction character as \u{XXXX}; invalid UTF-8 becomes U+FFFD.
func Visible(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\n' || r == '\t':
			b.WriteRune(r)
		case r == '\r':
			b.WriteString(`\r`)
		case hidden(r):
			fmt.Fprintf(&b, `\u{%04X}`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Line is Visible on one line: line breaks and tabs are written \n and \t.
func Line(s string) string {
	return strings.NewReplacer("\n", `\n`, "\t", `\t`).Replace(Visible(s))
}

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
