package injection

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/claudemesh/claudemesh/internal/render"
)

// CheckTerminal checks a text that goes to a terminal: nothing in it moves the
// cursor, changes how other characters show, or hides.
func CheckTerminal(text string) error {
	if !utf8.ValidString(text) {
		return fmt.Errorf("invalid UTF-8: %.200q", text)
	}
	marks := 0
	for i, r := range text {
		if r != '\n' && r != '\t' && unseenRune(r) {
			return fmt.Errorf("%U is left at %d: %.200q", r, i, text[max(0, i-20):])
		}
		if marks++; !unicode.In(r, unicode.Mn, unicode.Me) {
			marks = 0
		}
		if marks > 4 {
			return fmt.Errorf("a pile of marks at %d: %.200q", i, text[max(0, i-20):])
		}
	}
	return nil
}

// unseenRune is by Unicode's properties what has no picture of its own.
func unseenRune(r rune) bool {
	return unicode.IsOneOf([]*unicode.RangeTable{
		unicode.Cc, unicode.Cf, unicode.Co, unicode.Cs, unicode.Zl, unicode.Zp,
		unicode.Noncharacter_Code_Point, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector,
	}, r)
}

// CheckLine is CheckTerminal for what must stay on one line.
func CheckLine(text string) error {
	if strings.ContainsAny(text, "\n\t") {
		return fmt.Errorf("more than a line: %.200q", text)
	}
	return CheckTerminal(text)
}

const (
	element = "peer-message"
	begin   = "<" + element + " "
	finish  = "\n</" + element + ">"
)

// attributes are the names that a block may have.
var attributes = []string{"from", "mesh", "pubkey", "id", "priority", "sent", "reply_to", "to"}

// CheckBlock checks that a text is one block and nothing else: well-formed, with
// our notice first, without markup of the peer's or what normalizes to such, and
// with these attributes alone, each of that value; nil takes any of our names.
func CheckBlock(text string, want map[string]string) error {
	if err := CheckTerminal(text); err != nil {
		return err
	}
	if !strings.HasPrefix(text, begin) || !strings.HasSuffix(text, finish) {
		return fmt.Errorf("not one block from its start to its end: %.300q", text)
	}
	if n := strings.Count(text, "<") + strings.Count(text, ">"); n != 4 || strings.ContainsAny(text, "＜＞﹤﹥≮≯") {
		return fmt.Errorf("markup of the peer's, %d brackets: %.300q", n, text)
	}
	head, body, _ := strings.Cut(text, ">")
	if !strings.HasPrefix(body, "\n"+render.Notice+"\n") {
		return fmt.Errorf("the notice does not come first: %.300q", body)
	}
	if strings.ContainsAny(head, "\n\t＂") {
		return fmt.Errorf("an attribute is more than a line: %.300q", head)
	}
	got, err := parse(text)
	if err != nil {
		return fmt.Errorf("%w: %.300q", err, text)
	}
	for name := range got {
		if !slices.Contains(attributes, name) {
			return fmt.Errorf("attribute %q: %.300q", name, text)
		}
	}
	if want != nil && !maps.Equal(got, want) {
		return fmt.Errorf("attributes %q, want %q", got, want)
	}
	return nil
}

// parse reads a block as XML: one element, holding text only.
func parse(block string) (attrs map[string]string, err error) {
	d := xml.NewDecoder(strings.NewReader(block))
	for depth := 0; ; {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) && attrs != nil && depth == 0 {
			return attrs, nil
		}
		if err != nil {
			return nil, fmt.Errorf("not XML: %w", err)
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			if depth++; attrs != nil || tok.Name.Space != "" || tok.Name.Local != element {
				return nil, fmt.Errorf("element %v", tok.Name)
			}
			attrs = map[string]string{}
			for _, a := range tok.Attr {
				if _, twice := attrs[a.Name.Local]; twice || a.Name.Space != "" {
					return nil, fmt.Errorf("attribute %v twice, or in a namespace", a.Name)
				}
				attrs[a.Name.Local] = a.Value
			}
		case xml.EndElement:
			depth--
		case xml.CharData:
			if depth == 0 {
				return nil, errors.New("text beside the element")
			}
		default:
			return nil, fmt.Errorf("token %T", tok)
		}
	}
}

// Split parts a text of ours into its blocks, each as it stands, and the lines
// outside of them. A peer's text cannot start or end a block, so that what is
// outside is ours.
func Split(text string) (blocks, outside []string, err error) {
	for text != "" {
		if strings.HasPrefix(text, begin) {
			at := strings.Index(text, finish)
			if at < 0 {
				return nil, nil, fmt.Errorf("a block does not end: %.300q", text)
			}
			blocks, text = append(blocks, text[:at+len(finish)]), strings.TrimPrefix(text[at+len(finish):], "\n")
			continue
		}
		line, rest, _ := strings.Cut(text, "\n")
		if strings.ContainsAny(line, "<>") {
			return nil, nil, fmt.Errorf("markup outside of a block: %.300q", line)
		}
		outside, text = append(outside, line), rest
	}
	return blocks, outside, nil
}

// CheckText checks a text of ours for a model: this many blocks, each with these
// attributes (nil: any of our names), and outside of them these lines alone.
func CheckText(text string, n int, want map[string]string, outside ...string) error {
	if err := CheckTerminal(text); err != nil {
		return err
	}
	blocks, lines, err := Split(text)
	if err != nil {
		return err
	}
	for _, b := range blocks {
		if err := CheckBlock(b, want); err != nil {
			return err
		}
	}
	if len(blocks) != n || !slices.Equal(lines, outside) {
		return fmt.Errorf("%d blocks, want %d; outside %.300q, want %q", len(blocks), n, lines, outside)
	}
	return nil
}

// CheckJSON checks what a program prints as JSON: one document, nothing behind
// it, clean for a terminal; v takes what it decodes to.
func CheckJSON(printed string, v any) error {
	if err := CheckTerminal(printed); err != nil {
		return err
	}
	d := json.NewDecoder(strings.NewReader(printed))
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("not JSON: %w: %.300q", err, printed)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("more than one document: %.300q", printed)
	}
	return nil
}

// CheckHook checks what a hook prints for an event of Claude Code, and returns
// the context that it gives. It is one line of JSON with the event's name and a
// context, and without any word that decides something.
func CheckHook(printed, event string) (context string, err error) {
	type specific struct {
		Event   string `json:"hookEventName"`
		Context string `json:"additionalContext"`
	}
	var answer struct {
		Specific specific `json:"hookSpecificOutput"`
	}
	if err := strictly([]byte(printed), &answer); err != nil {
		return "", err
	}
	if answer.Specific.Event != event {
		return "", fmt.Errorf("an answer to %q", answer.Specific.Event)
	}
	return answer.Specific.Context, CheckTerminal(answer.Specific.Context)
}

// strictly decodes a line of JSON that holds what v has fields for, and each once.
func strictly(line []byte, v any) error {
	if bytes.Count(line, []byte("\n")) != 1 || !bytes.HasSuffix(line, []byte("\n")) {
		return fmt.Errorf("not one line: %.300q", line)
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: %.300q", err, line)
	}
	var again bytes.Buffer
	e := json.NewEncoder(&again)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil || !bytes.Equal(again.Bytes(), line) {
		return fmt.Errorf("it holds more than it should: %.300q", line)
	}
	return nil
}

// metas are the keys that a channel notification may have beside its content.
var metas = append([]string{"kind", "message_id"}, slices.DeleteFunc(slices.Clone(attributes), func(s string) bool { return s == "id" })...)

// Channel is a channel notification.
type Channel struct {
	Content string            `json:"content"`
	Meta    map[string]string `json:"meta"`
}

// CheckRPC checks a line that an MCP server has written: one JSON-RPC message
// that answers, shows progress or announces. Nothing that it can be taken for
// grants a permission. It returns the announcement, if it is one.
func CheckRPC(line string) (*Channel, error) {
	if strings.Contains(strings.TrimSuffix(line, "\n"), "\n") {
		return nil, fmt.Errorf("not one line: %.300q", line)
	}
	var m struct {
		Version string          `json:"jsonrpc"`
		ID      json.RawMessage `json:"id"`
		Method  string          `json:"method"`
		Params  json.RawMessage `json:"params"`
		Result  json.RawMessage `json:"result"`
		Error   json.RawMessage `json:"error"`
	}
	d := json.NewDecoder(strings.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil || m.Version != "2.0" {
		return nil, fmt.Errorf("no JSON-RPC: %w: %.300q", err, line)
	}
	if d.More() {
		return nil, fmt.Errorf("a second message: %.300q", line)
	}
	switch m.Method {
	case "", "notifications/progress":
		return nil, nil
	case "notifications/claude/channel":
	default:
		return nil, fmt.Errorf("method %q", m.Method)
	}
	var c Channel
	params := json.NewDecoder(bytes.NewReader(m.Params))
	params.DisallowUnknownFields()
	if err := params.Decode(&c); err != nil {
		return nil, fmt.Errorf("%w: %.300q", err, line)
	}
	for key, value := range c.Meta {
		if !slices.Contains(metas, key) {
			return nil, fmt.Errorf("meta %q", key)
		}
		if err := CheckLine(value); err != nil {
			return nil, fmt.Errorf("meta %s: %w", key, err)
		}
		if strings.ContainsAny(value, `<>"`) {
			return nil, fmt.Errorf("meta %s holds markup: %.300q", key, value)
		}
	}
	return &c, CheckBlock(c.Content, nil)
}

// CheckData checks decoded JSON that a model may be shown: each string in it is
// one block, where its key says so, or a line without markup.
func CheckData(v any) error {
	switch v := v.(type) {
	case map[string]any:
		for key, inner := range v {
			if block, ok := inner.(string); ok && key == "block" {
				if err := CheckBlock(block, nil); err != nil {
					return err
				}
				continue
			}
			if err := errors.Join(CheckData(key), CheckData(inner)); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
		}
	case []any:
		for _, inner := range v {
			if err := CheckData(inner); err != nil {
				return err
			}
		}
	case string:
		if strings.ContainsAny(v, "<>") {
			return fmt.Errorf("markup: %.200q", v)
		}
		return CheckLine(v)
	}
	return nil
}
