package faults

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/clustertest"
	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/trust"
)

// peerEnv names the file of a peer that runs in a process of its own.
const peerEnv = "CLAUDEMESH_FAULTS_PEER"

// peerFile is what such a peer is told; it stays the same over its lives.
type peerFile struct {
	Name       string
	Membership client.Membership
	Seed       client.Secret
	Mailbox    string
	To         client.Key // whom it sends to; zero: it receives
}

// peerMain is one life of a peer. It tells what it does on standard output, a
// line each, and ends when its standard input does: a sender when its outbox is
// empty. A line that is in the pipe survives its writer.
func peerMain(path string) int {
	err := func() error {
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var f peerFile
		if err := json.Unmarshal(raw, &f); err != nil {
			return err
		}
		box, err := client.OpenMailbox(context.Background(), f.Mailbox)
		if err != nil {
			return err
		}
		defer box.Close()
		c, err := client.Dial(context.Background(), client.Options{
			Membership: f.Membership, SessionSeed: f.Seed, Mailbox: box, Card: client.Card{Label: f.Name, PeerType: "ai"},
			Logger: clustertest.Watchful(func(err error) { fmt.Println("error", err) }),
		})
		if err != nil {
			return err
		}
		defer c.Close()
		ctx, cancel := context.WithCancel(context.Background())
		go func() { _, _ = io.Copy(io.Discard, os.Stdin); cancel() }()
		if f.To.IsZero() {
			return receiveAll(ctx, c)
		}
		return sendOn(ctx, c, box, f)
	}()
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	return 0
}

// receiveAll marks each message read and then shows it, as a tool call that
// takes messages does.
func receiveAll(ctx context.Context, c *client.Client) error {
	for r, err := range c.Receive(ctx) {
		if err != nil {
			return err
		}
		if err := r.Ack(context.WithoutCancel(ctx)); err != nil {
			return err
		}
		fmt.Println("shown", r.ID, r.Text)
	}
	return nil
}

// sendOn sends messages that go on from the last life's, then drains the outbox.
func sendOn(ctx context.Context, c *client.Client, box client.Mailbox, f peerFile) error {
	life := strconv.FormatInt(time.Now().UnixNano(), 36)
	ready, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := c.Ready(ready); err != nil {
		return err
	}
	for n := 0; ctx.Err() == nil; n++ {
		text := fmt.Sprintf("%s/%s-%d", f.Name, life, n)
		p := clustertest.Priorities[n%len(clustertest.Priorities)]
		fmt.Println("try", text, p)
		s, err := c.Send(context.WithoutCancel(ctx), client.Message{To: []string{f.To.String()}, Text: text, Priority: p})
		if err != nil {
			return err
		}
		fmt.Println("kept", text, s.ID)
		time.Sleep(rand.N(20 * time.Millisecond))
	}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		left, err := box.Pending(context.Background(), f.Membership.MeshID, client.Key{}, 0, 0, 1)
		if err != nil || len(left) == 0 {
			return err
		}
	}
	return fmt.Errorf("the outbox does not drain")
}

// puppet is a peer in a process of its own, as its keeper sees it.
type puppet struct {
	t      *testing.T
	file   string
	about  peerFile
	ledger *clustertest.Ledger
	cmd    *exec.Cmd
	stdin  io.Closer
	wg     sync.WaitGroup

	mu     sync.Mutex
	shown  map[string]int // a receiver's: by text
	errors []string
}

func newPuppet(t *testing.T, l *clustertest.Ledger, dir, name string, m client.Membership, to client.Key) *puppet {
	t.Helper()
	seed := client.Secret(trust.NewSecretKey().Seed())
	home := filepath.Join(dir, name)
	clustertest.Must(t, os.Mkdir(home, 0o700))
	p := &puppet{t: t, ledger: l, file: filepath.Join(home, "peer.json"), shown: map[string]int{}, about: peerFile{
		Name: name, Membership: m, Seed: seed, Mailbox: filepath.Join(home, "mailbox.db"), To: to,
	}}
	raw, err := json.Marshal(p.about)
	clustertest.Must(t, err)
	clustertest.Must(t, os.WriteFile(p.file, raw, 0o600))
	t.Cleanup(p.kill)
	return p
}

func (p *puppet) key() client.Key { return trust.SecretKeyFromSeed(p.about.Seed).Public() }

func (p *puppet) start() {
	p.t.Helper()
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), peerEnv+"="+p.file)
	p.cmd.Stderr = os.Stderr
	in, err := p.cmd.StdinPipe()
	clustertest.Must(p.t, err)
	out, err := p.cmd.StdoutPipe()
	clustertest.Must(p.t, err)
	clustertest.Must(p.t, p.cmd.Start())
	p.stdin = in
	p.wg.Go(func() { p.listen(out) })
}

// listen enters what the peer says into the ledger.
func (p *puppet) listen(out io.Reader) {
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return // half a line was not said
		}
		f := strings.Fields(line)
		switch {
		case len(f) == 3 && f[0] == "try":
			p.ledger.Try(p.about.Name, f[1], client.Priority(f[2]), p.about.To)
		case len(f) == 3 && f[0] == "kept":
			p.ledger.Kept(f[1], parseID(f[2]))
		case len(f) == 3 && f[0] == "shown":
			p.mu.Lock()
			p.shown[f[2]]++
			p.mu.Unlock()
		default:
			p.mu.Lock()
			p.errors = append(p.errors, strings.TrimSpace(line))
			p.mu.Unlock()
		}
	}
}

func parseID(s string) (id client.ID) {
	_, _ = hex.Decode(id[:], []byte(s))
	return id
}

func (p *puppet) kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		p.wg.Wait() // before Wait, which closes the pipe
		_ = p.cmd.Wait()
		_ = p.stdin.Close()
		p.cmd = nil
	}
}

// finish lets it end by itself.
func (p *puppet) finish() {
	_ = p.stdin.Close()
	p.wg.Wait()
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("%s ends: %v", p.about.Name, err)
	}
	p.cmd = nil
}

func (p *puppet) distinct() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.shown)
}

// TestClientKilled kills senders and a receiver at random moments.
func TestClientKilled(t *testing.T) {
	clustertest.Aside(t)
	kills := clustertest.Pick(10, 200)
	broker := clustertest.NewProcess(t)
	members := clustertest.Found(t, broker.URL, 3)
	l, dir := clustertest.NewLedger(), clustertest.Boxes(t)
	receiver := newPuppet(t, l, dir, "receiver", members[0], client.Key{})
	all := []*puppet{receiver}
	for i, m := range []client.Membership{members[1], members[1], members[2]} {
		all = append(all, newPuppet(t, l, dir, fmt.Sprintf("s%d", i), m, receiver.key()))
	}
	receiver.start()
	observer, err := client.Dial(context.Background(), client.Options{Membership: members[0], Role: client.Observer})
	clustertest.Must(t, err)
	defer observer.Close()
	clustertest.Eventually(t, 10*time.Second, "the receiver is there", func() bool {
		peers, _, err := observer.Peers(context.Background(), false)
		return err == nil && len(peers) == 1
	})
	for _, p := range all[1:] {
		p.start()
	}
	var downs int // of the receiver
	for n := range kills {
		time.Sleep(100*time.Millisecond + rand.N(800*time.Millisecond))
		p := all[1+rand.N(len(all)-1)]
		if n%3 == 1 {
			p = receiver
		}
		p.kill()
		if p == receiver {
			downs++
		}
		p.start()
	}
	time.Sleep(300 * time.Millisecond)
	for _, p := range all[1:] {
		p.finish()
	}
	f := l.Figures()
	clustertest.Eventually(t, 20*time.Second, "what was kept is shown", func() bool { return receiver.distinct()+downs >= f.Kept })
	time.Sleep(300 * time.Millisecond)
	receiver.finish()
	auditKilled(t, l, all)
	t.Logf("%d kills, %d of them of the receiver; %+v; repeats at the broker %.0f", kills, downs, l.Figures(), broker.Metric("claudemesh_messages_duplicate_total"))
	shown, kept := receiver.distinct(), l.Figures().Shown
	if kept-shown > downs {
		t.Errorf("%d messages were marked read and never said, in %d kills: at most one each", kept-shown, downs)
	}
}

// auditKilled holds the mailboxes against the ledger. What the receiver has
// marked read is what counts as shown: it may have been killed before it said so.
func auditKilled(t *testing.T, l *clustertest.Ledger, all []*puppet) {
	t.Helper()
	ctx, receiver := context.Background(), all[0]
	box, err := client.OpenMailbox(ctx, receiver.about.Mailbox)
	clustertest.Must(t, err)
	defer box.Close()
	rows, more, err := box.List(ctx, mailbox.Query{Recipients: []client.Key{receiver.key()}, Gate: mailbox.Shelf, Read: true, Limit: 1_000_000})
	clustertest.Must(t, err)
	if more > 0 {
		t.Errorf("%d rows were not listed", more)
	}
	for i := len(rows) - 1; i >= 0; i-- { // newest first
		l.Shown(receiver.key(), rows[i].ID, rows[i].Text)
		if rows[i].ReadAt == 0 {
			t.Errorf("%s stayed unread", rows[i].Text)
		}
	}
	for text, n := range receiver.shown {
		if n != 1 {
			t.Errorf("%s was said %d times", text, n)
		}
	}
	ids := l.Texts()
	for _, p := range all {
		for _, e := range p.errors {
			t.Errorf("%s says %q", p.about.Name, e)
		}
		if p == receiver {
			continue
		}
		tellFinal(t, l, p, ids)
	}
	for _, err := range l.Check(clustertest.OfSend) {
		t.Error(err)
	}
}

// tellFinal notes what a sender's outbox says in the end. Its last receipts may
// have come after it closed: accepted is as good as unknown.
func tellFinal(t *testing.T, l *clustertest.Ledger, p *puppet, ids map[string]client.ID) {
	t.Helper()
	box, err := client.OpenMailbox(context.Background(), p.about.Mailbox)
	clustertest.Must(t, err)
	defer box.Close()
	for text, id := range ids {
		if name, _, _ := strings.Cut(text, "/"); name != p.about.Name {
			continue
		}
		out, err := box.Outgoing(context.Background(), id)
		clustertest.Must(t, err)
		for _, r := range out.Recipients {
			if r.State != client.Accepted {
				l.Final(id, r.Key, r.State, string(r.Code))
			}
		}
	}
}
