package render_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/claudemesh/claudemesh/internal/injection"
	"github.com/claudemesh/claudemesh/internal/render"
)

// Every hostile text, in each place of a block, leaves the block one block with
// our attributes, and one line a line.
func TestHostileTexts(t *testing.T) {
	t.Parallel()
	for _, p := range injection.Payloads() {
		t.Run(p.Class+"/"+p.Name, func(t *testing.T) {
			t.Parallel()
			hold := func(err error) {
				t.Helper()
				if err != nil {
					t.Error(err)
				}
			}
			m := sample(p.Text)
			want := map[string]string{
				"from": m.From, "mesh": m.Mesh, "pubkey": m.Pubkey, "id": m.ID, "priority": m.Priority, "sent": "2026-11-23T01:02:03Z",
			}
			for _, block := range []string{m.Block(0), m.Block(render.MaxBody), m.Block(1), m.BlockWithin(render.MaxBody)} {
				hold(injection.CheckBlock(block, want))
			}
			if n := len(m.BlockWithin(render.MaxBody)); n > render.MaxBody {
				t.Errorf("%d bytes", n)
			}
			m = sample("text")
			m.Target = p.Text
			if len(p.Text) < 20 && utf8.ValidString(p.Text) && strings.IndexFunc(p.Text, odd) < 0 && p.Text != "" {
				want["to"] = p.Text
				hold(injection.CheckBlock(m.Block(0), want))
			}
			m.From, m.ReplyTo = p.Text, p.Text
			hold(injection.CheckBlock(m.Block(0), nil))

			for _, line := range []string{render.Line(p.Text), render.Inline(p.Text, 128), render.Inline(p.Text, 3)} {
				hold(injection.CheckLine(line))
			}
			if inline := render.Inline(p.Text, 128); strings.ContainsAny(inline, `<>"`) || len(inline) > 128+len("…") {
				t.Errorf("inline: %q", inline)
			}
			hold(injection.CheckTerminal(render.Visible(p.Text)))
			hold(rowsOf(p.Text, 80))
			hold(jsonOf(p.Text))
		})
	}
}

var (
	errWide = errors.New("a row is wider than the terminal, or no row")
	errLost = errors.New("text is lost or changed")
)

// odd is what is shown in another way than it is written.
func odd(r rune) bool { return r < ' ' || r > '~' }

// rowsOf checks that no row is wider than the terminal, and that none is lost.
func rowsOf(text string, columns int) error {
	rows := render.Rows(text, columns)
	for _, row := range rows {
		if utf8.RuneCountInString(row) > columns+columns*4 { // each with its marks
			return errWide
		}
		if err := injection.CheckTerminal(row); err != nil || strings.Contains(row, "\n") {
			return errWide
		}
	}
	if strings.Join(rows, "") != strings.ReplaceAll(render.Visible(text), "\n", "") {
		return errLost
	}
	return nil
}

// jsonOf checks that JSON for a terminal decodes to what was written.
func jsonOf(text string) error {
	var got string
	raw, err := json.Marshal(text)
	if err != nil {
		return err
	}
	if err := injection.CheckJSON(string(render.JSON(raw)), &got); err != nil {
		return err
	}
	if got != strings.ToValidUTF8(text, "\ufffd") && utf8.ValidString(text) {
		return errLost
	}
	return nil
}

func TestRows(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text    string
		columns int
		want    string
	}{
		{"abcdef", 3, "abc|def"},
		{"ab\ncdef\n", 3, "ab|cde|f|"},
		{"界界界", 4, "界界|界"},
		{"a\tb", 9, "a\t|b"},
		{"", 3, ""},
		{"e\u0301e\u0301e", 2, "e\u0301e\u0301|e"},
		{"a\x1bb", 80, `a\u{001B}b`},
	} {
		if got := strings.Join(render.Rows(c.text, c.columns), "|"); got != c.want {
			t.Errorf("%q in %d columns: %q, want %q", c.text, c.columns, got, c.want)
		}
	}
}
