package client

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"testing"

	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/seal"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// FuzzCard: a card that is taken is within its limits, and what it says comes back.
func FuzzCard(f *testing.F) {
	for _, s := range []string{
		`{}`, `null`, `{"label":"api","groups":[{"name":"backend","role":"lead"}],"status":"idle","summary":"x","wake":"mod","wokenAt":1}`,
		`{"wake":"newer","wokenAt":7}`, `{"label":"a/b"}`, `{"groups":[{}]}`, `{"summary":"\u2028"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := parseCard(raw)
		if err != nil {
			var fault *wire.Fault
			if !errors.As(err, &fault) || fault.Code != wire.CodeBadCard {
				t.Fatalf("%q: %v", raw, err)
			}
			return
		}
		one, err := wire.Marshal(c)
		if err != nil || len(one) > maxCard || len(c.Groups) > MaxGroups || c.Wake == "" && c.WokenAt != 0 {
			t.Fatalf("%q is %+v: %v", raw, c, err)
		}
		again, err := parseCard(one)
		if err != nil {
			t.Fatalf("%q: %v", one, err)
		}
		if two, err := wire.Marshal(again); err != nil || !reflect.DeepEqual(one, two) {
			t.Fatalf("%q, then %q: %v", one, two, err)
		}
	})
}

// FuzzReceipt: a receipt is for its sender's own messages alone.
func FuzzReceipt(f *testing.F) {
	member, session := testKey("bob"), testKey("bob/api")
	for _, of := range []Key{member, session, testKey("carol"), {}} {
		b, err := wire.Marshal(receiptBody{State: Read, Recipient: of, IDs: []ID{{1}, {2}}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(b))
	}
	f.Add([]byte(`{"state":"bounced"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		c := &Client{box: mailbox.NewMemory(), m: Membership{}, log: slog.New(slog.DiscardHandler)}
		defer func() { _ = c.box.Close() }()
		o := seal.Opened{Content: seal.Content{Type: receiptType, Body: body}}
		o.Header.SenderMember, o.Header.SenderSession = member, session
		err := c.readReceipt(context.Background(), o)
		var r receiptBody
		wellFormed := wire.Unmarshal(body, &r) == nil && r.State == Read && (r.Recipient == member || r.Recipient == session)
		if (err == nil) != wellFormed {
			t.Fatalf("%q: %v", body, err)
		}
	})
}
