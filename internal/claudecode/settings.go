package claudecode

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// object is the text of a JSON object, of which single members are edited: all
// else in it stays as its owner wrote it.
type object struct {
	text       []byte
	members    []member
	open, shut int // behind the brace that opens it, before the one that closes it
}

// member stands at text[start:end], from its name to the end of its value.
type member struct {
	name       string
	start, end int
	value      jsontext.Value
}

// parseObject refuses what is not one JSON object, also one with a name twice.
func parseObject(text []byte) (*object, error) {
	dec := jsontext.NewDecoder(bytes.NewReader(text))
	tok, err := dec.ReadToken()
	if err == nil && tok.Kind() != '{' {
		err = errors.New("it is no JSON object")
	}
	if err != nil {
		return nil, err
	}
	o := &object{text: text, open: int(dec.InputOffset())}
	for dec.PeekKind() != '}' {
		at := int(dec.InputOffset())
		start := at + len(text[at:]) - len(bytes.TrimLeft(text[at:], " \t\r\n,"))
		name, err := dec.ReadToken()
		if err != nil {
			return nil, err
		}
		key := name.String()
		value, err := dec.ReadValue()
		if err != nil {
			return nil, err
		}
		o.members = append(o.members, member{key, start, int(dec.InputOffset()), value.Clone()})
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	o.shut = int(dec.InputOffset()) - 1
	if _, err := dec.ReadToken(); err != io.EOF {
		return nil, errors.New("something stands behind the JSON object")
	}
	return o, nil
}

func (o *object) index(name string) int {
	for i, m := range o.members {
		if m.name == name {
			return i
		}
	}
	return -1
}

// value is the member's value, nil if there is none.
func (o *object) value(name string) jsontext.Value {
	if i := o.index(name); i >= 0 {
		return o.members[i].value
	}
	return nil
}

// add puts a member behind the last one, spaced as the first one is.
func (o *object) add(name, value string) []byte {
	text := fmt.Sprintf("%s: %s", quoteJSON(name), value)
	if len(o.members) == 0 {
		return o.splice(o.open, o.shut, "\n  "+text+"\n")
	}
	end := o.members[len(o.members)-1].end
	return o.splice(end, end, ","+string(o.text[o.open:o.members[0].start])+text)
}

// remove takes the member at i out, with its comma.
func (o *object) remove(i int) []byte {
	switch {
	case i > 0:
		return o.splice(o.members[i-1].end, o.members[i].end, "")
	case len(o.members) > 1:
		return o.splice(o.members[0].start, o.members[1].start, "")
	}
	return o.splice(o.open, o.shut, "")
}

// without is the object without a member that it has.
func (o *object) without(name string) *object {
	rest, err := parseObject(o.remove(o.index(name)))
	if err != nil {
		panic(err) // it was an object
	}
	return rest
}

func (o *object) splice(from, to int, with string) []byte {
	var b strings.Builder
	b.Write(o.text[:from])
	b.WriteString(with)
	b.Write(o.text[to:])
	return []byte(b.String())
}

// same says whether two JSON texts hold the same, in whatever order and spacing.
func same(a, b []byte) bool {
	x, y := jsontext.Value(a).Clone(), jsontext.Value(b).Clone()
	return x.Canonicalize() == nil && y.Canonicalize() == nil && bytes.Equal(x, y)
}
