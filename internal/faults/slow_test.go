package faults

import (
	"bufio"
	"context"
	bits "encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/clustertest"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// straw stands between one peer and the broker. While it is thin it takes one
// WebSocket frame a second from the broker.
type straw struct {
	url    string
	to     string
	thin   atomic.Bool
	frames atomic.Int64 // taken from the broker
	bytes  atomic.Int64
	ln     net.Listener
	wg     sync.WaitGroup
	ctx    context.Context
}

func newStraw(t *testing.T, url string) *straw {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	s := &straw{
		url: "ws://" + ln.Addr().String() + wire.PathWS, ln: ln, ctx: ctx,
		to: strings.TrimSuffix(strings.TrimPrefix(url, "ws://"), wire.PathWS),
	}
	s.wg.Go(func() {
		for {
			down, err := ln.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() { s.serve(down) })
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = ln.Close()
		s.wg.Wait()
	})
	return s
}

func (s *straw) serve(down net.Conn) {
	defer down.Close()
	up, err := (&net.Dialer{}).Dial("tcp", s.to)
	if err != nil {
		return
	}
	defer up.Close()
	_ = up.(*net.TCPConn).SetReadBuffer(128 << 10)
	stop := context.AfterFunc(s.ctx, func() { _, _ = down.Close(), up.Close() })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(up, down); _ = up.Close() })
	s.drink(bufio.NewReader(up), down)
	_ = down.Close()
	_ = up.Close()
	wg.Wait()
}

// drink passes on the answer to the upgrade, then frame by frame.
func (s *straw) drink(up *bufio.Reader, down net.Conn) {
	for line := ""; line != "\r\n"; {
		var err error
		if line, err = up.ReadString('\n'); err != nil {
			return
		}
		if _, err := io.WriteString(down, line); err != nil {
			return
		}
	}
	for {
		if s.thin.Load() {
			select {
			case <-time.After(time.Second):
			case <-s.ctx.Done():
				return
			}
		}
		n, err := frame(up, down)
		if err != nil {
			return
		}
		s.frames.Add(1)
		s.bytes.Add(n)
	}
}

// frame copies one WebSocket frame of a server.
func frame(from *bufio.Reader, to io.Writer) (int64, error) {
	head := make([]byte, 2, 10)
	if _, err := io.ReadFull(from, head); err != nil {
		return 0, err
	}
	size := int64(head[1] & 127)
	if more := map[int64]int{126: 2, 127: 8}[size]; more > 0 {
		head = head[:2+more]
		if _, err := io.ReadFull(from, head[2:]); err != nil {
			return 0, err
		}
		size = int64(bits.BigEndian.Uint64(append(make([]byte, 8-more), head[2:]...)))
	}
	if _, err := to.Write(head); err != nil {
		return 0, err
	}
	n, err := io.CopyN(to, from, size)
	return n + int64(len(head)), err
}

// mostQueued is what a broker may hold in memory for a peer that does not read.
const mostQueued = 512 << 10

func tooMuch(bytes float64) error {
	if bytes > mostQueued {
		return fmt.Errorf("the broker holds %.0f KiB for one connection; at most %d", bytes/1024, mostQueued>>10)
	}
	return nil
}

func TestTooMuchCanFail(t *testing.T) {
	if tooMuch(mostQueued) != nil || tooMuch(mostQueued+1) == nil {
		t.Error("the bound is not where it is said to be")
	}
}

// TestSlowConsumer: one of a hundred peers reads a frame a second. The others do
// not notice, the broker holds little for it, and it gets everything in the end.
func TestSlowConsumer(t *testing.T) {
	b := clustertest.NewProcess(t)
	s := newStraw(t, b.URL)
	members := clustertest.Found(t, b.URL, 4)
	c := clustertest.NewCrowd(t)
	watch := newStopwatch(c)
	others := c.Add(members, 99, false, nil)
	through := members[0]
	through.Broker = s.url
	slow := c.Add([]client.Membership{through}, 1, false, nil)[0]
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	// Some of what is sent goes to the slow one, and is large: more than a window
	// of it comes each second, and more than the system's buffers hold.
	ballast := strings.Repeat("x", 28_000)
	wg := pace(ctx, others[:25], 250, func(p *clustertest.Peer, n int) {
		text, to := fmt.Sprintf("%s/%d-%s", p.Name, n, ballast), slow
		if n%16 != 0 {
			text = fmt.Sprintf("%s/%d", p.Name, n)
			to = others[25+rand.N(len(others)-25)]
			watch.begin(text)
		}
		c.Send(context.WithoutCancel(ctx), p, text, client.Next, to)
	})
	time.Sleep(4 * time.Second) // everyone has seen everyone
	var most, waiting float64
	var at int64
	done := make(chan struct{})
	look, quiet := context.WithCancel(ctx)
	go func() {
		defer close(done)
		for ; look.Err() == nil; time.Sleep(100 * time.Millisecond) {
			most = max(most, b.Metric("claudemesh_out_queue_max_bytes"))
			waiting = max(waiting, b.Metric("claudemesh_queue_deliveries"))
		}
	}()
	var frames float64
	var since time.Time
	watch.compare(t, clustertest.Pick(1500*time.Millisecond, 5*time.Second), 500*time.Millisecond, func(on bool) {
		if on {
			at, since = s.frames.Load(), time.Now()
		} else if s.thin.Load() {
			frames = max(frames, float64(s.frames.Load()-at)/time.Since(since).Seconds())
		}
		s.thin.Store(on)
		if !on { // what has gathered is no part of a time without a slow one
			clustertest.Eventually(t, 10*time.Second, "what waited is read", func() bool { return b.Metric("claudemesh_queue_deliveries") < 10 })
		}
	})
	quiet()
	<-done
	cancel()
	wg.Wait()
	f := c.Settle(clustertest.Pick(20*time.Second, time.Minute), clustertest.OfSend)
	t.Logf("%+v; at most %.0f KiB waited for a connection, and %.0f deliveries on disk; the slow one took %.1f frames a second at most while it was slow, %d KiB in all",
		f, most/1024, waiting, frames, s.bytes.Load()>>10)
	if err := tooMuch(most); err != nil {
		t.Error(err)
	}
	if waiting < 30 || frames > 2 {
		t.Error("the slow one was not slow: the test shows nothing")
	}
}
