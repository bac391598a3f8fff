package faults

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	random "math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/clustertest"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// guesses are requests for invites that do not exist, from many addresses, on
// connections that are kept.
type guesses struct {
	addr     string
	statuses [600]atomic.Int64 // of look-ups and joins
	pages    atomic.Int64      // of /i/, which look nothing up
	made     atomic.Int64
}

// run makes batches until n are made in all or ctx ends, at most rate a second.
func (g *guesses) run(ctx context.Context, from, n, rate int) error {
	c, err := dialFrom(g.addr, fmt.Sprintf("127.0.1.%d", from))
	if err != nil {
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Now().Add(5 * time.Second)) })
	defer stop()
	in, out := bufio.NewReader(c), bufio.NewWriter(c)
	const batch = 40
	tick := time.NewTicker(batch * time.Second / time.Duration(rate))
	defer tick.Stop()
	for ctx.Err() == nil && g.made.Load() < int64(n) {
		for i := range batch {
			var id [16]byte
			rand.Read(id[:])
			switch i % 4 {
			case 0:
				body := `{"certificate":[{"body":"` + hex.EncodeToString(id[:]) + `","sig":"` + strings.Repeat("00", 64) + `"}]}`
				fmt.Fprintf(out, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", wire.PathJoin, len(body), body)
			case 1:
				fmt.Fprintf(out, "GET /i/%x HTTP/1.1\r\nHost: x\r\n\r\n", id)
			default:
				fmt.Fprintf(out, "GET %s%x HTTP/1.1\r\nHost: x\r\n\r\n", wire.PathInvites, id)
			}
		}
		if err := out.Flush(); err != nil {
			return err
		}
		for i := range batch {
			res, err := http.ReadResponse(in, nil)
			if err != nil {
				return err
			}
			if _, err := io.Copy(io.Discard, res.Body); err != nil {
				return err
			}
			if i%4 == 1 {
				g.pages.Add(1)
			} else {
				g.statuses[res.StatusCode].Add(1)
			}
		}
		g.made.Add(batch)
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return nil
}

// accepted is how many guesses were right, or served at all.
func (g *guesses) accepted() (n int64) {
	for status := range g.statuses {
		if status < 400 {
			n += g.statuses[status].Load()
		}
	}
	return n
}

// greedy is a member that sends ten times what it may, and repeats what was taken.
type greedy struct {
	sent, taken, refused, repeats, denied int
}

// run sends until ctx ends.
func (g *greedy) run(ctx context.Context, addr string, m client.Membership, to client.Key) error {
	c, err := observe(addr, "127.0.0.5", m)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Hour))
	send := func(req string) *wire.Send {
		s := &wire.Send{Req: wire.Req{ReqID: req}, Mode: wire.ModeDM, To: to, Priority: wire.PriorityNext, Nonce: make([]byte, 24), Ciphertext: make([]byte, 400)}
		s.Expires = time.Now().Add(time.Hour).UnixMilli()
		rand.Read(s.ID[:])
		return s
	}
	ask := func(s *wire.Send) (wire.Frame, error) {
		if err := c.say(s); err != nil {
			return nil, err
		}
		for {
			frames, err := c.next()
			if err != nil {
				return nil, err
			}
			for _, f := range frames {
				if r, ok := f.(wire.Request); ok && r.RequestID() == s.ReqID {
					return f, nil
				}
			}
		}
	}
	var known []*wire.Send
	tick := time.NewTicker(100 * time.Millisecond) // 600 a minute, ten times 60
	defer tick.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		s := send(fmt.Sprint(n))
		g.sent++
		f, err := ask(s)
		if err != nil {
			return err
		}
		if _, ok := f.(*wire.Ack); ok {
			g.taken++
			known = append(known, s)
		} else {
			g.refused++ // it is over its limits: what was taken is taken all the same
			again := *known[random.N(len(known))]
			again.ReqID = fmt.Sprint("again", n)
			f, err := ask(&again)
			if err != nil {
				return err
			}
			if a, ok := f.(*wire.Ack); ok && a.Duplicate {
				g.repeats++
			} else {
				g.denied++
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return nil
}

// oversize is a member that sends a message above the limit: how long until it is closed.
func oversize(addr string, m client.Membership) (time.Duration, error) {
	c, err := observe(addr, "127.0.0.6", m)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	began := time.Now()
	_, _ = c.Write(masked(make([]byte, 1<<20))) // it may not take the whole of it
	err = rest(c)
	return time.Since(began), err
}

// TestFloods has strangers and a member do what they can against a broker with
// its default limits. The others do not notice.
func TestFloods(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux lets a process connect from any address of the loopback network")
	}
	b := clustertest.NewDefault(t, "--disk-high-water=100")
	addr := strings.TrimSuffix(strings.TrimPrefix(b.URL, "ws://"), wire.PathWS)
	c := clustertest.NewCrowd(t)
	watch := newStopwatch(c)
	var all []*clustertest.Peer
	var first []client.Membership
	const each = 20
	for range 4 {
		first = clustertest.Found(t, b.URL, each+2) // two that do not connect
		all = append(all, c.Add(first[:each], each, false, nil)...)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	wg := pace(ctx, all, 0.8*float64(len(all)), func(p *clustertest.Peer, n int) {
		i := 0 // within its mesh
		for all[i] != p {
			i++
		}
		text := fmt.Sprintf("%s/%d", p.Name, n)
		watch.begin(text)
		c.Send(context.WithoutCancel(ctx), p, text, client.Next, all[i/each*each+(i+1+random.N(each-1))%each])
	})
	time.Sleep(2 * time.Second)
	before, _ := memory(b.PID())
	drops := b.Metric("claudemesh_preauth_dropped_total")
	r := &rabble{addr: addr, tallies: map[string]*tally{}}
	g := &guesses{addr: addr}
	var hog greedy
	var floods sync.WaitGroup
	problems := make(chan error, 100)
	note := func(what string, err error) {
		if err != nil {
			select {
			case problems <- fmt.Errorf("%s: %w", what, err):
			default:
			}
		}
	}
	floods.Go(func() { note("the greedy member", hog.run(ctx, addr, first[each], first[each+1].MemberKey())) })
	total := clustertest.Pick(20_000, 1_000_000)
	stop := func() {}
	var guessers sync.WaitGroup
	watch.compare(t, clustertest.Pick(2*time.Second, 10*time.Second), 500*time.Millisecond, func(on bool) {
		stop()
		guessers.Wait()
		stop = func() {}
		if !on {
			return
		}
		var phase context.Context
		phase, stop = context.WithCancel(ctx)
		r.run(phase, 200*time.Millisecond)
		for i := range 4 {
			guessers.Go(func() { note("guesses", g.run(phase, 1+random.N(50)*5+i, total, 400)) })
		}
	})
	for g.made.Load() < int64(total) && len(problems) == 0 { // the rest as fast as it goes
		for i := range 10 {
			guessers.Go(func() { note("guesses", g.run(ctx, 1+i*20+random.N(20), total, 100_000)) })
		}
		guessers.Wait()
	}
	large, err := oversize(addr, first[each])
	note("an oversize message", err)
	cancel()
	wg.Wait()
	floods.Wait()
	r.wg.Wait()
	after, most := memory(b.PID())
	f := c.Settle(clustertest.Pick(30*time.Second, time.Minute), clustertest.OfSend)
	drops = b.Metric("claudemesh_preauth_dropped_total") - drops
	t.Logf("%+v; the broker holds %.0f MiB, before %.0f, at most %.0f; %.0f sockets counted as dropped, %d of %s; a message of 1 MiB: closed after %s",
		f, after, before, most, drops, r.counted, r, large.Round(time.Millisecond))
	t.Logf("%d guesses: 400 %d, 404 %d, 429 %d, others %d; pages %d; a member over its limits: %+v", g.made.Load(), g.statuses[400].Load(),
		g.statuses[404].Load(), g.statuses[429].Load(), g.accepted(), g.pages.Load(), hog)
	close(problems)
	for err := range problems {
		t.Error(err)
	}
	for _, err := range append(endedInTime(r.tallies), r.errs...) {
		t.Error(err)
	}
	switch {
	case most-before > 64:
		t.Errorf("the broker's memory rises from %.0f to %.0f MiB", before, most)
	case drops < float64(r.counted):
		t.Errorf("%.0f of %d dropped sockets are counted", drops, r.counted)
	case g.accepted() > 0 || g.made.Load() < int64(total) || g.statuses[429].Load() == 0:
		t.Errorf("%d guesses are answered, of %d; %d are refused", g.accepted(), g.made.Load(), g.statuses[429].Load())
	case hog.refused == 0 || hog.repeats == 0 || hog.denied > 0:
		t.Errorf("over its limits: %+v", hog)
	case large > 5*time.Second:
		t.Errorf("an oversize message is refused after %s", large)
	}
}
