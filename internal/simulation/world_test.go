package simulation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/clustertest"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/meshtest"
	"github.com/claudemesh/claudemesh/internal/sqlite"
	"github.com/claudemesh/claudemesh/internal/trust"
)

// founding is a mesh with all its members, made once and copied for each seed.
type founding struct {
	file    []byte // the broker's database
	members []client.Membership
	made    time.Time
}

func found(t *testing.T) *founding {
	t.Helper()
	w := meshtest.New(t, nil)
	f := &founding{members: []client.Membership{w.Found("mesh", "m0")}}
	c := w.Dial(f.members[0], "", func(o *client.Options) { o.Role = client.Observer })
	for i := 1; i < maxMembers; i++ {
		f.members = append(f.members, w.Join(c, "member", fmt.Sprintf("m%d", i)))
	}
	_ = c.Close()
	w.Stop()
	http.DefaultClient.CloseIdleConnections()
	var err error
	f.file, err = os.ReadFile(w.File)
	must(t, err)
	f.made = time.Now()
	return f
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bugs are planted to see that they are found.
type bugs struct {
	store   func(broker.Store) broker.Store
	mailbox func(mailbox.Mailbox) mailbox.Mailbox
	lies    bool // the disk confirms what a crash will undo
}

// figures are of one run, or of all.
type figures struct {
	seeds, messages, deliveries, bounced, cuts, kills, stops, peers, duplicates int
	virtual                                                                     time.Duration
}

func (f *figures) add(g figures) {
	f.seeds += g.seeds
	f.messages += g.messages
	f.deliveries += g.deliveries
	f.bounced += g.bounced
	f.cuts += g.cuts
	f.kills += g.kills
	f.stops += g.stops
	f.peers += g.peers
	f.duplicates += g.duplicates
	f.virtual += g.virtual
}

func (f figures) String() string {
	return fmt.Sprintf("%d seeds: %d messages, %d deliveries, of them %d bounced; %d cuts, %d broker kills, %d broker stops, %d peer kills and closes, %d frames repeated; %s of virtual time",
		f.seeds, f.messages, f.deliveries, f.bounced, f.cuts, f.kills, f.stops, f.peers, f.duplicates, f.virtual.Round(time.Second))
}

// world is one run.
type world struct {
	plan   plan
	bugs   bugs
	net    *Network
	ledger *clustertest.Ledger
	peers  []*peer
	found  *founding
	dir    string
	began  time.Time
	healed atomic.Bool
	figures

	file   string // of the broker's current life
	lives  int
	disk   *disk
	broker *broker.Broker
	server *http.Server
	served sync.WaitGroup

	mu       sync.Mutex // guards the following
	problems []string
	notes    []string
}

// simulate runs a plan in a bubble and returns what went wrong.
func simulate(t *testing.T, f *founding, p plan, b bugs) (problems, notes []string, fig figures) {
	dir, err := os.MkdirTemp(memoryDir(), "claudemesh-simulation")
	must(t, err)
	defer os.RemoveAll(dir)
	w := &world{plan: p, bugs: b, found: f, dir: dir, ledger: clustertest.NewLedger()}
	synctest.Test(t, func(t *testing.T) {
		// A bubble's clock starts in 2000, when nobody has joined yet.
		time.Sleep(time.Until(f.made.Add(time.Minute)))
		w.run()
	})
	return w.problems, w.notes, w.figures
}

// memoryDir is a file system in memory where there is one: what a killed broker leaves
// is a copy of its files, and needs no disk.
func memoryDir() string {
	if s, err := os.Stat("/dev/shm"); err == nil && s.IsDir() {
		return "/dev/shm"
	}
	return ""
}

func (w *world) complain(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.problems = append(w.problems, w.stamp()+fmt.Sprintf(format, args...))
}

// note keeps a line for the report of a failure.
func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notes = append(w.notes, w.stamp()+fmt.Sprintf(format, args...))
}

func (w *world) stamp() string { return fmt.Sprintf("%9.3fs ", time.Since(w.began).Seconds()) }

func (w *world) run() {
	w.net, w.began = NewNetwork(), time.Now()
	w.file = filepath.Join(w.dir, "mesh-0.db")
	if err := os.WriteFile(w.file, w.found.file, 0o600); err != nil {
		w.complain("%v", err)
		return
	}
	w.startBroker()
	w.settleIn()
	w.began = time.Now()
	var wg sync.WaitGroup
	for i, p := range w.peers {
		wg.Go(func() { p.load(w.plan.sends[i]) })
	}
	for _, e := range w.plan.events {
		time.Sleep(time.Until(w.began.Add(e.at)))
		w.do(e, &wg)
	}
	time.Sleep(time.Until(w.began.Add(w.plan.chaos)))
	wg.Wait()
	w.heal()
	w.audit()
	w.virtual = time.Since(w.began)
	for _, p := range w.peers {
		w.duplicates += p.link.Repeated()
		p.end(false, 0)
	}
	for _, p := range w.peers {
		_ = p.machine.box.Close()
	}
	w.stopBroker(5 * time.Second)
	w.net.Close()
}

// settleIn starts every session and lets it see the others: who was never seen
// cannot be written to.
func (w *world) settleIn() {
	boxes := map[int]*machine{}
	for i, m := range w.plan.members {
		if boxes[m] == nil {
			boxes[m] = &machine{box: w.mailbox(m), wrap: w.bugs.mailbox}
		}
		p := &peer{
			w: w, number: i, name: fmt.Sprintf("p%d", i), member: w.found.members[m], machine: boxes[m],
			seed: client.Secret(trust.NewSecretKey().Seed()), link: w.net.Link(i), role: client.Session,
		}
		if i >= len(w.plan.members)-w.plan.persons {
			p.role = client.Person
		}
		for d := range 2 {
			p.link.Delay(Direction(d), w.plan.latency)
		}
		w.peers = append(w.peers, p)
		p.start()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, p := range w.peers {
		c, _ := p.client()
		if err := c.Ready(ctx); err != nil {
			w.complain("%s: %v", p.name, err)
		}
	}
	for _, p := range w.peers {
		c, _ := p.client()
		if peers, _, err := c.Peers(ctx, true); err != nil || len(peers) != len(w.peers) {
			w.complain("%s sees %d peers: %v", p.name, len(peers), err)
		}
	}
}

func (w *world) mailbox(member int) mailbox.Mailbox {
	if !w.plan.files {
		return mailbox.NewMemory()
	}
	box, err := mailbox.Open(context.Background(), filepath.Join(w.dir, fmt.Sprintf("mailbox-%d.db", member)))
	if err != nil {
		w.complain("the mailbox does not open: %v", err)
		panic(err)
	}
	return box
}

// keyOf is the address of a session, or of a member (below 0).
func (w *world) keyOf(to int) client.Key {
	if to >= 0 {
		return trust.SecretKeyFromSeed(w.peers[to].seed).Public()
	}
	return w.found.members[-1-to].MemberKey()
}

func (w *world) startBroker() {
	store, err := sqlite.Open(context.Background(), w.file, sqlite.Options{Logger: slog.New(ear{w, "store"})})
	if err != nil {
		w.complain("the store does not open: %v", err)
		panic(err)
	}
	w.lives++
	var s broker.Store = store
	if w.bugs.store != nil {
		s = w.bugs.store(s)
	}
	w.disk = newDisk(s, w.file, filepath.Join(w.dir, fmt.Sprintf("mesh-%d.db", w.lives)))
	w.disk.lies = w.bugs.lies
	w.broker, err = broker.New(context.Background(), broker.Config{
		Store: w.disk, Open: true, Limits: w.plan.limits, Logger: slog.New(ear{w, "broker"}),
	})
	if err != nil {
		w.complain("the broker does not start: %v", err)
		panic(err)
	}
	w.server = &http.Server{Handler: w.broker, ReadHeaderTimeout: 5 * time.Second}
	ln, srv := w.net.Listen(), w.server
	w.served.Go(func() { _ = srv.Serve(ln) })
}

// stopBroker ends it in an orderly way.
func (w *world) stopBroker(patience time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = w.server.Close()
	if err := w.broker.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		w.complain("shutdown: %v", err)
	}
	w.served.Wait()
	if err := w.disk.Close(); err != nil {
		w.complain("close the store: %v", err)
	}
}

// killBroker leaves of it what kill -9 leaves: its file, as it was at a moment.
func (w *world) killBroker(e event) {
	if err := w.disk.freeze(e.moment); err != nil {
		w.complain("copy: %v", err)
		panic(err)
	}
	time.Sleep(e.pause) // it goes on for a little while, but nothing reaches its disk
	w.net.CutAll(e.keep[0])
	w.file = w.disk.image
	w.stopBroker(0)
}

// do does one event. What has to be undone later is, on wg.
func (w *world) do(e event, wg *sync.WaitGroup) {
	w.note("EVENT %s", e)
	p := w.peers[e.peer]
	later := func(fn func()) { wg.Go(func() { time.Sleep(e.lasts); fn() }) }
	switch e.kind {
	case cut:
		w.cuts++
		p.link.Cut(e.keep[ToBroker], e.keep[ToPeer])
	case cutMidFrame:
		w.cuts++
		p.link.CutAfter(e.dir, e.n)
	case cutEverybody:
		w.cuts++
		w.net.CutAll(e.keep[0])
	case drop:
		w.cuts++
		p.link.Lose(e.dir)
	case stall:
		p.link.Stall(e.lasts)
	case delay:
		p.link.Delay(e.dir, w.plan.latency+e.pause)
		later(func() { p.link.Delay(e.dir, w.plan.latency) })
	case refuse:
		p.link.Refuse(true)
		later(func() { p.link.Refuse(false) })
	case duplicate:
		p.link.Repeat(e.dir, e.n, e.keep[0])
	case killBroker, stopBroker:
		if e.kind == killBroker {
			w.kills++
			w.killBroker(e)
		} else {
			w.stops++
			w.stopBroker(5 * time.Second)
		}
		time.Sleep(e.lasts)
		w.startBroker()
	case slowDisk:
		w.disk.Settle(nil, func([]bool, error) { time.Sleep(e.lasts) })
	case killPeer, closePeer:
		w.figures.peers++
		wg.Go(func() {
			p.end(e.kind == killPeer, e.moment)
			time.Sleep(e.lasts)
			p.start()
		})
	}
}

// heal ends all faults. What they left behind is for the product to get over.
func (w *world) heal() {
	w.healed.Store(true)
	w.note("EVENT healed")
	for _, p := range w.peers {
		p.link.Refuse(false)
		p.start()
	}
}

// patience is how long after the last fault everything must have come to its end.
const patience = 10 * time.Minute

// audit waits until all is quiet, and holds the run against the contract.
func (w *world) audit() {
	end := time.Now().Add(patience)
	for w.tell() > 0 || w.ledger.Figures().Waiting > 0 || w.queued() > 0 {
		if time.Now().After(end) {
			w.complain("not within %s: everything arrives or bounces, and senders know; %d open, %d on the broker", patience, w.tell(), w.queued())
			break
		}
		time.Sleep(time.Second)
	}
	time.Sleep(time.Minute) // a second copy would come now
	w.tell()
	f := w.ledger.Figures()
	w.seeds, w.messages, w.deliveries, w.bounced = 1, f.Kept, f.Shown+f.Bounced+f.Waiting, f.Bounced
	for _, err := range w.ledger.Check(clustertest.OfSend) {
		w.complain("%v", err)
	}
	w.auditStore()
	if f.Bounced > 0 {
		return // what has expired is missing, and told as missing
	}
	for _, p := range w.peers {
		if c, _ := p.client(); c != nil {
			if gaps, err := c.Missing(context.Background()); err != nil || len(gaps) > 0 {
				w.complain("%s misses %v: %v", p.name, gaps, err)
			}
		}
	}
}

// queued is how many deliveries the broker has.
func (w *world) queued() int64 {
	s, err := w.disk.Stats(context.Background())
	if err != nil {
		w.complain("stats: %v", err)
	}
	return s.Queued
}

// auditStore: at the end nothing is left on the broker, and its counters know.
func (w *world) auditStore() {
	if n := w.queued(); n != 0 {
		w.complain("%d deliveries are left on the broker", n)
	}
	m, err := w.disk.Mesh(context.Background(), w.found.members[0].MeshID)
	if err != nil || m.Queued != 0 || m.QueuedBytes != 0 {
		w.complain("the mesh counts %d deliveries, %d bytes of none: %v", m.Queued, m.QueuedBytes, err)
	}
}

// tell notes what senders know, and returns how many deliveries they do not
// know the end of.
func (w *world) tell() (open int) {
	for text, id := range w.ledger.Texts() {
		i := slices.IndexFunc(w.peers, func(p *peer) bool { return len(text) > len(p.name) && text[:len(p.name)+1] == p.name+"/" })
		out, err := w.peers[i].machine.box.Outgoing(context.Background(), id)
		if err != nil {
			w.complain("%s is not in its outbox: %v", text, err)
			continue
		}
		for _, r := range out.Recipients {
			w.ledger.Final(id, r.Key, r.State, string(r.Code))
			if r.State != client.Read && r.State != client.Bounced {
				open++
			}
		}
	}
	return open
}
