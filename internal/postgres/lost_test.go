package postgres_test

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/claudemesh/claudemesh/internal/pgtest"
)

// loser passes connections on to a server. Armed, it keeps the next answer to
// itself and ends the connection: what was asked is done and nobody is told.
type loser struct {
	net.Listener
	to    string
	armed atomic.Bool
	lost  atomic.Int64
	wg    sync.WaitGroup
}

func startLoser(t *testing.T, to string) *loser {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &loser{Listener: listener, to: to}
	l.wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			l.wg.Go(func() { l.pass(client) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		l.wg.Wait()
	})
	return l
}

func (l *loser) pass(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", l.to)
	if err != nil {
		return
	}
	defer server.Close()
	l.wg.Go(func() {
		defer server.Close()
		_, _ = io.Copy(server, client) // until either has ended
	})
	for buf := make([]byte, 1<<16); ; {
		n, err := server.Read(buf)
		if n > 0 && l.armed.CompareAndSwap(true, false) {
			l.lost.Add(1)
			return
		}
		if _, errWrite := client.Write(buf[:n]); err != nil || errWrite != nil {
			return
		}
	}
}

// A commit whose answer was lost is found when the batch is tried again: its
// messages are told of as new, and its settlements as done.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t, pgtest.Options{TCP: true})
	url := server.Database(t)
	proxy := startLoser(t, server.Addr)
	over, err := pgtest.At(url, proxy.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	l := startLoad(t, open(t, over))
	for range rounds(20, 200) {
		proxy.armed.Store(true)
		l.await(100)
	}
	if proxy.lost.Load() == 0 {
		t.Error("no answer was lost")
	}
	l.check(url)
}
