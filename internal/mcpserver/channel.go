package mcpserver

import (
	"context"
	"slices"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/courier"
	"github.com/claudemesh/claudemesh/internal/mailbox"
)

const (
	channelMethod = "notifications/claude/channel"
	channelSize   = 8 << 10 // of one announcement
	// lookEvery is how often is looked without a hint: a mesh may have been
	// joined, and another program may have ended dnd.
	lookEvery    = 5 * time.Second
	announcePage = 16 // small: what is urgent overtakes between pages
)

// announce tells the host of each new message, once, one at a time, from when
// the host is ready until ctx ends. What was announced stays unread. With
// status dnd only messages of priority now are announced.
func (m *meshServer) announce(ctx context.Context) {
	select {
	case <-m.out.ready:
	case <-ctx.Done():
		return
	}
	changes := m.box.Watch(ctx)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		for again := true; again; {
			var err error
			if again, err = m.announceSome(ctx); err != nil && ctx.Err() == nil {
				m.log.Warn("messages are not announced", "error", err)
			}
		}
		select {
		case <-changes:
		case <-m.wake:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// announceSome announces what is new, and reports whether there may be more.
func (m *meshServer) announceSome(ctx context.Context) (again bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			logPanic(m.log, "announce", p)
			again = false // until the next hint
		}
	}()
	if !announced(m.record.now(ctx)) {
		return false, nil
	}
	var fresh []taken
	for _, cl := range m.fleet.Clients() {
		q := m.unread(cl, announcePage)
		q.Unoffered, q.Gate = true, mailbox.OpenGate // bodies go out
		list, more, err := m.box.List(ctx, q)
		if err != nil {
			return false, err
		}
		again = again || more > 0
		for _, in := range list {
			fresh = append(fresh, taken{in, cl})
		}
	}
	slices.SortFunc(fresh, byUrgency)
	some := false
	for _, t := range fresh {
		if m.heldBack(&t) {
			continue
		}
		// Sessions of one member share the mailbox: who marks it, announces it.
		first, err := m.box.MarkOffered(ctx, t.Number, m.serverClock(t.of))
		if err != nil {
			return false, err
		}
		if !first {
			continue
		}
		some = true
		if err := m.out.notify(ctx, channelMethod, announcement(&t.Incoming, t.of.Mesh())); err != nil {
			return false, err
		}
		m.log.Debug("announced", "id", t.ID.String(), "priority", string(t.Priority))
	}
	return again && some, nil
}

// announced reports whether an agent's messages go by the channel: not those of one
// that a better path wakes, which would have them twice, nor of one that is not to be woken.
func announced(a *mailbox.Agent) bool {
	if a == nil {
		return true
	}
	wake := a.Wake()
	return a.Mode == mailbox.Push && wake != mailbox.ByMod && wake != mailbox.ByRewake
}

// heldBack reports whether a message is not to be announced now: a call waits
// for it, or the agent does not want to be disturbed.
func (m *meshServer) heldBack(t *taken) bool {
	m.mu.Lock()
	held := m.held[t.Mesh] > 0 || (!t.ReplyTo.IsZero() && m.held[t.ReplyTo] > 0)
	m.mu.Unlock()
	return held || (t.of.Card().Status == client.StatusDND && t.Urgency != client.Now)
}

// announcement is the params of a channel notification: meta is strings under
// keys of letters, digits and underscores, for a host drops anything else.
func announcement(in *mailbox.Incoming, mesh string) map[string]any {
	msg := courier.Message(in, mesh)
	meta := map[string]string{"kind": string(in.Mode)}
	for _, a := range msg.Attributes() {
		if a[0] == "id" {
			a[0] = "message_id"
		}
		meta[a[0]] = a[1]
	}
	return map[string]any{"content": msg.BlockWithin(channelSize), "meta": meta}
}
