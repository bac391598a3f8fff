package mailbox

import (
	"context"
	"slices"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// memSpread is which texts were sent and received, and what passed by itself.
type memSpread struct {
	texts     map[[16]byte]*memText
	automatic map[pair][]int64 // when, as it came
}

// memText is one text: the messages here that have it.
type memText struct {
	received int
	sent     []*memOut
}

// pair is one of ours and a peer's session.
type pair struct{ own, peer wire.Key }

func (b *mem) text(of string) *memText {
	d := Digest(of)
	t := b.texts[d]
	if t == nil {
		t = new(memText)
		b.texts[d] = t
	}
	return t
}

// noteSent keeps what Spread and the brake ask for.
func (b *mem) noteSent(o *memOut) {
	if o.Text != "" {
		t := b.text(o.Text)
		t.sent = append(t.sent, o)
	}
	if isAutomatic(o.Hop) {
		for _, r := range o.Recipients {
			k := pair{o.Sender, r.Key}
			b.automatic[k] = append(b.automatic[k], o.Sent)
		}
	}
}

func (b *mem) noteReceived(m *memIn) {
	if m.Text != "" {
		b.text(m.Text).received++
	}
	if isAutomatic(m.Hop) {
		k := pair{m.Recipient, m.SenderSession}
		b.automatic[k] = append(b.automatic[k], m.Received)
	}
}

// forgetSent is for a message that is dropped.
func (b *mem) forgetSent(o *memOut) {
	if o.Text != "" {
		t := b.text(o.Text)
		t.sent = slices.DeleteFunc(t.sent, func(other *memOut) bool { return other == o })
		b.tidyText(o.Text, t)
	}
}

func (b *mem) forgetReceived(m *memIn) {
	if m.Text != "" {
		t := b.text(m.Text)
		t.received--
		b.tidyText(m.Text, t)
	}
}

func (b *mem) tidyText(of string, t *memText) {
	if t.received == 0 && len(t.sent) == 0 {
		delete(b.texts, Digest(of))
	}
}

// passed counts the automatic messages between two since a time, and forgets
// those before.
func (b *mem) passed(k pair, since int64) int {
	times := slices.DeleteFunc(b.automatic[k], func(at int64) bool { return at < since })
	if b.automatic[k] = times; len(times) == 0 {
		delete(b.automatic, k)
	}
	return len(times)
}

// Spread returns who was sent a text.
func (b *mem) Spread(ctx context.Context, mesh wire.ID, sender wire.Key, digest [16]byte, since int64) (to []wire.Key, known bool, err error) {
	err = b.look(ctx, func() {
		t := b.texts[digest]
		if t == nil {
			return
		}
		known = true
		for _, o := range t.sent {
			if o.Mesh != mesh || o.Sender != sender || o.Sent < since {
				continue
			}
			for _, r := range o.Recipients {
				if !slices.Contains(to, r.Key) {
					to = append(to, r.Key)
				}
			}
		}
	})
	return to, known, err
}

// HopOf returns the highest hop of what a message answers.
func (b *mem) HopOf(ctx context.Context, recipients []wire.Key, replyTo wire.ID, from []wire.Key, since int64) (hop uint64, ok bool, err error) {
	err = b.look(ctx, func() {
		see := func(m *memIn) { hop, ok = max(hop, m.Hop), true }
		for _, m := range b.byID[replyTo] {
			if slices.Contains(recipients, m.Recipient) {
				see(m)
			}
		}
		for _, k := range recipients {
			box := b.boxes[k]
			if box == nil {
				continue
			}
			for _, m := range box.all {
				if m.ReadAt > 0 && m.ReadAt >= since && (slices.Contains(from, m.SenderSession) || slices.Contains(from, m.SenderMember)) {
					see(m)
				}
			}
		}
	})
	return hop, ok, err
}
