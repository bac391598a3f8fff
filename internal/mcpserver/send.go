package mcpserver

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/courier"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/render"
)

type sendArgs struct {
	To       targets `json:"to"`
	Message  string  `json:"message"`
	Priority string  `json:"priority"`
	ReplyTo  string  `json:"reply_to"`
	Wait     int     `json:"wait_seconds"`
}

// message checks the arguments and makes what client.Send takes.
func (a *sendArgs) message() (m client.Message, err error) {
	switch {
	case len(a.To) == 0:
		return m, badArgument("to is missing: a name, pubkey, @group or * as list_peers shows them")
	case len(a.To) > maxTargets:
		return m, badArgument("%d targets; at most %d", len(a.To), maxTargets)
	case a.Message == "":
		return m, badArgument("message is missing")
	}
	m = client.Message{To: a.To, Text: a.Message, Priority: client.Priority(a.Priority), By: client.ByAgent}
	if a.Priority != "" && m.Priority.Rank() < 0 {
		return m, badArgument("priority is now, next or low, not %q", a.Priority)
	}
	if a.ReplyTo != "" {
		if m.ReplyTo, err = messageID("reply_to", a.ReplyTo); err != nil {
			return m, err
		}
	}
	return m, seconds(a.Wait)
}

func sendMessage(ctx context.Context, c *call) (*result, error) {
	var a sendArgs
	if err := arguments(c, &a); err != nil {
		return nil, err
	}
	m, err := a.message()
	if err != nil {
		return nil, err
	}
	c.settle(ctx, c.set)
	sent, release, err := c.sendHeld(ctx, m, a.Wait > 0)
	defer release()
	if err != nil && (sent == nil || len(sent.Targets) < 2) {
		return nil, err
	}
	r := c.reportSent(sent)
	if a.Wait == 0 || r.failed {
		return r, nil
	}
	return r, c.awaitReply(ctx, sent, time.Duration(a.Wait)*time.Second, r)
}

// sendHeld sends a message and holds its answers until release. While it sends
// it holds everything: an answer may come before Send returns.
func (c *call) sendHeld(ctx context.Context, m client.Message, waits bool) (sent *client.Sent, release func(), err error) {
	hold := c.hold
	if waits {
		hold = func(ids ...client.ID) func() { return c.holdFor(ctx, ids...) }
	}
	defer hold(meshIDs(c.set)...)()
	if sent, err = c.set.Send(ctx, m); sent == nil {
		return nil, func() {}, err
	}
	return sent, hold(sent.ID), err
}

// meshIDs are the meshes of a set.
func meshIDs(set client.Set) (ids []client.ID) {
	for _, cl := range set {
		ids = append(ids, cl.MeshID())
	}
	return ids
}

// awaitReply adds the answer to a result, or says that none came. A failure to
// wait does not undo that the message was sent.
func (c *call) awaitReply(ctx context.Context, sent *client.Sent, wait time.Duration, r *result) error {
	set, err := c.set.Named(sent.Mesh)
	if err != nil {
		return err
	}
	stop := c.progress(ctx, wait, "waiting for an answer")
	defer stop()
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	in, ok, err := set[0].AwaitReply(waiting, sent.ID)
	data := r.data.(*sentData)
	switch {
	case err != nil:
		r.text += "\nThe wait for an answer failed (" + safe(err) + "); it will be in check_messages."
	case !ok:
		r.text += fmt.Sprintf("\nNo answer within %s; it will be in check_messages when it comes.", wait)
	default:
		reply := c.show(&in, set[0].Mesh(), render.MaxBody)
		data.Reply = &reply.data
		r.text += "\nThe answer:\n" + reply.block
	}
	return nil
}

// progressEvery is how often a waiting call says that it still waits.
const progressEvery = 5 * time.Second

// progress sends progress notifications until stop is called, if the call asked for them.
func (c *call) progress(ctx context.Context, total time.Duration, doing string) (stop func()) {
	if c.progressToken == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		began := time.Now()
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			err := c.out.notify(ctx, "notifications/progress", map[string]any{
				"progressToken": c.progressToken, "progress": time.Since(began).Seconds(), "total": total.Seconds(), "message": doing,
			})
			if err != nil {
				return
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

// shown is a received message as the model gets it, as block and as data.
type shown struct {
	block string
	data  messageData
}

// messageData is a received message. A host may show its model this data and
// not the text beside it: peer text stands here in its labelled block, too.
type messageData struct {
	ID         string `json:"id"`
	Mesh       string `json:"mesh"`
	From       sender `json:"from"`
	To         string `json:"to,omitempty"` // the group it was sent to
	Kind       string `json:"kind"`
	Priority   string `json:"priority"`
	Block      string `json:"block"`
	BytesCut   int    `json:"bytesCut,omitempty"`
	ReplyTo    string `json:"replyTo,omitempty"`
	SentAt     string `json:"sentAt"`
	ReceivedAt string `json:"receivedAt"`
}

type sender struct {
	Name   string `json:"name"`
	Pubkey string `json:"pubkey"` // 16 hex digits
}

// show renders a message with at most limit bytes of its text (0: all).
func (m *meshServer) show(in *mailbox.Incoming, mesh string, limit int) shown {
	msg := courier.Message(in, mesh)
	s := shown{block: msg.Block(limit), data: messageData{
		ID: msg.ID, Mesh: mesh, Kind: string(in.Mode), Priority: msg.Priority, ReplyTo: msg.ReplyTo,
		SentAt: stamp(in.Sent), ReceivedAt: stamp(in.Received),
	}}
	s.data.Block = s.block
	_, s.data.BytesCut = msg.Body(limit)
	for _, a := range msg.Attributes() {
		switch a[0] {
		case "from":
			s.data.From.Name = a[1]
		case "pubkey":
			s.data.From.Pubkey = a[1]
		case "to":
			s.data.To = a[1]
		}
	}
	return s
}

func stamp(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }
