package client_test

import (
	"context"
	"encoding/json"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/meshtest"
	"github.com/claudemesh/claudemesh/internal/seal"
	"github.com/claudemesh/claudemesh/internal/wire"
)

var replayAttacks = []attack{
	{"replay a message under its number", nothing, "", func(h *hostile) { h.replayed(0) }},
	{"replay a message under another number", takesIt, "replayed", func(h *hostile) { h.replayed(1000) }},
	{"replay a message on another connection", nothing, "", func(h *hostile) {
		p := h.overheard()
		h.again()
		h.ready()
		h.inject(p)
	}},
	{"replay a message when its id is forgotten", refuses, "replayed", func(h *hostile) {
		p := h.overheard()
		h.skew.Store(int64(40 * 24 * time.Hour))
		h.lie(func(f wire.Frame) []wire.Frame {
			if a, ok := f.(*wire.HelloAck); ok {
				a.ServerTime += h.skew.Load() / 1e6
			}
			return []wire.Frame{f}
		})
		h.again()
		h.ready()
		meshtest.Eventually(h, "the message is forgotten", func() bool { return len(h.shown()) == 0 })
		h.inject(p)
	}},
	{"set the clock forward, so that ids are forgotten, and replay", nothing, "", func(h *hostile) {
		p := h.overheard()
		pruned := make(chan struct{})
		h.box = pruning{h.box, pruned}
		h.lie(func(f wire.Frame) []wire.Frame {
			if a, ok := f.(*wire.HelloAck); ok {
				a.ServerTime += (40 * 24 * time.Hour).Milliseconds()
			}
			return []wire.Frame{f}
		})
		h.again()
		<-pruned
		h.inject(p)
	}},
	{"reorder or keep back messages of one sender", tells, "missing", reorder},
	{"one message under two numbers, two messages under one", takesIt, "replayed", func(h *hostile) {
		var first *wire.Push
		h.lie(func(f wire.Frame) []wire.Frame {
			p, ok := f.(*wire.Push)
			if !ok {
				return []wire.Frame{f}
			}
			if first == nil {
				first = p
				return []wire.Frame{p}
			}
			q := *first
			q.Delivery = p.Delivery
			return []wire.Frame{&q, p}
		})
		h.arrives(h.say("bob/api"))
		h.arrives(h.say("bob/api"))
	}},
}

// overheard is a message that bob has received.
func (h *hostile) overheard() *wire.Push {
	var seen *wire.Push
	h.pushes(func(p *wire.Push) { q := *p; seen = &q })
	h.say("bob/api")
	h.w.Next(h.bob)
	return seen
}

// replayed shows a message again, with its number moved.
func (h *hostile) replayed(by int64) {
	h.lie(func(f wire.Frame) []wire.Frame {
		if p, ok := f.(*wire.Push); ok {
			q := *p
			q.Delivery += by
			return []wire.Frame{p, &q}
		}
		return []wire.Frame{f}
	})
	h.arrives(h.say("bob/api"))
}

func (h *hostile) ready() {
	if err := h.bob.Ready(h.Context()); err != nil {
		h.Fatal(err)
	}
}

// pruning is a mailbox that tells when it has forgotten what is old.
type pruning struct {
	client.Mailbox
	done chan struct{}
}

func (p pruning) Prune(ctx context.Context, keep time.Duration, now, serverNow int64) error {
	defer close(p.done)
	return p.Mailbox.Prune(ctx, keep, now, serverNow)
}

func reorder(h *hostile) {
	h.arrives(h.say("bob/api"))
	var kept wire.Frame
	h.lie(func(f wire.Frame) []wire.Frame {
		if _, ok := f.(*wire.Push); ok && kept == nil {
			kept = f
			return nil
		}
		return []wire.Frame{f}
	})
	first := h.say("bob/api")
	h.arrives(h.say("bob/api"))
	gaps, err := h.bob.Missing(h.Context())
	if err != nil || len(gaps) != 0 {
		h.Fatalf("missing at once: %+v, %v", gaps, err)
	}
	h.skew.Store(int64(31 * time.Second))
	gaps, err = h.bob.Missing(h.Context())
	h.missed = err == nil && len(gaps) == 1
	h.inject(kept)
	h.arrives(first)
}

var receiptAttacks = []attack{
	{"receipts for what was never sent, and from whom it was not sent to", nothing, "", func(h *hostile) {
		id := h.asked()
		h.inject(
			&wire.Receipt{ID: wire.ID{1}, Recipient: h.alice.Key(), State: wire.StateDelivered, At: 1},
			&wire.Receipt{ID: id, Recipient: h.eveSession.Public(), State: wire.StateBounced, Code: wire.CodeExpired, At: 1},
		)
		if s, _, err := h.bob.Status(h.Context(), id); err != nil || len(s.Targets) != 1 || s.Targets[0].State == client.Bounced {
			h.Errorf("%+v, %v", s, err)
		}
	}},
	{"a receipt \"bounced\" after \"delivered\"", nothing, "", func(h *hostile) {
		id := h.asked()
		state(h.T, h.bob, id, client.Delivered)
		h.inject(&wire.Receipt{ID: id, Recipient: h.alice.Key(), State: wire.StateBounced, Code: wire.CodeExpired, At: 1})
		state(h.T, h.bob, id, client.Delivered)
	}},
	{"a receipt \"delivered\" after \"bounced\"", nothing, "", func(h *hostile) {
		h.relay.Hook(func(_ bool, f wire.Frame) []wire.Frame {
			switch f := f.(type) {
			case *wire.Receipt:
				return nil
			case *wire.Ack:
				return []wire.Frame{&wire.Error{Req: f.Req, Code: wire.CodeExpired}}
			}
			return []wire.Frame{f}
		})
		s, err := h.bob.Send(h.Context(), client.Message{To: []string{"alice/web"}, Text: "never mind"})
		if err != nil || s.OK() {
			h.Fatalf("%+v, %v", s, err)
		}
		h.inject(&wire.Receipt{ID: s.ID, Recipient: h.alice.Key(), State: wire.StateDelivered, At: 1})
		state(h.T, h.bob, s.ID, client.Bounced)
	}},
	{"\"delivered\" of what was not, in a receipt or a status", nothing, "", func(h *hostile) {
		id := h.asked()
		h.inject(&wire.Receipt{ID: id, Recipient: h.alice.Key(), State: wire.StateDelivered, At: 1})
		state(h.T, h.bob, id, client.Delivered) // the broker's word; that it was read is sealed
	}},
	{"a read receipt by whom the message was not for", refuses, "bad_receipt", func(h *hostile) {
		carol := memberKey(h.carol())
		id := h.asked()
		state(h.T, h.bob, id, client.Delivered)
		h.inject(h.forge(carol, carol.Public(), nil, wire.ModeReceipt, h.readOf(id)))
		state(h.T, h.bob, id, client.Delivered)
	}},
	{"a read receipt by a stranger", refuses, "unknown_sender", func(h *hostile) {
		id := h.asked()
		state(h.T, h.bob, id, client.Delivered)
		h.inject(h.forge(h.eve, h.eve.Public(), nil, wire.ModeReceipt, h.readOf(id)))
		state(h.T, h.bob, id, client.Delivered)
	}},
	{"a ghost recipient in an acknowledgement", nothing, "", func(h *hostile) {
		h.lie(func(f wire.Frame) []wire.Frame {
			if a, ok := f.(*wire.Ack); ok {
				a.Recipients = append(a.Recipients, wire.Recipient{Key: h.eveSession.Public(), Online: true, State: wire.StateDelivered})
			}
			return []wire.Frame{f}
		})
		if s := send(h.T, h.bob, "alice/web", "for you alone"); len(s.Targets) != 1 || s.Targets[0].Key != h.alice.Key() {
			h.Errorf("sent to %+v", s.Targets)
		}
	}},
	{"acknowledge another message than was sent", takesIt, "bad_ack", func(h *hostile) { h.misAcked(func(a *wire.Ack) { a.ID[0] ^= 1 }) }},
	{"acknowledge a message as not queued", takesIt, "bad_ack", func(h *hostile) { h.misAcked(func(a *wire.Ack) { a.Queued = false }) }},
}

// asked is a message of bob's to alice, which she has not read.
func (h *hostile) asked() wire.ID { return send(h.T, h.bob, "alice/web", "a question").ID }

// readOf says that alice has read a message.
func (h *hostile) readOf(id wire.ID) seal.Content {
	raw, err := json.Marshal(map[string]any{"state": "read", "recipient": h.alice.Key(), "ids": []wire.ID{id}})
	if err != nil {
		h.Fatal(err)
	}
	return seal.Content{Type: "application/claudemesh-receipt", Body: raw}
}

// misAcked acknowledges one message wrongly. It is sent again, and then accepted.
func (h *hostile) misAcked(edit func(a *wire.Ack)) {
	done := false
	h.lie(func(f wire.Frame) []wire.Frame {
		if a, ok := f.(*wire.Ack); ok && !done {
			done = true
			edit(a)
		}
		if _, ok := f.(*wire.Receipt); ok {
			return nil
		}
		return []wire.Frame{f}
	})
	id := h.asked()
	meshtest.Eventually(h, "the message is accepted", func() bool {
		s, _, err := h.bob.Status(h.Context(), id)
		return err == nil && s.Targets[0].State != client.Stored
	})
}
