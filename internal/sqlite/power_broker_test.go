package sqlite_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/clustertest"
	"github.com/claudemesh/claudemesh/internal/disktest"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/meshtest"
	"github.com/claudemesh/claudemesh/internal/sqlite"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// machine is a broker whose power can be cut: with the disk goes the network.
type machine struct {
	t     testing.TB
	disk  *disktest.Disk
	path  string
	query string
	addr  string
	net   *wires
	store *sqlite.Store
	b     *broker.Broker
	srv   *http.Server
}

// wires accepts connections over which nothing goes out once the disk is dark: a
// machine without power refuses nobody.
type wires struct {
	net.Listener
	dark <-chan struct{}
	mu   sync.Mutex
	open []net.Conn
}

func (w *wires) Accept() (net.Conn, error) {
	c, err := w.Listener.Accept()
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = append(w.open, c)
	return wired{c, w.dark}, nil
}

type wired struct {
	net.Conn
	dark <-chan struct{}
}

func (c wired) Write(b []byte) (int, error) {
	select {
	case <-c.dark:
		return 0, net.ErrClosed
	default:
		return c.Conn.Write(b)
	}
}

// start starts the broker, after the first time at its old address.
func (m *machine) start() {
	m.t.Helper()
	var err error
	if m.store, err = sqlite.Open(bg, m.path, on(m.disk, m.query)); err != nil {
		m.t.Fatal(err)
	}
	many := broker.Limits{SendsPerMinute: 1e6, SendBurst: 1e6, BytesPerMinute: 1e9}
	if m.b, err = broker.New(bg, broker.Config{Store: m.store, Open: true, Limits: many}); err != nil {
		m.t.Fatal(err)
	}
	var ln net.Listener
	meshtest.Eventually(m.t, "the address is free", func() bool {
		ln, err = net.Listen("tcp", m.addr)
		return err == nil
	})
	m.addr = ln.Addr().String()
	m.net = &wires{Listener: ln, dark: m.disk.Dark()}
	m.srv = &http.Server{Handler: m.b, ReadHeaderTimeout: 30 * time.Second}
	go func(srv *http.Server, ln net.Listener) { _ = srv.Serve(ln) }(m.srv, m.net)
}

// stop ends the broker; what it does without power is seen by nobody.
func (m *machine) stop() {
	m.t.Helper()
	_ = m.srv.Close()
	m.net.mu.Lock()
	for _, c := range m.net.open {
		_ = c.Close()
	}
	m.net.mu.Unlock()
	ctx, cancel := context.WithTimeout(bg, 30*time.Second)
	defer cancel()
	if err := m.b.Shutdown(ctx); err != nil {
		m.t.Errorf("shutdown: %v", err)
	}
	_ = m.store.Close()
}

// notary is a mailbox that tells the ledger of the broker's word.
type notary struct {
	mailbox.Mailbox
	ledger *clustertest.Ledger
	acks   *atomic.Int64
}

func (n notary) Advance(ctx context.Context, mesh, id wire.ID, to wire.Key, s mailbox.State, code wire.Code, online bool, at int64) (bool, error) {
	if s != mailbox.Bounced {
		n.ledger.Acked(id, to)
		n.acks.Add(1)
	}
	return n.Mailbox.Advance(ctx, mesh, id, to, s, code, online, at)
}

// forgotten counts the acknowledged messages that the broker did not know after a
// cut. Their senders hand them over again, so the ledger alone would not see it.
type forgotten struct{ n *atomic.Int64 }

func (f forgotten) Enabled(context.Context, slog.Level) bool { return true }
func (f forgotten) WithAttrs([]slog.Attr) slog.Handler       { return f }
func (f forgotten) WithGroup(string) slog.Handler            { return f }

func (f forgotten) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "has forgotten a message") {
		f.n.Add(1)
	}
	return nil
}

// party is the peers of a run.
type party struct {
	t      testing.TB
	w      *meshtest.World // of m
	ledger *clustertest.Ledger
	acks   atomic.Int64
	lost   atomic.Int64
	boxes  map[*client.Client]client.Mailbox
}

func (p *party) dial(m client.Membership, label string, seed *client.Secret, box client.Mailbox) *client.Client {
	c := p.w.Dial(m, label, func(o *client.Options) {
		if seed != nil && *seed != (client.Secret{}) {
			o.SessionSeed = *seed
		} else if seed != nil {
			*seed = o.SessionSeed
		}
		o.Mailbox, o.Logger = notary{box, p.ledger, &p.acks}, slog.New(forgotten{&p.lost})
	})
	p.boxes[c] = box
	return c
}

// read shows the ledger what a client receives, until ctx ends.
func (p *party) read(ctx context.Context, wg *sync.WaitGroup, c *client.Client) {
	wg.Go(func() {
		for r, err := range c.Receive(ctx) {
			if err != nil {
				if ctx.Err() == nil {
					p.t.Errorf("receive: %v", err)
				}
				return
			}
			p.ledger.Shown(r.Recipient, r.ID, r.Text)
			if err := r.Ack(context.WithoutCancel(ctx)); err != nil {
				p.t.Errorf("ack: %v", err)
			}
		}
	})
}

// load sends to everybody in turn, until ctx ends.
func (p *party) load(ctx context.Context, wg *sync.WaitGroup, name string, c *client.Client, to []client.Key) {
	wg.Go(func() {
		tick := time.NewTicker(15 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ctx.Err() == nil; n++ {
			text, key := fmt.Sprintf("%s/%d", name, n), to[n%len(to)]
			p.ledger.Try(name, text, client.Next, key)
			s, err := c.Send(bg, client.Message{Text: text, To: []string{key.String()}})
			if err != nil {
				p.t.Errorf("send: %v", err)
				return
			}
			p.ledger.Kept(text, s.ID)
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	})
}

// brokerCuts cuts the power of a broker under load of real clients, and returns what was
// broken: breaches of the ledger, and acknowledged messages that a restarted
// broker did not know.
func brokerCuts(t *testing.T, cuts int, query string) (breaches []error, lost int64) {
	m := &machine{t: t, query: smallWAL + query, addr: "127.0.0.1:0"}
	m.disk, m.path = newDisk(t)
	m.start()
	p := &party{t: t, w: &meshtest.World{T: t, URL: "ws://" + m.addr + "/ws", Logger: slog.New(slog.DiscardHandler)},
		ledger: clustertest.NewLedger(), boxes: map[*client.Client]client.Mailbox{}}
	members := []client.Membership{p.w.Found("power", "m0")}
	owner := p.dial(members[0], "owner", nil, client.MemoryMailbox())
	members = append(members, p.w.Join(owner, "member", "m1"))
	var seed client.Secret // of one who is away, so that much waits
	box := client.MemoryMailbox()
	away := p.dial(members[1], "away", &seed, box)
	to := []client.Key{away.Key(), away.Key()}
	if err := away.Close(); err != nil {
		t.Fatal(err)
	}
	reading, stopReading := context.WithCancel(bg)
	sending, stopSending := context.WithCancel(bg)
	var readers, senders sync.WaitGroup
	defer readers.Wait()
	defer stopReading()
	defer senders.Wait()
	defer stopSending()
	peers := []*client.Client{owner}
	for i := range 5 {
		c := p.dial(members[i%2], fmt.Sprintf("p%d", i), nil, client.MemoryMailbox())
		p.read(reading, &readers, c)
		to, peers = append(to, c.Key()), append(peers, c)
	}
	p.read(reading, &readers, owner)
	for i, c := range peers[1:] {
		others := slices.DeleteFunc(slices.Clone(to), func(k client.Key) bool { return k == c.Key() })
		p.load(sending, &senders, fmt.Sprintf("s%d", i), c, others)
	}
	for seed := range uint64(cuts) {
		m.cut(p, rand.New(rand.NewPCG(seed, 5)))
	}
	stopSending()
	senders.Wait()
	p.read(reading, &readers, p.dial(members[1], "away", &seed, box))
	p.finish()
	breaches, lost = p.ledger.Check(clustertest.OfSend), p.lost.Load()
	m.stop()
	t.Logf("%d cuts: %+v; %d acknowledged and forgotten", cuts, p.ledger.Figures(), lost)
	m.disk.Cut()
	if m.query != smallWAL {
		return breaches, lost // a damaged file is what such a broker may leave
	}
	if err := m.disk.PowerOn(nil); err != nil {
		t.Error(err)
	}
	if err := sqlite.Check(bg, m.path); err != nil {
		t.Error(err)
	}
	return breaches, lost
}

// cut cuts the power after some acknowledgements, at a random operation, and brings it
// back; half the time a part of what was not synced survives.
func (m *machine) cut(p *party, rng *rand.Rand) {
	m.t.Helper()
	before := p.acks.Load()
	within(m.t, "acknowledgements after a start", func() bool { return p.acks.Load() > before+20 })
	moment := moments[rng.IntN(len(moments)-1)]
	if m.query != smallWAL { // it would lose nothing between a checkpoint's two syncs
		moment = moments[0]
	}
	m.disk.CutAt(nth(1+rng.IntN(moment.most), moment.is))
	select {
	case <-m.disk.Dark():
	case <-time.After(time.Minute):
		m.t.Fatalf("no %s within a minute", moment.name)
	}
	m.stop()
	var some *rand.Rand
	if m.query == smallWAL && rng.IntN(2) == 0 {
		some = rng
	}
	if err := m.disk.PowerOn(some); err != nil {
		m.t.Fatal(err)
	}
	m.start()
}

// finish waits until every message has its end and every sender knows it.
func (p *party) finish() {
	p.t.Helper()
	told := map[client.ID]bool{}
	within(p.t, "everything arrives, and senders know", func() bool {
		open := 0
		for _, id := range p.ledger.Texts() {
			if !told[id] {
				told[id] = p.tell(id)
			}
			if !told[id] {
				open++
			}
		}
		return open == 0 && p.ledger.Figures().Waiting == 0
	})
}

// tell notes what the sender of a message knows, and whether that is the end.
func (p *party) tell(id client.ID) (end bool) {
	for _, box := range p.boxes {
		out, err := box.Outgoing(bg, id)
		if err != nil {
			continue
		}
		for _, r := range out.Recipients {
			p.ledger.Final(id, r.Key, r.State, string(r.Code))
			end = r.State != client.Stored && r.State != client.Accepted
		}
	}
	return end
}

// within waits for a minute.
func within(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("not within a minute: %s", what)
			return
		}
	}
}

// TestPowerCutBroker: what the broker acknowledged to a client is delivered, once
// and in order, whenever its machine loses power. A broker that commits without
// fsync would be found.
func TestPowerCutBroker(t *testing.T) {
	t.Parallel()
	breaches, lost := brokerCuts(t, long(10, 300), "")
	for _, err := range breaches {
		t.Error(err)
	}
	if lost > 0 {
		t.Errorf("%d messages were acknowledged and forgotten", lost)
	}
	t.Run("synchronous=NORMAL is caught", func(t *testing.T) {
		if breaches, lost := brokerCuts(t, 4, "&_sync=NORMAL"); lost+int64(len(breaches)) == 0 {
			t.Error("nothing was lost: this test cannot fail")
		}
	})
}
