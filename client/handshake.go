package client

import (
	"context"
	"fmt"

	"github.com/coder/websocket"

	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// BrokerKey asks a broker (a ws:// or wss:// URL) for its key and checks that it
// has it. Nothing says that it is the right one: that is for a person to find out.
func BrokerKey(ctx context.Context, broker string) (Key, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, broker, &websocket.DialOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return Key{}, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	defer ws.CloseNow()
	ws.SetReadLimit(wire.MaxHelloBytes)
	f, err := (&conn{ws: ws}).readOne(ctx)
	if err != nil {
		return Key{}, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	ch, ok := f.(*wire.Challenge)
	if !ok || trust.CheckKey(ch.BrokerPubkey) != nil || !trust.VerifyChallenge(ch.BrokerPubkey, ch.Nonce, ch.Sig) {
		return Key{}, wire.Faultf(wire.CodeBadSignature, "the broker does not prove its key")
	}
	return ch.BrokerPubkey, nil
}

func (k *conn) readOne(ctx context.Context) (wire.Frame, error) {
	_, msg, err := k.ws.Read(ctx)
	if err != nil {
		return nil, err
	}
	f, err := wire.Decode(msg)
	if err != nil {
		return nil, err
	}
	if e, ok := f.(*wire.Error); ok {
		return nil, &wire.Fault{Code: e.Code, RetryAfterMs: e.RetryAfterMs}
	}
	return f, nil
}

func (k *conn) shake(ctx context.Context) error {
	c := k.c
	f, err := k.readOne(ctx)
	if err != nil {
		return err
	}
	ch, ok := f.(*wire.Challenge)
	switch {
	case !ok:
		return c.caught(wire.CodeBadFrame, "the broker did not open with a challenge")
	case ch.V != wire.Version:
		return wire.Faultf(wire.CodeUnsupportedVersion, "")
	case ch.BrokerPubkey != c.m.BrokerKey || !trust.VerifyChallenge(ch.BrokerPubkey, ch.Nonce, ch.Sig):
		return c.caught(wire.CodeWrongBroker, "")
	}
	h := &wire.Hello{
		ProtocolVersion: wire.Version, Role: c.role, MeshID: c.m.MeshID, Pubkey: c.member.Public(),
		SessionPubkey: c.self, Nonce: ch.Nonce, Attestation: c.attestation,
	}
	if c.role != Observer {
		card, raw, fresh, err := c.helloCard()
		if err != nil {
			return err
		}
		h.Card = card
		if fresh {
			if err := c.rememberCard(ctx, card.Seq, raw); err != nil {
				return err
			}
		}
	}
	trust.SignHello(c.session, c.m.BrokerKey, h)
	raw, err := wire.Append(nil, h)
	if err != nil {
		return err
	}
	if err := k.ws.Write(ctx, websocket.MessageText, raw); err != nil {
		return err
	}
	return k.awaitAck(ctx)
}

// awaitAck reads the answer to the hello. It comes alone or at the head of a batch
// whose other frames wait their turn.
func (k *conn) awaitAck(ctx context.Context) error {
	_, msg, err := k.ws.Read(ctx)
	if err != nil {
		return err
	}
	frames, err := wire.Frames(nil, msg)
	if err == nil {
		err = frames[0].Err
	}
	if err != nil {
		return err
	}
	switch f := frames[0].Frame.(type) {
	case *wire.HelloAck:
		k.hello = f
		// What is in flight has room: the reader goes on while a push asks something.
		k.pushes = make(chan *wire.Push, min(max(pushBatch, 2*f.Limits.Window), maxPushes))
	case *wire.Error:
		return &wire.Fault{Code: f.Code, RetryAfterMs: f.RetryAfterMs}
	default:
		return k.c.caught(wire.CodeBadFrame, "the broker did not answer the hello")
	}
	k.c.offset.Store(k.hello.ServerTime - k.c.now().UnixMilli())
	k.c.setSpread(k.hello.SpreadMs)
	for _, in := range frames[1:] {
		k.handle(in)
	}
	return nil
}

// welcome brings the membership up to date, then lets the connection be used.
func (c *Client) welcome(ctx context.Context, k *conn) error {
	c.mu.Lock()
	known := c.version
	c.mu.Unlock()
	var err error
	if k.hello.MembersVersion < known {
		err = c.checkRollback(ctx, k)
	} else {
		err = c.syncMembers(ctx, k, k.hello.MembersVersion)
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.conn = k
	c.mu.Unlock()
	c.setState(State{Online: true})
	c.poke()
	c.wg.Go(func() {
		if err := c.afterHello(ctx, k); err != nil && ctx.Err() == nil {
			c.log.Warn("after connecting", "error", err)
		}
	})
	return nil
}

// afterHello does what only a connection makes possible, off the path of messages.
func (c *Client) afterHello(ctx context.Context, k *conn) error {
	if err := c.askStatuses(ctx, k); err != nil {
		return err
	}
	if c.role == Session || c.role == Person {
		if err := c.showCardIfStale(ctx, k); err != nil {
			return err
		}
		if err := c.tellBlocks(ctx, k); err != nil {
			return err
		}
	}
	if err := c.rekey(ctx, k); err != nil || c.role == Observer {
		return err
	}
	return c.prune(ctx)
}
