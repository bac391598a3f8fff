package faults

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/client"
)

// TestOrderWhenRefused: what a limit puts off does not overtake what it lets
// pass. A client has up to 64 messages on their way before it hears that the
// first of them is put off: a later one that is smaller must be put off too.
func TestOrderWhenRefused(t *testing.T) {
	b := newProcess(t, "--bytes-per-minute=100000")
	px := newProxy(t, b.url)
	members := mesh(t, b.url, 1)
	members[0].Broker = px.url
	c := newCrowd(t)
	p := c.add(members, 2, false, nil)
	_, _, err := p[0].c.Peers(context.Background(), true)
	must(t, err)
	px.set(func() { px.refuse = true })
	px.cut()
	eventually(t, 5*time.Second, "it is offline", func() bool { return !p[0].c.State().Online })
	for n := range 40 {
		c.send(context.Background(), p[0], fmt.Sprintf("%s/%d-%s", p[0].name, n, strings.Repeat("x", n%3*3000)), client.Next, p[1])
	}
	px.set(func() { px.refuse = false })
	c.settle(time.Minute, OfSend)
}
