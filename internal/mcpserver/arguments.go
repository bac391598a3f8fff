package mcpserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/render"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// decodeStrict reads arguments and says in a sentence what is wrong with them.
func decodeStrict(raw []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return nil
	case errors.Is(err, errArguments):
		return err
	}
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		if wrong.Field == "" {
			return badArgument("the arguments are one object with: %s", strings.Join(fields(v), ", "))
		}
		return badArgument("%s must be %s, not %s", wrong.Field, jsonKind(wrong.Type), wrong.Value)
	}
	if _, field, ok := strings.Cut(err.Error(), "unknown field "); ok {
		return badArgument("unknown argument %s; the arguments are: %s", render.Inline(strings.Trim(field, `"`), 64), strings.Join(fields(v), ", "))
	}
	return badArgument("%s", render.Inline(err.Error(), 200))
}

// fields lists the arguments that v takes.
func fields(v any) (names []string) {
	t := reflect.TypeOf(v).Elem()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		names = append(names, name)
	}
	if len(names) == 0 {
		return []string{"none"}
	}
	return names
}

func jsonKind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	default:
		return "of another type"
	}
}

// targets is one target, a comma list of them, or a list.
type targets []string

// UnmarshalJSON reads a string or a list of strings.
func (t *targets) UnmarshalJSON(raw []byte) error {
	var one string
	var list []string
	if json.Unmarshal(raw, &one) == nil {
		list = []string{one}
	} else if json.Unmarshal(raw, &list) != nil {
		return badArgument("to must be a string or a list of strings")
	}
	for _, s := range list {
		for part := range strings.SplitSeq(s, ",") {
			if part = strings.TrimSpace(part); part != "" {
				*t = append(*t, part)
			}
		}
	}
	return nil
}

const (
	maxWait    = 110 // seconds; hosts give up a call after about 120
	maxTargets = wire.MaxWraps
)

// seconds checks a wait_seconds argument.
func seconds(n int) error {
	if n < 0 || n > maxWait {
		return badArgument("wait_seconds is 0 to %d, not %d", maxWait, n)
	}
	return nil
}

// messageID reads an id argument.
func messageID(name, s string) (client.ID, error) {
	id, err := wire.ParseID(strings.TrimSpace(s))
	if err != nil || id.IsZero() {
		return id, badArgument("%s is the 32 hex digits that send_message and check_messages print, not %q", name, render.Inline(s, 64))
	}
	return id, nil
}
