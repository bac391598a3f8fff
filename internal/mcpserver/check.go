package mcpserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/render"
)

const (
	defaultLimit = 20
	maxLimit     = 100
	// maxAnswer bounds the text of one answer: what does not fit stays unread.
	// A first message is always shown.
	maxAnswer = 64 << 10
)

type checkArgs struct {
	Wait  int    `json:"wait_seconds"`
	Limit *int   `json:"limit"`
	Mesh  string `json:"mesh"`
	ID    string `json:"id"`
}

type checkData struct {
	Messages  []messageData `json:"messages"`
	Remaining int           `json:"remaining"`
	Missing   []missingData `json:"missing,omitempty"`
	Offline   []string      `json:"offlineMeshes,omitempty"`
}

type missingData struct {
	From  string `json:"from"`
	Mesh  string `json:"mesh"`
	Count int    `json:"count"`
}

func checkMessages(ctx context.Context, c *call) (*result, error) {
	var a checkArgs
	if err := arguments(c, &a); err != nil {
		return nil, err
	}
	limit := defaultLimit
	if a.Limit != nil {
		limit = *a.Limit
	}
	if limit < 1 || limit > maxLimit {
		return nil, badArgument("limit is 1 to %d, not %d", maxLimit, limit)
	}
	if err := seconds(a.Wait); err != nil {
		return nil, err
	}
	set, err := c.set.Named(a.Mesh)
	if err != nil {
		return nil, err
	}
	c.settle(ctx, set)
	if a.ID != "" {
		return c.wholeMessage(ctx, set, a.ID)
	}
	msgs, more, err := c.waitMessages(ctx, set, limit, time.Duration(a.Wait)*time.Second)
	if err != nil {
		return nil, err
	}
	return c.reportMessages(ctx, set, msgs, more)
}

// waitMessages takes what is there, or waits for the first that comes.
func (c *call) waitMessages(ctx context.Context, set client.Set, limit int, wait time.Duration) (msgs []taken, more int, err error) {
	if wait > 0 {
		defer c.holdFor(ctx, meshIDs(set)...)()
		defer c.progress(ctx, wait, "waiting for a message")()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changes := c.box.Watch(ctx)
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	tick := time.NewTicker(lookEvery) // nothing hints at a courier's lease that has run out
	defer tick.Stop()
	for {
		msgs, more, err = c.take(ctx, set, limit)
		if err != nil || len(msgs) > 0 || wait == 0 {
			return msgs, more, err
		}
		select {
		case <-changes:
		case <-tick.C:
		case <-timeout.C:
			return c.take(ctx, set, limit)
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
}

// taken is a message with the client whose it is.
type taken struct {
	mailbox.Incoming
	of *client.Client
}

// byUrgency orders messages of several meshes: by urgency, then as they came.
func byUrgency(a, b taken) int {
	return cmp.Or(cmp.Compare(a.Urgency.Rank(), b.Urgency.Rank()), cmp.Compare(a.Number, b.Number))
}

// take looks at the unread messages of all meshes, chooses, and takes from each
// mesh as many as were chosen of it: taking is what makes a message this session's.
func (c *call) take(ctx context.Context, set client.Set, limit int) (msgs []taken, more int, err error) {
	var all []taken
	for _, cl := range set {
		list, _, err := c.box.List(ctx, c.unread(cl, limit))
		if err != nil {
			return nil, 0, err
		}
		for _, in := range list {
			all = append(all, taken{in, cl})
		}
	}
	slices.SortFunc(all, byUrgency)
	chosen, size := map[*client.Client]int{}, 0
	for i, t := range all {
		if size += min(len(t.Text), render.MaxBody); i >= limit || (i > 0 && size > maxAnswer) {
			break
		}
		chosen[t.of]++
	}
	for _, cl := range set {
		q := c.unread(cl, max(1, chosen[cl]))
		get := func() ([]mailbox.Incoming, int, error) { return c.box.Take(ctx, q, cl.Key(), c.serverClock(cl)) }
		if chosen[cl] == 0 {
			get = func() ([]mailbox.Incoming, int, error) {
				list, more, err := c.box.List(ctx, q)
				return nil, more + len(list), err
			}
		}
		list, rest, err := get()
		switch {
		case err != nil && len(msgs) > 0: // these are marked read: they must be shown
			c.log.Warn("messages of a mesh are not read", "mesh", cl.Mesh(), "error", err)
			continue
		case err != nil:
			return nil, 0, err
		}
		more += rest
		for _, in := range list {
			msgs = append(msgs, taken{in, cl})
		}
	}
	slices.SortFunc(msgs, byUrgency)
	return msgs, more, nil
}

// unread selects what is unread on a mesh and is not brought in by a courier just now.
func (m *meshServer) unread(cl *client.Client, limit int) mailbox.Query {
	return mailbox.Query{Mesh: cl.MeshID(), Recipients: cl.Addresses(), Gate: mailbox.Shelf, Now: m.now().UnixMilli(), Limit: limit}
}

func (c *call) reportMessages(ctx context.Context, set client.Set, msgs []taken, more int) (*result, error) {
	data := checkData{Messages: []messageData{}, Remaining: more}
	var b strings.Builder
	switch {
	case len(msgs) == 0:
		b.WriteString("No unread messages.")
	case more > 0:
		fmt.Fprintf(&b, "%s; %d more unread: call check_messages again for them.", count(len(msgs), "message", "messages"), more)
	default:
		fmt.Fprintf(&b, "%s; no more unread.", count(len(msgs), "message", "messages"))
	}
	for i := range msgs {
		s := c.show(&msgs[i].Incoming, msgs[i].of.Mesh(), render.MaxBody)
		data.Messages = append(data.Messages, s.data)
		b.WriteString("\n" + s.block)
	}
	for _, cl := range set {
		gaps, err := cl.Missing(ctx)
		if err != nil { // the messages are taken: they must be shown
			c.log.Warn("gaps are not known", "error", err)
			continue
		}
		for _, g := range gaps {
			if g.Mesh != cl.MeshID() {
				continue
			}
			m := missingData{From: render.Inline(g.SenderName, 128), Mesh: cl.Mesh(), Count: g.Count}
			data.Missing = append(data.Missing, m)
			fmt.Fprintf(&b, "\n%s from %s %s missing; ask for them if they matter.",
				count(m.Count, "message", "messages"), c.inMesh(m.Mesh, m.From), map[bool]string{true: "is", false: "are"}[m.Count == 1])
		}
		if !cl.State().Online {
			data.Offline = append(data.Offline, cl.Mesh())
		}
	}
	b.WriteString(c.offlineNote(set))
	return &result{text: b.String(), data: data}, nil
}

// wholeMessage shows one message in full and marks it read.
func (c *call) wholeMessage(ctx context.Context, set client.Set, text string) (*result, error) {
	id, err := messageID("id", text)
	if err != nil {
		return nil, err
	}
	for _, cl := range set {
		in, err := c.box.Message(ctx, id, cl.Addresses())
		if errors.Is(err, mailbox.ErrNotFound) || (err == nil && in.Mesh != cl.MeshID()) {
			continue
		}
		if err != nil {
			return nil, err
		}
		until, err := c.box.Paused(ctx, in.Mesh, c.now().UnixMilli())
		if err != nil {
			return nil, err
		}
		if in.Gate > mailbox.Shelf || until > 0 { // a person's
			continue
		}
		if in.ReadAt == 0 {
			if _, err := c.box.MarkRead(ctx, in.Number, cl.Key(), c.serverClock(cl)); err != nil {
				return nil, err
			}
		}
		s := c.show(&in, cl.Mesh(), 0)
		return &result{text: s.block, data: checkData{Messages: []messageData{s.data}}}, nil
	}
	return nil, &failure{
		Code: "not_found", Message: "no message of that id was received here",
		Hint: "Use the id of a <peer-message>. For a message that you have sent, use message_status.",
	}
}
