package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// options say what load is made.
type options struct {
	peers     int           // connected clients
	messages  int           // of each
	window    int           // unacknowledged messages of each in mode storm
	size      int           // bytes of a payload
	rate      int           // messages/s of mode open
	openFor   time.Duration // how long mode open lasts
	pingpongs int           // rounds of mode pingpong
	backlog   int           // messages that wait in mode backlog
	idle      int           // silent sessions of mode idle
	parked    int           // messages for others that wait in mode parked-many
}

// roundModes are the loads of a round, in the order in which they run.
var roundModes = []string{"pingpong", "serial", "storm", "open", "backlog"}

// senders fill the queue of mode backlog.
const senders = 10

// quantiles are latencies in milliseconds.
type quantiles struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
}

// result is the figures of one mode, as claudemesh-broker bench --json names them.
type result struct {
	Mode               string    `json:"mode"`
	Peers              int       `json:"peers"`
	Messages           int       `json:"messages"`
	Seconds            float64   `json:"seconds"`
	AcceptedPerSecond  float64   `json:"acceptedPerSecond"`
	DeliveredPerSecond float64   `json:"deliveredPerSecond"`
	LatencyMs          quantiles `json:"latencyMs"`    // send to delivery; mode pingpong: the round trip
	AckLatencyMs       quantiles `json:"ackLatencyMs"` // send to the server's acknowledgement
	BrokerCPUMicros    float64   `json:"brokerCpuMicrosPerMessage"`
	BrokerPeakRSS      int64     `json:"brokerPeakRssBytes"`
	Extra              []extra   `json:"extra,omitempty"`
}

// extra is one more figure of a mode.
type extra struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

// idBytes is the unique id that each payload starts with: the run, then the
// message's place in it.
const idBytes = 16

// load is one mode on one target.
type load struct {
	o         options
	mode      string
	run       uint64
	addresses int // peers that exist; those of o send
	clients   []client
	payloads  [][]byte // peer i's k-th is at i*messages+k
	to        []int
	sent      []atomic.Int64 // ns since the epoch, by place
	acked     []atomic.Int64
	got       []atomic.Int64
	next      []atomic.Int64 // of each peer, its next k
	left      atomic.Int64   // deliveries to wait for
	done      chan struct{}
	unacked   atomic.Int64  // acknowledgements to wait for
	taken     chan struct{} // closed with the last of them
	pong      chan struct{}
	failed    chan error
}

// measure starts a target, loads it in one mode and stops it.
func measure(ctx context.Context, t target, mode string, o options) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "claudemesh-bench")
	if err != nil {
		return result{}, err
	}
	defer os.RemoveAll(dir)
	defer t.stop()
	if err := t.start(ctx, dir); err != nil {
		return result{}, fmt.Errorf("start: %w", err)
	}
	l := newLoad(mode, o)
	defer l.hangUp()
	if mode == "backlog" {
		return l.backlog(ctx, t)
	}
	if err := l.dial(ctx, t); err != nil {
		return result{}, fmt.Errorf("dial: %w", err)
	}
	before, began := used(t.pid()), time.Now()
	trips, err := l.drive(ctx)
	if err != nil {
		return result{}, err
	}
	took, after := time.Since(began), used(t.pid())
	r := result{
		Mode: mode, Peers: l.o.peers, Messages: len(l.payloads), Seconds: took.Seconds(), BrokerPeakRSS: after.peak,
		BrokerCPUMicros: float64((after.cpu - before.cpu).Microseconds()) / float64(len(l.payloads)),
	}
	l.rates(&r)
	if trips != nil {
		r.LatencyMs = quantile(trips)
	}
	return r, nil
}

// newLoad makes every message before the clock starts.
func newLoad(mode string, o options) *load {
	switch mode {
	case "pingpong":
		o.peers, o.messages = 2, o.pingpongs
	case "serial":
		o.window = 1
	case "open":
		o.messages = int(float64(o.rate)*o.openFor.Seconds()) / o.peers
	case "backlog":
		o.peers, o.messages = senders, max(o.backlog/senders, 1)
	}
	addresses := o.peers
	if mode == "backlog" {
		addresses++ // the last is the one that is away
	}
	total := o.peers * o.messages
	l := &load{
		o: o, mode: mode, run: rand.Uint64(), addresses: addresses, clients: make([]client, addresses), payloads: make([][]byte, total), to: make([]int, total),
		sent: make([]atomic.Int64, total), acked: make([]atomic.Int64, total), got: make([]atomic.Int64, total),
		next: make([]atomic.Int64, o.peers), done: make(chan struct{}), taken: make(chan struct{}), pong: make(chan struct{}, 1), failed: make(chan error, 1),
	}
	l.left.Store(int64(total))
	l.unacked.Store(int64(total))
	for n := range total {
		p := slices.Repeat([]byte("x"), o.size)
		binary.BigEndian.PutUint64(p, l.run)
		binary.BigEndian.PutUint64(p[8:], uint64(n))
		l.payloads[n], l.to[n] = p, (n/o.messages+1+rand.IntN(o.peers-1))%o.peers
		if mode == "backlog" {
			l.to[n] = senders
		}
	}
	return l
}

// dial connects the peers that send, a few at a time.
func (l *load) dial(ctx context.Context, t target) error {
	errs := make([]error, l.o.peers)
	var wg sync.WaitGroup
	gate := make(chan struct{}, 16)
	for i := range l.o.peers {
		gate <- struct{}{}
		wg.Go(func() {
			defer func() { <-gate }()
			h := handlers{func(p []byte) { l.noteAck(i, p) }, func(p []byte) { l.noteGot(i, p) }, l.fail}
			if c, err := t.dial(ctx, i, l.addresses, h); err != nil {
				errs[i] = err
			} else {
				l.clients[i] = c
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *load) hangUp() {
	var wg sync.WaitGroup
	for _, c := range l.clients {
		if c != nil {
			wg.Go(c.close)
		}
	}
	wg.Wait()
}

func (l *load) fail(err error) {
	select {
	case l.failed <- err:
	default:
	}
}

// place returns which message a payload is; -1: none of this run.
func (l *load) place(p []byte) int {
	if len(p) != l.o.size || binary.BigEndian.Uint64(p) != l.run {
		return -1
	}
	return int(binary.BigEndian.Uint64(p[8:]))
}

// noteAck notes the server's word and, under load, lets the next message go.
func (l *load) noteAck(i int, p []byte) {
	n := l.place(p)
	if n < 0 || !l.acked[n].CompareAndSwap(0, time.Now().UnixNano()) {
		return
	}
	if l.unacked.Add(-1) == 0 {
		close(l.taken)
	}
	if l.mode == "storm" || l.mode == "serial" || l.mode == "backlog" {
		l.release(i)
	}
}

func (l *load) noteGot(i int, p []byte) {
	n := l.place(p)
	if n < 0 || l.to[n] != i || !l.got[n].CompareAndSwap(0, time.Now().UnixNano()) {
		return
	}
	if l.left.Add(-1) == 0 {
		close(l.done)
	}
	if l.mode != "pingpong" {
		return
	}
	if i == 1 {
		l.release(1)
	} else {
		l.pong <- struct{}{}
	}
}

// release sends a peer's next message and starts its clock.
func (l *load) release(i int) {
	k := int(l.next[i].Add(1)) - 1
	if k >= l.o.messages {
		return
	}
	n := i*l.o.messages + k
	l.sent[n].Store(time.Now().UnixNano())
	l.clients[i].send(l.to[n], l.payloads[n])
}
