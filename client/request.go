package client

import (
	"context"
	"fmt"
	"strconv"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// handle routes one frame: replies to who asked, the rest by type.
func (k *conn) handle(in wire.Incoming) {
	f := in.Frame
	if in.Err != nil {
		k.c.log.Debug("frame from the broker ignored", "error", in.Err)
		return
	}
	if r, ok := f.(wire.Request); ok && r.RequestID() != "" {
		if k.answer(r) {
			return
		}
	}
	switch f := f.(type) {
	case *wire.Push:
		select {
		case k.pushes <- f:
		case <-k.deaf:
		case <-k.c.ctx.Done():
		}
	case *wire.Receipt:
		k.c.receipt(f)
	case *wire.Presence:
		k.c.presence(k, f)
	case *wire.MembersChanged:
		k.c.wg.Go(func() {
			if err := k.c.syncMembers(k.c.ctx, k, f.Version); err != nil && k.c.ctx.Err() == nil {
				k.fail(err)
				_ = k.ws.CloseNow()
			}
		})
	case *wire.Spread:
		k.c.setSpread(f.SpreadMs)
	case *wire.Error:
		k.c.log.Warn("the broker reports", "code", f.Code, "message", f.Code.Info().Text)
	}
}

// answer gives a reply to its waiter; the waiter of a paged list stays.
func (k *conn) answer(r wire.Request) bool {
	k.mu.Lock()
	ch, ok := k.waiting[r.RequestID()]
	if ok && !more(r) {
		delete(k.waiting, r.RequestID())
	}
	k.mu.Unlock()
	if ok {
		select {
		case ch <- r:
		case <-k.c.ctx.Done():
		}
	}
	return ok
}

func more(f wire.Frame) bool {
	switch f := f.(type) {
	case *wire.PeersList:
		return f.More
	case *wire.MembersList:
		return f.More
	}
	return false
}

// ask sends a request and waits for its reply; an error frame comes back as *Fault.
func (k *conn) ask(ctx context.Context, r wire.Request) (wire.Frame, error) {
	var reply wire.Frame
	err := k.askPages(ctx, r, func(f wire.Frame) { reply = f })
	return reply, err
}

// maxPages bounds a list: with some 64 KiB in a frame that is far beyond any mesh.
const maxPages = 1024

// askPages is ask for lists that come in several frames.
func (k *conn) askPages(ctx context.Context, r wire.Request, page func(wire.Frame)) error {
	ctx, cancel := context.WithTimeout(ctx, replyTimeout)
	defer cancel()
	ch, err := k.request(r)
	if err != nil {
		return err
	}
	for n := 1; ; n++ {
		select {
		case f, ok := <-ch:
			if !ok {
				return errLost
			}
			if e, bad := f.(*wire.Error); bad {
				return &wire.Fault{Code: e.Code, RetryAfterMs: e.RetryAfterMs}
			}
			page(f)
			if !more(f) {
				return nil
			}
			if n == maxPages {
				k.forget(r, ch)
				return k.c.caught(wire.CodeTooLarge, "a list without an end")
			}
		case <-ctx.Done():
			k.forget(r, ch)
			return fmt.Errorf("%w: no answer in %s", ErrUnreachable, replyTimeout)
		}
	}
}

// forget gives up on an answer. The reader, which may be handing one over, finds room for it.
func (k *conn) forget(r wire.Request, ch chan wire.Frame) {
	k.mu.Lock()
	delete(k.waiting, r.RequestID())
	k.mu.Unlock()
	for {
		select {
		case _, ok := <-ch:
			if !ok {
				return
			}
		default:
			return
		}
	}
}

// request queues a request under a fresh id and returns where its replies go.
// The channel is closed when the connection ends first.
func (k *conn) request(r wire.Request) (chan wire.Frame, error) {
	ch := make(chan wire.Frame, 4)
	k.mu.Lock()
	if k.err != nil {
		k.mu.Unlock()
		return nil, errLost
	}
	k.seq++
	r.SetRequestID(strconv.FormatUint(k.seq, 36))
	k.waiting[r.RequestID()] = ch
	k.mu.Unlock()
	return ch, k.send(r)
}

func (k *conn) send(f wire.Frame) error {
	raw, err := wire.Append(nil, f)
	if err != nil {
		return err
	}
	if !k.out.Put(raw) {
		return errLost
	}
	return nil
}
