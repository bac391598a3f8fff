package clustertest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/claudemesh/claudemesh/client"
)

// Priorities are drawn from: most messages are next.
var Priorities = []client.Priority{client.Next, client.Next, client.Now, client.Low}

// Load has each of the senders send about rate messages a second in all, every
// tenth of them to three recipients, until ctx ends.
func (c *Crowd) Load(ctx context.Context, senders, recipients []*Peer, rate int) *sync.WaitGroup {
	wg := new(sync.WaitGroup)
	every := time.Second * time.Duration(len(senders)) / time.Duration(rate)
	for _, p := range senders {
		wg.Go(func() {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for n := 0; ; n++ {
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
				i := rand.N(len(recipients))
				to := []*Peer{recipients[i]}
				if n%10 == 9 {
					to = append(to, recipients[(i+1)%len(recipients)], recipients[(i+2)%len(recipients)])
				}
				// Send is not cut off by the end of the run: it says what it has done.
				c.Send(context.WithoutCancel(ctx), p, fmt.Sprintf("%s/%d", p.Name, n), Priorities[rand.N(len(Priorities))], to...)
			}
		})
	}
	return wg
}
