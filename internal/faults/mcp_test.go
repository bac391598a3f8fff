package faults

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/clustertest"
	"github.com/claudemesh/claudemesh/internal/mailbox"
)

// operator uses an agent's tools while the agent is killed, and keeps its books.
type operator struct {
	*agent
	c     *clustertest.Crowd
	box   client.Mailbox // the agent's, opened beside it
	sent  int
	kills int

	mu    sync.Mutex
	said  []string // texts that check_messages has shown, in order
	calls int      // of check_messages that a kill has left without an answer
	room  int      // messages that these could have taken
}

// others is whom a sender may write to: names with their keys.
type others map[string]client.Key

// speak sends by name until ctx ends. An answer that is no error keeps a message.
func (o *operator) speak(ctx context.Context, to others) {
	names := slices.Sorted(maps.Keys(to))
	for ; ctx.Err() == nil; time.Sleep(rand.N(30 * time.Millisecond)) {
		o.say(names[rand.N(len(names))], to)
	}
}

func (o *operator) say(name string, to others) {
	text, p := fmt.Sprintf("%s/%d", o.name, o.sent), clustertest.Priorities[o.sent%len(clustertest.Priorities)]
	o.sent++
	o.c.Ledger.Try(o.name, text, p, to[name])
	r, err := o.call("send_message", map[string]any{"to": name, "message": text, "priority": string(p)})
	switch {
	case errors.Is(err, errKilled):
	case err != nil:
		o.c.Complain(fmt.Errorf("%s: %w", o.name, err))
	default:
		o.c.Ledger.Kept(text, parseID(r.ID))
	}
}

// listen reads with check_messages until ctx ends.
func (o *operator) listen(ctx context.Context) {
	for ; ctx.Err() == nil; time.Sleep(rand.N(200 * time.Millisecond)) {
		limit := 1 + rand.N(20)
		r, err := o.call("check_messages", map[string]any{"limit": limit, "wait_seconds": rand.N(2)})
		o.mu.Lock()
		switch {
		case errors.Is(err, errKilled):
			o.calls++
			o.room += limit
		case err != nil:
			o.c.Complain(fmt.Errorf("%s: %w", o.name, err))
		}
		o.said = append(o.said, r.said()...)
		o.mu.Unlock()
	}
}

func (o *operator) kill() {
	o.agent.kill()
	o.kills++
}

// TestMCPKilled kills claudemesh mcp at random moments, from its first to its
// last, while its agent sends and reads and others send to it.
func TestMCPKilled(t *testing.T) {
	clustertest.Aside(t)
	broker := clustertest.NewProcess(t)
	members := clustertest.Found(t, broker.URL, 3)
	c := clustertest.NewCrowd(t)
	agents := []*operator{
		{agent: newAgent(t, c.Dir, "a", members[0]), c: c}, {agent: newAgent(t, c.Dir, "b", members[1]), c: c},
	}
	steady := c.Add(members[2:], 1, true, nil)[0]
	all := others{"m2/" + steady.Name: steady.C.Key()}
	for _, o := range agents {
		o.start()
		t.Cleanup(func() { o.agent.kill() })
	}
	meet(t, agents, steady, all)
	senders, stopSending := context.WithCancel(context.Background())
	defer stopSending()
	readers, stopReading := context.WithCancel(context.Background())
	defer stopReading()
	var sending, reading sync.WaitGroup
	for _, o := range agents {
		to := maps.Clone(all)
		delete(to, o.address)
		sending.Go(func() { o.speak(senders, to) })
		reading.Go(func() { o.listen(readers) })
	}
	sending.Go(func() {
		for n := 0; senders.Err() == nil; n++ {
			tellAgent(c, steady, fmt.Sprintf("%s/%d", steady.Name, n), agents[n%len(agents)], all)
			time.Sleep(rand.N(30 * time.Millisecond))
		}
	})
	for range clustertest.Pick(10, 200) {
		time.Sleep(rand.N(800 * time.Millisecond)) // its start is a part of its life
		o := agents[rand.N(len(agents))]
		o.kill()
		o.start()
	}
	stopSending()
	sending.Wait()
	stopReading()
	reading.Wait()
	announceAtStart(t, c, agents, steady, all)
	readers, stopReading = context.WithCancel(context.Background())
	defer stopReading()
	for _, o := range agents {
		reading.Go(func() { o.listen(readers) })
	}
	clustertest.Eventually(t, clustertest.Pick(30*time.Second, 2*time.Minute), "everything is read, and its senders know", func() bool { return unknown(c, agents, steady) == 0 })
	stopReading()
	reading.Wait()
	for _, o := range agents {
		auditAgent(t, c, o, all[o.address])
	}
	for _, err := range c.Ledger.Check(clustertest.OfSend) {
		t.Error(err)
	}
	for len(c.Problems) > 0 {
		t.Error(<-c.Problems)
	}
	t.Logf("%+v; repeats at the broker %.0f", c.Ledger.Figures(), broker.Metric("claudemesh_messages_duplicate_total"))
}

// meet waits until all know each other, and enters the keys of the agents.
func meet(t *testing.T, agents []*operator, steady *clustertest.Peer, all others) {
	t.Helper()
	clustertest.Eventually(t, 30*time.Second, "the peers see each other", func() bool {
		peers, _, err := steady.C.Peers(context.Background(), false)
		if err != nil || len(peers) != len(agents)+1 { // and itself
			return false
		}
		for _, o := range agents {
			r, err := o.call("list_peers", nil)
			if err != nil || !strings.Contains(r.text, "m2/"+steady.Name) {
				return false
			}
			for _, other := range agents {
				if !strings.Contains(r.text, other.address) {
					return false
				}
			}
		}
		return true
	})
	for _, o := range agents {
		all[o.address] = o.key()
		box, err := client.OpenMailbox(context.Background(), o.profile.MailboxPath())
		clustertest.Must(t, err)
		t.Cleanup(func() { _ = box.Close() })
		o.box = box
	}
}

// tellAgent has the steady peer send by name.
func tellAgent(c *clustertest.Crowd, from *clustertest.Peer, text string, to *operator, all others) client.ID {
	p := clustertest.Priorities[rand.N(len(clustertest.Priorities))]
	c.Ledger.Try(from.Name, text, p, all[to.address])
	s, err := from.C.Send(context.Background(), client.Message{To: []string{to.address}, Text: text, Priority: p})
	if err != nil {
		c.Complain(fmt.Errorf("%s sends %s: %w", from.Name, text, err))
		return client.ID{}
	}
	c.Ledger.Kept(text, s.ID)
	return s.ID
}

// announceAtStart kills the agents, each with a message in its outbox maybe, and
// sends to them while they are gone: that is announced when they are back, unread.
func announceAtStart(t *testing.T, c *clustertest.Crowd, agents []*operator, steady *clustertest.Peer, all others) {
	t.Helper()
	ids := map[*operator][]client.ID{}
	for _, o := range agents {
		o.say("m2/"+steady.Name, all)
		o.kill()
		for n := range 5 {
			ids[o] = append(ids[o], tellAgent(c, steady, fmt.Sprintf("%s/late-%s-%d", steady.Name, o.name, n), o, all))
		}
	}
	for _, o := range agents {
		o.start()
	}
	clustertest.Eventually(t, 30*time.Second, "what came while an agent was gone is announced", func() bool {
		for o, list := range ids {
			if slices.ContainsFunc(list, func(id client.ID) bool { return !o.isAnnounced(id) }) {
				return false
			}
		}
		return true
	})
}

// unknown notes what senders know, and returns how many messages they do not
// know to be read. The steady peer is told of by its own box.
func unknown(c *clustertest.Crowd, agents []*operator, steady *clustertest.Peer) (open int) {
	from := map[string]client.Mailbox{steady.Name: steady.Box}
	for _, o := range agents {
		from[o.name] = o.box
	}
	for text, id := range c.Ledger.Texts() {
		if c.Told[id] {
			continue
		}
		name, _, _ := strings.Cut(text, "/")
		out, err := from[name].Outgoing(context.Background(), id)
		if err != nil {
			c.Complain(err)
			continue
		}
		r := out.Recipients[0]
		c.Ledger.Final(id, r.Key, r.State, string(r.Code))
		if c.Told[id] = r.State == client.Read; !c.Told[id] {
			open++
		}
	}
	return open
}

// auditAgent holds what an agent was shown against its mailbox. What a call had
// marked read and could not say any more is found by its id.
func auditAgent(t *testing.T, c *clustertest.Crowd, o *operator, key client.Key) {
	t.Helper()
	rows, more, err := o.box.List(context.Background(), mailbox.Query{Recipients: []client.Key{key}, Gate: mailbox.Shelf, Read: true, Limit: 1_000_000})
	clustertest.Must(t, err)
	if more > 0 {
		t.Errorf("%d rows were not listed", more)
	}
	slices.Reverse(rows) // they come newest first
	said := map[string]int{}
	for _, text := range o.said {
		said[text]++
	}
	var lost, unannounced int
	takes := map[int64]bool{} // when those were taken that were not shown
	for _, m := range rows {
		c.Ledger.Shown(key, m.ID, m.Text)
		switch {
		case m.ReadAt == 0:
			t.Errorf("%s: %s stayed unread", o.name, m.Text)
		case said[m.Text] == 0:
			lost++
			takes[m.ReadAt] = true
			r, err := o.call("check_messages", map[string]any{"id": m.ID.String()})
			if err != nil || !slices.Equal(r.said(), []string{m.Text}) {
				t.Errorf("%s: %s was not shown, and is not found by its id: %v %v", o.name, m.Text, r.said(), err)
			}
		case said[m.Text] > 1:
			t.Errorf("%s: %s was shown %d times", o.name, m.Text, said[m.Text])
		}
		delete(said, m.Text)
		if m.Offered > 0 && !o.isAnnounced(m.ID) {
			unannounced++
		}
	}
	for text := range said {
		t.Errorf("%s: %s was shown and is not in the inbox", o.name, text)
	}
	for _, err := range inOrder(o.said) {
		t.Errorf("%s: %v", o.name, err)
	}
	for id, n := range o.announced {
		if n > 1 {
			t.Errorf("%s: %s was announced %d times", o.name, id, n)
		}
	}
	if len(takes) > o.calls || lost > o.room {
		t.Errorf("%s: %d messages of %d calls were marked read and never shown; %d calls for %d were cut off", o.name, lost, len(takes), o.calls, o.room)
	}
	if unannounced > o.kills {
		t.Errorf("%s: %d messages were marked announced and were not, in %d kills: at most one each", o.name, unannounced, o.kills)
	}
	if o.key() != key {
		t.Errorf("%s has another key than it began with", o.name)
	}
	o.finish()
	raw, err := os.ReadFile(o.stderr)
	clustertest.Must(t, err)
	for _, bad := range []string{"has forgotten a message", "panic", "level=ERROR"} {
		if strings.Contains(string(raw), bad) {
			t.Errorf("%s says %q", o.name, bad)
		}
	}
	t.Logf("%s: %d kills, %d shown, %d taken in %d of %d calls that were cut off, %d announced, %d marked so and not",
		o.name, o.kills, len(o.said), lost, len(takes), o.calls, len(o.announced), unannounced)
}

// inOrder checks the numbers of each sender's messages within a priority, which
// an operator's follow from the number.
func inOrder(said []string) (breaches []error) {
	last := map[string]int{}
	for _, text := range said {
		var n int
		name, number, _ := strings.Cut(text, "/")
		if _, err := fmt.Sscanf(number, "%d", &n); err != nil || (name != "a" && name != "b") {
			continue // the ledger holds the order of the rest by the inbox
		}
		lane := name + string(clustertest.Priorities[n%len(clustertest.Priorities)])
		if before, ok := last[lane]; ok && before >= n {
			breaches = append(breaches, fmt.Errorf("%s was shown after number %d", text, before))
		}
		last[lane] = n
	}
	return breaches
}
