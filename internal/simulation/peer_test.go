package simulation

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// machine is what a member's sessions share: a mailbox, which outlives them.
type machine struct {
	box  mailbox.Mailbox
	mu   sync.Mutex // makes marking a message read and noting it one step
	wrap func(mailbox.Mailbox) mailbox.Mailbox
}

// life is a mailbox as one process has it: from the instant of its death
// nothing is written any more, and nothing is confirmed.
type life struct {
	mailbox.Mailbox
	p     *peer
	armed chan int // the moment of death: after the next commit of a kind
	dead  chan struct{}
	once  sync.Once

	mu      sync.Mutex
	showing map[int64]*client.Received // what its reader has at hand
}

func (l *life) die() { l.once.Do(func() { close(l.dead) }) }

func (l *life) gone() bool {
	select {
	case <-l.dead:
		return true
	default:
		return false
	}
}

// The moments at which a peer is killed, besides at once.
const (
	afterPut = iota + 1
	afterReceive
)

// do runs one writing call. It is committed, and its caller is dead, when the
// moment of death is right after it.
func (l *life) do(moment int, call func() error) error {
	if l.gone() {
		return mailbox.ErrClosed
	}
	err := call()
	select {
	case m := <-l.armed:
		if m == moment {
			l.die()
			break
		}
		l.armed <- m
	default:
	}
	if l.gone() {
		return mailbox.ErrClosed
	}
	return err
}

func (l *life) Put(ctx context.Context, lanes []mailbox.Lane, seal func([]uint64) (mailbox.Outgoing, error)) (n int64, err error) {
	err = l.do(afterPut, func() error { n, err = l.Mailbox.Put(ctx, lanes, seal); return err })
	return n, err
}

func (l *life) Advance(ctx context.Context, mesh, id wire.ID, to wire.Key, s mailbox.State, code wire.Code, online bool, at int64) (changed bool, err error) {
	err = l.do(0, func() error {
		if s != mailbox.Bounced { // a receipt may overtake the acknowledgement
			l.p.w.ledger.Acked(id, to)
		}
		changed, err = l.Mailbox.Advance(ctx, mesh, id, to, s, code, online, at)
		return err
	})
	return changed, err
}

func (l *life) Receive(ctx context.Context, in []mailbox.Incoming) (fresh []bool, errs []error, err error) {
	err = l.do(afterReceive, func() error { fresh, errs, err = l.Mailbox.Receive(ctx, in); return err })
	return fresh, errs, err
}

// MarkRead is where a message is shown.
func (l *life) MarkRead(ctx context.Context, number int64, reader wire.Key, at int64) (unread bool, err error) {
	l.p.machine.mu.Lock()
	defer l.p.machine.mu.Unlock()
	l.mu.Lock()
	r := l.showing[number]
	l.mu.Unlock()
	err = l.do(0, func() error {
		if unread, err = l.Mailbox.MarkRead(ctx, number, reader, at); unread && err == nil {
			l.p.w.ledger.Shown(r.Recipient, r.ID, short(r.Text))
		}
		return err
	})
	return unread, err
}

func (l *life) Receipted(ctx context.Context, numbers []int64) error {
	return l.do(0, func() error { return l.Mailbox.Receipted(ctx, numbers) })
}

func (l *life) SavePeers(ctx context.Context, mesh wire.ID, peers []mailbox.KnownPeer) error {
	return l.do(0, func() error { return l.Mailbox.SavePeers(ctx, mesh, peers) })
}

func (l *life) SaveStatements(ctx context.Context, mesh wire.ID, version int64, s []mailbox.Statement) (fresh []bool, err error) {
	err = l.do(0, func() error { fresh, err = l.Mailbox.SaveStatements(ctx, mesh, version, s); return err })
	return fresh, err
}

// peer is a session, or a person, over all its lives.
type peer struct {
	w       *world
	number  int
	name    string
	member  client.Membership
	seed    client.Secret
	machine *machine
	link    *Link
	role    client.Role

	mu   sync.Mutex // guards the following
	c    *client.Client
	life *life
	stop context.CancelFunc
	wg   *sync.WaitGroup
}

// client is its current one; nil while it is down.
func (p *peer) client() (*client.Client, *life) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.c, p.life
}

// start begins a life.
func (p *peer) start() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.c != nil {
		return
	}
	box := p.machine.box
	if p.machine.wrap != nil {
		box = p.machine.wrap(box)
	}
	l := &life{Mailbox: box, p: p, armed: make(chan int, 1), dead: make(chan struct{}), showing: map[int64]*client.Received{}}
	c, err := client.Dial(context.Background(), client.Options{
		Membership: p.member, SessionSeed: p.seed, Mailbox: l, HTTP: p.link.Client(), Role: p.role,
		Card: client.Card{Label: p.name, PeerType: "ai"}, Logger: slog.New(ear{p.w, p.name}),
	})
	if err != nil {
		p.w.complain("%s does not start: %v", p.name, err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.c, p.life, p.stop, p.wg = c, l, cancel, new(sync.WaitGroup)
	p.wg.Go(func() { p.read(ctx, c, l) })
}

// end ends a life: cleanly, or at a moment of a kill.
func (p *peer) end(kill bool, moment int) {
	p.mu.Lock()
	c, l, stop, wg := p.c, p.life, p.stop, p.wg
	p.c = nil
	p.mu.Unlock()
	if c == nil {
		return
	}
	if kill {
		if moment != 0 {
			l.armed <- moment
			select {
			case <-l.dead:
			case <-time.After(3 * time.Second):
			}
		}
		l.die()
		p.link.Cut(rand.N(2) == 0, false)
	}
	stop()
	_ = c.Close()
	wg.Wait()
	l.die()
}

// read shows what arrives, some of it late.
func (p *peer) read(ctx context.Context, c *client.Client, l *life) {
	yielded := map[int64]bool{}
	for r, err := range c.Receive(ctx) {
		if err != nil {
			if !l.gone() {
				p.w.complain("%s reads: %v", p.name, err)
			}
			return
		}
		if yielded[r.Number] {
			p.w.complain("%s was given %s twice in one life", p.name, short(r.Text))
		}
		yielded[r.Number] = true
		l.mu.Lock()
		l.showing[r.Number] = r
		l.mu.Unlock()
		if !p.w.healed.Load() && rand.Float64() < p.w.plan.slow {
			select {
			case <-time.After(rand.N(5 * time.Second)):
			case <-ctx.Done():
				return
			}
		}
		if err := r.Ack(context.WithoutCancel(ctx)); err != nil {
			if !l.gone() {
				p.w.complain("%s marks read: %v", p.name, err)
			}
			return
		}
	}
}

// short is a text without its padding: it names the message.
func short(text string) string { s, _, _ := strings.Cut(text, " "); return s }

// load sends what the plan has for this session, in its lives.
func (p *peer) load(sends []send) {
	for n, s := range sends {
		time.Sleep(time.Until(p.w.began.Add(s.at)))
		c, l := p.client()
		if c == nil {
			continue
		}
		m := client.Message{Text: fmt.Sprintf("%s/%d %s", p.name, n, strings.Repeat("x", s.size)), Priority: s.priority, Expires: s.ttl}
		var keys []client.Key
		for _, to := range s.to {
			keys = append(keys, p.w.keyOf(to))
			m.To = append(m.To, keys[len(keys)-1].String())
		}
		p.w.ledger.Try(p.name, short(m.Text), s.priority, keys...)
		if s.ttl > 0 {
			p.w.ledger.Perishable(short(m.Text))
		}
		sent, err := c.Send(context.Background(), m)
		switch {
		case err == nil && len(sent.Targets) == len(keys):
			p.w.ledger.Kept(short(m.Text), sent.ID)
		case !l.gone():
			p.w.complain("%s sends %d: %v %+v", p.name, n, err, sent)
		}
	}
}

// ear is a logger that listens for one line: a client that is told that the
// broker does not know what it had acknowledged sends it again. That heals a
// restore from a backup, and would hide a loss from here.
type ear struct {
	w    *world
	name string
}

func (h ear) Enabled(context.Context, slog.Level) bool { return true }
func (h ear) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h ear) WithGroup(string) slog.Handler            { return h }

func (h ear) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "has forgotten a message") {
		h.w.complain("%s: acknowledged and lost: %s", h.name, r.Message)
	}
	var b strings.Builder
	r.Attrs(func(a slog.Attr) bool { fmt.Fprintf(&b, " %s", a); return true })
	h.w.note("%s: %s%s", h.name, r.Message, b.String())
	return nil
}
