package faults

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/clustertest"
)

// TestOrderWhenRefused: what a limit puts off does not overtake what it lets
// pass. A client has up to 64 messages on their way before it hears that the
// first of them is put off: a later one that is smaller must be put off too.
func TestOrderWhenRefused(t *testing.T) {
	b := clustertest.NewProcess(t, "--bytes-per-minute=100000")
	px := clustertest.NewProxy(t, b.URL)
	members := clustertest.Found(t, b.URL, 1)
	members[0].Broker = px.URL
	c := clustertest.NewCrowd(t)
	p := c.Add(members, 2, false, nil)
	_, _, err := p[0].C.Peers(context.Background(), true)
	clustertest.Must(t, err)
	px.Set(func() { px.Refuse = true })
	px.Cut()
	clustertest.Eventually(t, 5*time.Second, "it is offline", func() bool { return !p[0].C.State().Online })
	for n := range 40 {
		c.Send(context.Background(), p[0], fmt.Sprintf("%s/%d-%s", p[0].Name, n, strings.Repeat("x", n%3*3000)), client.Next, p[1])
	}
	px.Set(func() { px.Refuse = false })
	c.Settle(time.Minute, clustertest.OfSend)
}
