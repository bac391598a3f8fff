package faults

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// TestMain: the test binary is a peer when it is asked to be, so that peers
// can be killed.
func TestMain(m *testing.M) {
	if path := os.Getenv(peerEnv); path != "" {
		os.Exit(peerMain(path))
	}
	flag.Parse()
	if testing.Short() && !long() {
		fmt.Println("without -short, the faults are tested here")
		os.Exit(0)
	}
	code := m.Run()
	if binary.dir != "" {
		_ = os.RemoveAll(binary.dir)
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// long reports whether the soak runs; pick chooses by it.
func long() bool { return os.Getenv("SOAK") != "" }

func pick[T any](short, soak T) T {
	if long() {
		return soak
	}
	return short
}

// aside lets short runs, which mostly wait, run at the same time. A soak measures.
func aside(t *testing.T) {
	if !long() {
		t.Parallel()
	}
}

// binary is our programs, built once per run.
var binary struct {
	once sync.Once
	dir  string
	err  error
}

// program returns the file of one of our programs.
func program(t testing.TB, name string) string {
	t.Helper()
	binary.once.Do(func() {
		if binary.dir, binary.err = os.MkdirTemp("", "claudemesh-faults"); binary.err != nil {
			return
		}
		cmd := exec.Command("go", "build", "-o", binary.dir, "github.com/claudemesh/claudemesh/cmd/claudemesh-broker", "github.com/claudemesh/claudemesh/cmd/claudemesh")
		if out, err := cmd.CombinedOutput(); err != nil {
			binary.err = fmt.Errorf("%w: %s", err, out)
		}
	})
	if binary.err != nil {
		t.Fatal(binary.err)
	}
	return filepath.Join(binary.dir, name)
}

// raised lifts the limits that a load of few members would meet.
var raised = []string{
	"--sends-per-minute=1000000", "--send-burst=1000000", "--bytes-per-minute=1000000000",
	"--queue-messages=1000000", "--queue-bytes=1000000000", "--preauth-per-address=1000", "--disk-high-water=100",
}

// process is a broker in a process of its own.
type process struct {
	t    testing.TB
	db   string
	args []string
	url  string // once started; it keeps its port
	cmd  *exec.Cmd
	logs string // file of its standard error
}

// newProcess starts a broker with raised limits.
func newProcess(t testing.TB, args ...string) *process {
	return newDefault(t, append(slices.Clone(raised), args...)...)
}

// newDefault starts a broker with the limits that it has by itself.
func newDefault(t testing.TB, args ...string) *process {
	dir := t.TempDir()
	p := &process{t: t, db: filepath.Join(dir, "mesh.db"), args: args, logs: filepath.Join(dir, "broker.log")}
	p.start()
	t.Cleanup(func() {
		p.kill()
		if raw, err := os.ReadFile(p.logs); err == nil && len(raw) > 0 && t.Failed() {
			t.Logf("the broker said:\n%s", raw[max(0, len(raw)-4000):])
		}
	})
	return p
}

// start starts it, and returns when it listens.
func (p *process) start() {
	p.t.Helper()
	listen := "127.0.0.1:0"
	if p.url != "" {
		listen = strings.TrimSuffix(strings.TrimPrefix(p.url, "ws://"), wire.PathWS)
	}
	args := append([]string{"--db", p.db, "--listen", listen, "--open", "--log-level", "warn"}, p.args...)
	p.cmd = exec.Command(program(p.t, "claudemesh-broker"), args...)
	log, err := os.OpenFile(p.logs, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close()
	p.cmd.Stderr = log
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		p.t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if url, ok := strings.CutPrefix(lines.Text(), "listening on "); ok {
			p.url = url
			return
		}
	}
	raw, _ := os.ReadFile(p.logs)
	p.t.Fatalf("the broker did not start: %v\n%s", p.cmd.Wait(), raw)
}

// kill ends it with SIGKILL and waits until it is gone.
func (p *process) kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		p.cmd = nil
	}
}

// metric reads one of its counters; 0 when it cannot.
func (p *process) metric(name string) float64 {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	url := "http" + strings.TrimSuffix(strings.TrimPrefix(p.url, "ws"), wire.PathWS) + "/metrics"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0
	}
	req.Close = true // no idle connection stays behind
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	raw, _ := io.ReadAll(res.Body)
	for line := range strings.Lines(string(raw)) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			n, _ := strconv.ParseFloat(strings.TrimSpace(v), 64)
			return n
		}
	}
	return 0
}

// mesh founds a mesh and joins n-1 more members.
func mesh(t testing.TB, url string, n int) []client.Membership {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	owner, err := client.Found(ctx, url, "", "mesh", "m0")
	must(t, err)
	members := []client.Membership{owner}
	c, err := client.Dial(ctx, client.Options{Membership: owner, Role: client.Observer})
	must(t, err)
	defer c.Close()
	must(t, c.Ready(ctx))
	for i := 1; i < n; i++ {
		inv, err := c.NewInvite(ctx, "member", 1, time.Hour)
		must(t, err)
		look, err := client.LookUp(ctx, inv.Link, false)
		must(t, err)
		m, err := look.Join(ctx, fmt.Sprintf("m%d", i))
		must(t, err)
		members = append(members, m)
	}
	http.DefaultClient.CloseIdleConnections()
	return members
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("not within %s: %s", within, what)
			return
		}
	}
}

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

// watchful is a logger that listens for one line: a client that is told, after
// a crash, that the broker does not know what it had acknowledged sends it
// again. That heals a restore from a backup, and would hide a loss from here.
func watchful(complain func(error)) *slog.Logger { return slog.New(listener{complain}) }

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

// peer is a session under load.
type peer struct {
	name string
	c    *client.Client
	box  client.Mailbox
	stop context.CancelFunc // ends its reader
	wg   sync.WaitGroup
}

// crowd is the peers of one run and their ledger.
type crowd struct {
	t        testing.TB
	ledger   *Ledger
	peers    []*peer
	dir      string
	lastAck  func()            // called at each acknowledgement; may be nil
	onShow   func(text string) // called at each showing; may be nil
	problems chan error
	told     map[client.ID]bool // whose ends are noted
}

// boxes is a directory for mailboxes: in memory where there is such a file
// system. What a killed process has written is there all the same, and dozens
// of mailboxes do not wait for one disk. The broker's database is on disk.
func boxes(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "claudemesh-faults")
	if err != nil {
		dir, err = os.MkdirTemp("", "claudemesh-faults")
	}
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func newCrowd(t testing.TB) *crowd {
	c := &crowd{t: t, ledger: NewLedger(), dir: boxes(t), problems: make(chan error, 100), told: map[client.ID]bool{}}
	t.Cleanup(c.hangUp)
	return c
}

// add dials n sessions, spread over the members, and reads what they receive.
func (c *crowd) add(members []client.Membership, n int, disk bool, edit func(*client.Options)) []*peer {
	c.t.Helper()
	first := len(c.peers)
	for i := range n {
		p := &peer{name: fmt.Sprintf("p%d", first+i)}
		p.box = client.MemoryMailbox()
		if disk {
			box, err := client.OpenMailbox(context.Background(), filepath.Join(c.dir, p.name+".db"))
			must(c.t, err)
			p.box = box
		}
		o := client.Options{
			Membership: members[(first+i)%len(members)], SessionSeed: client.Secret(trust.NewSecretKey().Seed()),
			Card: client.Card{Label: p.name, PeerType: "ai"}, Logger: watchful(c.complain),
			Mailbox: &notary{p.box, c.noteAck},
		}
		if edit != nil {
			edit(&o)
		}
		var err error
		p.c, err = client.Dial(context.Background(), o)
		must(c.t, err)
		ctx, cancel := context.WithCancel(context.Background())
		p.stop = cancel
		p.wg.Go(func() { c.read(ctx, p) })
		c.peers = append(c.peers, p)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	for _, p := range c.peers[first:] {
		must(c.t, p.c.Ready(ctx))
	}
	return c.peers[first:]
}

func (c *crowd) noteAck(id client.ID, to client.Key) {
	c.ledger.Acked(id, to)
	if c.lastAck != nil {
		c.lastAck()
	}
}

func (c *crowd) read(ctx context.Context, p *peer) {
	for r, err := range p.c.Receive(ctx) {
		if err == nil {
			c.ledger.Shown(r.Recipient, r.ID, r.Text)
			if c.onShow != nil {
				c.onShow(r.Text)
			}
			err = r.Ack(context.WithoutCancel(ctx))
		}
		if err != nil {
			c.complain(fmt.Errorf("%s reads: %w", p.name, err))
			return
		}
	}
}

func (c *crowd) complain(err error) {
	select {
	case c.problems <- err:
	default:
	}
}

// send sends one message, and notes how it went.
func (c *crowd) send(ctx context.Context, p *peer, text string, priority client.Priority, to ...*peer) {
	m := client.Message{Text: text, Priority: priority}
	var keys []client.Key
	for _, r := range to {
		keys = append(keys, r.c.Key())
		m.To = append(m.To, r.c.Key().String())
	}
	c.ledger.Try(p.name, text, priority, keys...)
	s, err := p.c.Send(ctx, m)
	if err == nil && len(s.Targets) != len(to) {
		err = errors.New("other targets than were asked for")
	}
	if err != nil {
		c.complain(fmt.Errorf("%s sends %s: %w", p.name, text, err))
		return
	}
	c.ledger.Kept(text, s.ID)
}

// settle waits until everything has arrived and every sender knows, notes what
// senders were told, and audits.
func (c *crowd) settle(within time.Duration, p Promise) Figures {
	c.t.Helper()
	eventually(c.t, within, "everything arrives or bounces, and senders know", func() bool {
		return c.tell() == 0 && c.ledger.Figures().Waiting == 0
	})
	time.Sleep(300 * time.Millisecond) // a second copy would come now
	for _, err := range c.ledger.Check(p) {
		c.t.Error(err)
	}
	for len(c.problems) > 0 {
		c.t.Error(<-c.problems)
	}
	return c.ledger.Figures()
}

// tell notes what senders know, and returns how many deliveries they do not
// know the end of.
func (c *crowd) tell() (open int) {
	byName := map[string]*peer{}
	for _, p := range c.peers {
		byName[p.name] = p
	}
	for text, id := range c.ledger.Texts() {
		if c.told[id] {
			continue
		}
		name, _, _ := strings.Cut(text, "/")
		out, err := byName[name].box.Outgoing(context.Background(), id)
		if err != nil {
			c.complain(err)
			continue
		}
		before := open
		for _, r := range out.Recipients {
			c.ledger.Final(id, r.Key, r.State, string(r.Code))
			if r.State == client.Stored || r.State == client.Accepted {
				open++
			}
		}
		c.told[id] = open == before
	}
	return open
}

// hangUp closes every peer.
func (c *crowd) hangUp() {
	var wg sync.WaitGroup
	for _, p := range c.peers {
		wg.Go(func() {
			p.stop()
			p.wg.Wait()
			_ = p.c.Close()
			_ = p.box.Close()
		})
	}
	wg.Wait()
	c.peers = nil
}
