package mcpserver

import (
	"context"
	"encoding/json"

	"github.com/claudemesh/claudemesh/internal/mailbox"
)

// countUnread ends a result with how many messages wait for this agent that no
// courier brings in just now. An agent that wants nothing unasked is told nothing.
func (c *call) countUnread(ctx context.Context, r *result) {
	if a := c.record.now(ctx); a != nil && a.Mode == mailbox.Off {
		return
	}
	n := 0
	for _, cl := range c.set {
		list, more, err := c.box.List(ctx, c.unread(cl, 1))
		if err != nil {
			c.log.Debug("unread messages are not counted", "error", err)
			return
		}
		n += len(list) + more
	}
	if n == 0 {
		return
	}
	r.text += "\n[" + count(n, "unread message", "unread messages") + ": " + checkName + "]"
	r.data = withUnread(r.data, n)
}

// withUnread adds the count to a result's data, which is an object.
func withUnread(data any, n int) any {
	raw, err := json.Marshal(data)
	if err != nil {
		return data
	}
	var fields map[string]any
	if json.Unmarshal(raw, &fields) != nil || fields == nil {
		return data
	}
	fields["unread"] = n
	return fields
}
