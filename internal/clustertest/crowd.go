package clustertest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// notary is a mailbox that tells the ledger of the broker's word.
type notary struct {
	mailbox.Mailbox
	acked func(id client.ID, to client.Key)
}

// Advance notes the word before it is stored.
func (n *notary) Advance(ctx context.Context, mesh, id wire.ID, to wire.Key, s mailbox.State, code wire.Code, online bool, at int64) (bool, error) {
	if s != mailbox.Bounced { // a receipt may overtake the acknowledgement
		n.acked(id, to)
	}
	return n.Mailbox.Advance(ctx, mesh, id, to, s, code, online, at)
}

// Watchful is a logger that listens for one line: a client that is told, after
// a crash, that the broker does not know what it had acknowledged sends it
// again. That heals a restore from a backup, and would hide a loss from here.
func Watchful(complain func(error)) *slog.Logger { return slog.New(listener{complain}) }

type listener struct{ complain func(error) }

func (l listener) Enabled(context.Context, slog.Level) bool { return true }
func (l listener) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l listener) WithGroup(string) slog.Handler            { return l }

func (l listener) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "has forgotten a message") {
		l.complain(errors.New("acknowledged and lost: " + r.Message))
	}
	return nil
}

// Peer is a session under load.
type Peer struct {
	Name string
	C    *client.Client
	Box  client.Mailbox
	stop context.CancelFunc // ends its reader
	wg   sync.WaitGroup
}

// Crowd is the peers of one run and their ledger.
type Crowd struct {
	t        testing.TB
	Ledger   *Ledger
	peers    []*Peer
	Dir      string
	LastAck  func()            // called at each acknowledgement; may be nil
	OnShow   func(text string) // called at each showing; may be nil
	Problems chan error
	Told     map[client.ID]bool // whose ends are noted
}

// Boxes is a directory for mailboxes: in memory where there is such a file
// system. What a killed process has written is there all the same, and dozens
// of mailboxes do not wait for one disk. The broker's database is on disk.
func Boxes(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "claudemesh-faults")
	if err != nil {
		dir, err = os.MkdirTemp("", "claudemesh-faults")
	}
	Must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func NewCrowd(t testing.TB) *Crowd {
	c := &Crowd{t: t, Ledger: NewLedger(), Dir: Boxes(t), Problems: make(chan error, 100), Told: map[client.ID]bool{}}
	t.Cleanup(c.hangUp)
	return c
}

// Add dials n sessions, spread over the members, and reads what they receive.
func (c *Crowd) Add(members []client.Membership, n int, disk bool, edit func(*client.Options)) []*Peer {
	c.t.Helper()
	first := len(c.peers)
	for i := range n {
		p := &Peer{Name: fmt.Sprintf("p%d", first+i)}
		p.Box = client.MemoryMailbox()
		if disk {
			box, err := client.OpenMailbox(context.Background(), filepath.Join(c.Dir, p.Name+".db"))
			Must(c.t, err)
			p.Box = box
		}
		o := client.Options{
			Membership: members[(first+i)%len(members)], SessionSeed: client.Secret(trust.NewSecretKey().Seed()),
			Card: client.Card{Label: p.Name, PeerType: "ai"}, Logger: Watchful(c.Complain),
			Mailbox: &notary{p.Box, c.noteAck},
		}
		if edit != nil {
			edit(&o)
		}
		var err error
		p.C, err = client.Dial(context.Background(), o)
		Must(c.t, err)
		ctx, cancel := context.WithCancel(context.Background())
		p.stop = cancel
		p.wg.Go(func() { c.read(ctx, p) })
		c.peers = append(c.peers, p)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	for _, p := range c.peers[first:] {
		Must(c.t, p.C.Ready(ctx))
	}
	return c.peers[first:]
}

// Meet waits until each of some peers knows each of others, and says how long it
// took. At several brokers, being ready is not being known everywhere.
func (c *Crowd) Meet(some, others []*Peer) time.Duration {
	c.t.Helper()
	began := time.Now()
	for _, p := range some {
		var keys []string
		for _, other := range others {
			if other != p {
				keys = append(keys, other.C.Key().String())
			}
		}
		Eventually(c.t, 2*time.Minute, p.Name+" knows all others", func() bool {
			to, _, err := p.C.Resolve(context.Background(), keys)
			return err == nil && !slices.ContainsFunc(to, func(t client.SentTarget) bool { return t.Err != nil })
		})
	}
	return time.Since(began)
}

func (c *Crowd) noteAck(id client.ID, to client.Key) {
	c.Ledger.Acked(id, to)
	if c.LastAck != nil {
		c.LastAck()
	}
}

func (c *Crowd) read(ctx context.Context, p *Peer) {
	for r, err := range p.C.Receive(ctx) {
		if err == nil {
			c.Ledger.Shown(r.Recipient, r.ID, r.Text)
			if c.OnShow != nil {
				c.OnShow(r.Text)
			}
			err = r.Ack(context.WithoutCancel(ctx))
		}
		if err != nil {
			c.Complain(fmt.Errorf("%s reads: %w", p.Name, err))
			return
		}
	}
}

func (c *Crowd) Complain(err error) {
	select {
	case c.Problems <- err:
	default:
	}
}

// Send sends one message, and notes how it went.
func (c *Crowd) Send(ctx context.Context, p *Peer, text string, priority client.Priority, to ...*Peer) {
	m := client.Message{Text: text, Priority: priority}
	var keys []client.Key
	for _, r := range to {
		keys = append(keys, r.C.Key())
		m.To = append(m.To, r.C.Key().String())
	}
	c.Ledger.Try(p.Name, text, priority, keys...)
	s, err := p.C.Send(ctx, m)
	if err == nil && len(s.Targets) != len(to) {
		err = errors.New("other targets than were asked for")
	}
	if err != nil {
		c.Complain(fmt.Errorf("%s sends %s: %w", p.Name, text, err))
		return
	}
	c.Ledger.Kept(text, s.ID)
}

// Settle waits until everything has arrived and every sender knows, notes what
// senders were told, and audits.
func (c *Crowd) Settle(within time.Duration, p Promise) Figures {
	c.t.Helper()
	Eventually(c.t, within, "everything arrives or bounces, and senders know", func() bool {
		return c.tell() == 0 && c.Ledger.Figures().Waiting == 0
	})
	time.Sleep(300 * time.Millisecond) // a second copy would come now
	for _, err := range c.Ledger.Check(p) {
		c.t.Error(err)
	}
	for len(c.Problems) > 0 {
		c.t.Error(<-c.Problems)
	}
	return c.Ledger.Figures()
}

// tell notes what senders know, and returns how many deliveries they do not
// know the end of.
func (c *Crowd) tell() (open int) {
	byName := map[string]*Peer{}
	for _, p := range c.peers {
		byName[p.Name] = p
	}
	for text, id := range c.Ledger.Texts() {
		if c.Told[id] {
			continue
		}
		name, _, _ := strings.Cut(text, "/")
		out, err := byName[name].Box.Outgoing(context.Background(), id)
		if err != nil {
			c.Complain(err)
			continue
		}
		before := open
		for _, r := range out.Recipients {
			c.Ledger.Final(id, r.Key, r.State, string(r.Code))
			if r.State == client.Stored || r.State == client.Accepted {
				open++
			}
		}
		c.Told[id] = open == before
	}
	return open
}

// hangUp closes every peer.
func (c *Crowd) hangUp() {
	var wg sync.WaitGroup
	for _, p := range c.peers {
		wg.Go(func() {
			p.stop()
			p.wg.Wait()
			_ = p.C.Close()
			_ = p.Box.Close()
		})
	}
	wg.Wait()
	c.peers = nil
}
