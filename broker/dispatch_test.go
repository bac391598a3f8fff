package broker_test

import (
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// Every refused frame is answered with its request's id, and the connection lives.
func TestDispatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	s, o := w.founder.session(), w.founder.observer()
	for _, c := range []struct {
		name string
		peer *peer
		text string
		req  string
		code wire.Code
	}{
		{"unknown type", s, `{"type":"dance","_reqId":"x1"}`, "x1", wire.CodeUnknownType},
		{"type last", s, `{"_reqId":"x2","type":"dance"}`, "x2", wire.CodeUnknownType},
		{"no type", s, `{"_reqId":"x3"}`, "", wire.CodeBadFrame},
		{"no object", s, `"send"`, "", wire.CodeBadFrame},
		{"not JSON", s, `{"type":"send",`, "", wire.CodeBadFrame},
		{"empty array", s, `[]`, "", wire.CodeBadFrame},
		{"array of numbers", s, `[1]`, "", wire.CodeBadFrame},
		{"wrong field type", s, `{"type":"send","_reqId":"x4","id":7}`, "x4", wire.CodeBadFrame},
		{"short hex", s, `{"type":"send","_reqId":"x5","id":"abcd"}`, "x5", wire.CodeBadFrame},
		{"base64 not canonical", s, `{"type":"send","_reqId":"x6","nonce":"AB=="}`, "x6", wire.CodeBadFrame},
		{"duplicate field", s, `{"type":"members","_reqId":"x7","since":1,"since":2}`, "x7", wire.CodeBadFrame},
		{"second hello", s, `{"type":"hello","_reqId":"x8"}`, "x8", wire.CodeUnknownType},
		{"server's push", s, `{"type":"push","_reqId":"x9"}`, "x9", wire.CodeUnknownType},
		{"server's ack", s, `{"type":"ack","_reqId":"x10"}`, "x10", wire.CodeUnknownType},
		{"server's receipt", s, `{"type":"receipt","_reqId":"x11"}`, "x11", wire.CodeUnknownType},
		{"server's error", s, `{"type":"error","_reqId":"x12"}`, "x12", wire.CodeUnknownType},
		{"server's challenge", s, `{"type":"challenge","_reqId":"x13"}`, "x13", wire.CodeUnknownType},
		{"observer acks", o, `{"type":"client_ack","_reqId":"x14","deliveries":[1]}`, "x14", wire.CodeForbidden},
		{"observer nacks", o, `{"type":"client_nack","_reqId":"x15","delivery":1,"code":"bad_box"}`, "x15", wire.CodeForbidden},
		{"observer shows a card", o, `{"type":"set_card","_reqId":"x16"}`, "x16", wire.CodeForbidden},
		{"nack without a code", s, `{"type":"client_nack","_reqId":"x17","delivery":1,"code":"sorry"}`, "x17", wire.CodeBadFrame},
		{"too many acks", s, `{"type":"client_ack","_reqId":"x18","deliveries":[1` + strings.Repeat(",1", wire.MaxAcks) + `]}`, "x18", wire.CodeTooLarge},
		{"too many ids", s, `{"type":"message_status","_reqId":"x19","ids":["` + strings.Repeat(strings.Repeat("0", 32)+`","`, wire.MaxStatusIDs) + strings.Repeat("0", 32) + `"]}`, "x19", wire.CodeTooLarge},
		{"second of two", s, `[{"type":"members","_reqId":"fine"},{"type":"dance","_reqId":"x20"}]`, "x20", wire.CodeUnknownType},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.peer.text(c.text)
			e := want[*wire.Error](c.peer)
			if e.Code != c.code || e.ReqID != c.req || e.Retryable != c.code.Info().Retryable {
				t.Errorf("%+v", e)
			}
			c.peer.sync()
		})
	}
	s.raw(websocket.MessageBinary, `{"type":"members"}`)
	if e := want[*wire.Error](s); e.Code != wire.CodeBadFrame {
		t.Errorf("binary: %+v", e)
	}
	s.sync()
	s.text(`{"type":"members","x":"` + strings.Repeat("x", wire.MaxMessageBytes) + `"}`)
	if got := s.closed(); got != websocket.StatusMessageTooBig {
		t.Errorf("oversize: %d", got)
	}
}

func TestPanic(t *testing.T) { // not parallel: the hook is everyone's
	w := newWorld(t, nil)
	s := w.founder.session()
	broker.PanicNow.Store(true)
	defer broker.PanicNow.Store(false)
	s.refused(&wire.InviteList{}, wire.CodeInternal)
	s.sync()
	broker.PanicNow.Store(false)
	ask[*wire.Invites](s, &wire.InviteList{})
}

// Frames of one message are handled in order, and each is answered.
func TestBatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	bob := w.join(trust.RoleMember, "bob")
	a, b := w.founder.session(), bob.session()
	var parts []string
	var ids []wire.ID
	for range 40 {
		m := a.dm(b.pub())
		raw, _ := wire.Append(nil, m)
		parts, ids = append(parts, string(raw)), append(ids, m.ID)
	}
	a.text("[" + strings.Join(parts, ",") + "]")
	for i, id := range ids {
		if got := want[*wire.Ack](a); got.ID != id {
			t.Fatalf("ack %d is of another message", i)
		}
		p := want[*wire.Push](b)
		if p.ID != id {
			t.Fatalf("push %d is of another message", i)
		}
		b.ackPush(p)
	}
}
