//go:build unix

package cluster

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/clustertest"
	"github.com/claudemesh/claudemesh/internal/meshtest"
	"github.com/claudemesh/claudemesh/internal/pgtest"
	"github.com/claudemesh/claudemesh/internal/trust"
)

// TestTogether: peers at three nodes are one mesh.
func TestTogether(t *testing.T) {
	onEach(t, func(t *testing.T, bus string) {
		c := three(t, pgtest.Database(t), bus)
		members := clustertest.Found(t, c.Nodes[0].URL, 3)
		var peers []*client.Client
		for i, name := range []string{"a", "b", "c"} {
			peers = append(peers, dial(t, clustertest.At(members[i], c.Nodes[i%len(c.Nodes)].URL), name))
		}
		began := time.Now()
		presence(t, peers)
		seen := time.Since(began)
		began = time.Now()
		direct(t, peers)
		sent := time.Since(began) / 6
		group(t, peers)
		began = time.Now()
		clustertest.Must(t, peers[2].Close())
		for _, p := range peers[:2] {
			meshtest.Eventually(t, "it is seen that a peer left", func() bool { return !online(t, p, peers[2].Key()) })
		}
		t.Logf("%s: all are seen after %s, a message and its receipt take %s, a peer that left is missed after %s",
			t.Name(), seen.Round(time.Millisecond), sent.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
		died(t, c, peers)
	})
}

func dial(t *testing.T, m client.Membership, label string) *client.Client {
	t.Helper()
	c, err := client.Dial(context.Background(), client.Options{
		Membership: m, SessionSeed: client.Secret(trust.NewSecretKey().Seed()), Card: client.Card{Label: label, PeerType: "ai"},
	})
	clustertest.Must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	clustertest.Must(t, c.Ready(ctx))
	return c
}

// find returns a peer as another sees it; nil when it does not.
func find(t *testing.T, by *client.Client, key client.Key) *client.Peer {
	t.Helper()
	peers, _, err := by.Peers(t.Context(), true)
	clustertest.Must(t, err)
	i := slices.IndexFunc(peers, func(p client.Peer) bool { return p.Key == key })
	if i < 0 {
		return nil
	}
	return &peers[i]
}

func online(t *testing.T, by *client.Client, key client.Key) bool {
	p := find(t, by, key)
	return p != nil && p.Online
}

// presence: everyone sees everyone, and what they say of themselves.
func presence(t *testing.T, peers []*client.Client) {
	t.Helper()
	for _, p := range peers {
		clustertest.Must(t, p.SetSummary(t.Context(), "of "+p.Name()))
		for _, other := range peers {
			if other == p {
				continue
			}
			meshtest.Eventually(t, "a peer and its summary are seen", func() bool {
				seen := find(t, other, p.Key())
				return seen != nil && seen.Online && seen.Card.Summary == "of "+p.Name()
			})
		}
	}
}

// direct: each sends to each, and learns that it was read.
func direct(t *testing.T, peers []*client.Client) {
	t.Helper()
	for _, from := range peers {
		for _, to := range peers {
			if from != to {
				send(t, from, to.Key().String(), from.Name()+" to "+to.Name(), to)
			}
		}
	}
}

// group: those that joined receive what is sent to it, and all what is sent to all.
func group(t *testing.T, peers []*client.Client) {
	t.Helper()
	for _, p := range peers[1:] {
		clustertest.Must(t, p.JoinGroup(t.Context(), "crew", ""))
		meshtest.Eventually(t, "it is seen in the group", func() bool {
			seen := find(t, peers[0], p.Key())
			return seen != nil && seen.InGroup("crew")
		})
	}
	send(t, peers[0], "@crew", "to the crew", peers[1:]...)
	send(t, peers[0], "*", "to all", peers[1:]...)
}

// send sends a text, which all of the recipients get next, and waits for the receipts.
func send(t *testing.T, from *client.Client, target, text string, to ...*client.Client) {
	t.Helper()
	s, err := from.Send(t.Context(), client.Message{To: []string{target}, Text: text})
	clustertest.Must(t, err)
	if len(s.Targets) != len(to) {
		t.Fatalf("%s: %d recipients, want %d", text, len(s.Targets), len(to))
	}
	for _, c := range to {
		r, err := meshtest.Next(c, 30*time.Second)
		clustertest.Must(t, err)
		if r.Text != text || r.ID != s.ID {
			t.Fatalf("%s receives %q, want %q", c.Name(), r.Text, text)
		}
	}
	meshtest.Eventually(t, text+": it is known as read", func() bool {
		now, _, err := from.Status(t.Context(), s.ID)
		return err == nil && !slices.ContainsFunc(now.Targets, func(g client.SentTarget) bool { return g.State != client.Read })
	})
}

// died: who was connected to a node that is killed is missed when its lease has
// passed, and seen again when it is back.
func died(t *testing.T, c *clustertest.Cluster, peers []*client.Client) {
	t.Helper()
	began := time.Now()
	c.Nodes[1].Kill()
	meshtest.Eventually(t, "it is seen that a node died", func() bool { return !online(t, peers[0], peers[1].Key()) })
	t.Logf("%s: a dead node's peer is missed after %s", t.Name(), time.Since(began).Round(time.Millisecond))
	c.Nodes[1].Start()
	meshtest.Eventually(t, "it is seen that it is back", func() bool { return online(t, peers[0], peers[1].Key()) })
	send(t, peers[0], peers[1].Key().String(), "welcome back", peers[1])
}
