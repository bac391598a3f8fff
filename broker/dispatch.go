package broker

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// handler handles one type of frame from clients of some roles.
type handler struct {
	roles []wire.Role // nil: any
	serve func(ctx context.Context, c *conn, f wire.Frame) error
}

// on adapts a method that takes one frame type.
func on[F wire.Frame](fn func(*conn, context.Context, F) error, roles ...wire.Role) handler {
	return handler{roles, func(ctx context.Context, c *conn, f wire.Frame) error { return fn(c, ctx, f.(F)) }}
}

// handlers is the table of what a client may send after its hello; anything
// else is answered with unknown_type.
var handlers = map[wire.Type]handler{
	wire.TypeSend:          on((*conn).sendFrame),
	wire.TypeClientAck:     on((*conn).clientAck, wire.RoleSession, wire.RolePerson),
	wire.TypeClientNack:    on((*conn).clientNack, wire.RoleSession, wire.RolePerson),
	wire.TypeMessageStatus: on((*conn).messageStatus),
	wire.TypeListPeers:     on((*conn).listPeers),
	wire.TypeSetCard:       on((*conn).setCard, wire.RoleSession, wire.RolePerson),
	wire.TypeMembers:       on((*conn).listMembers),
	wire.TypeInvitePut:     on((*conn).invitePut),
	wire.TypeInviteList:    on((*conn).inviteList),
	wire.TypeInviteClose:   on((*conn).inviteClose),
	wire.TypeRemove:        on((*conn).remove),
	wire.TypeSetRole:       on((*conn).setRole),
	wire.TypePause:         on((*conn).pause),
	wire.TypeKick:          on((*conn).kick),
	wire.TypeBlock:         on((*conn).block),
}

// dispatchAll handles the frames of one message in order.
func (c *conn) dispatchAll(s *scratch) {
	frames, err := wire.Frames(s.frames[:0], s.in.Bytes())
	if err != nil {
		c.send(wire.Faultf(wire.CodeBadFrame, "not a frame or an array of frames").Frame(""))
		return
	}
	for _, in := range frames {
		if c.over() {
			break
		}
		c.dispatch(in)
	}
	clear(frames) // or they would keep bodies alive
	s.frames = frames
}

// dispatch handles one frame. Whatever goes wrong is answered with an error
// frame that carries the request's id: silence would be a bug.
func (c *conn) dispatch(in wire.Incoming) {
	f, err := in.Frame, in.Err
	if err != nil {
		req := ""
		if d := new(wire.DecodeError); errors.As(err, &d) {
			req = d.ReqID
		}
		c.answer(req, err)
		return
	}
	defer func() {
		if v := recover(); v != nil {
			c.b.log.Error("handler panicked", "type", f.Type(), "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			c.answer(requestID(in.Raw), errors.New("panic"))
		}
	}()
	h, ok := handlers[f.Type()]
	switch {
	case !ok:
		err = wire.Faultf(wire.CodeUnknownType, "")
	case h.roles != nil && !slices.Contains(h.roles, c.role):
		err = wire.Faultf(wire.CodeForbidden, "not in this connection's role")
	default:
		err = h.serve(c.b.ctx, c, f)
	}
	if err != nil {
		c.answer(requestID(in.Raw), err)
	}
}

// requestID reads the id that an error echoes, also from frames whose type has none.
func requestID(raw []byte) string {
	var head wire.Req
	if wire.Unmarshal(raw, &head) != nil {
		return ""
	}
	return head.ReqID
}

func (c *conn) answer(req string, err error) {
	f := asFault(err)
	if f.Code == wire.CodeInternal {
		c.b.log.Error("request failed", "conn", c.id, "error", err)
	}
	c.b.metrics.refused(f.Code)
	c.send(f.Frame(req))
}
