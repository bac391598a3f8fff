package faults

import (
	"bufio"
	"bytes"
	"context"
	bits "encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// dialFrom connects to a broker from an address of the loopback network, so that
// what is counted by address is not counted against honest peers.
func dialFrom(addr, source string) (net.Conn, error) {
	d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	return d.Dial("tcp", addr)
}

const upgrade = "GET " + wire.PathWS + " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"

// masked is one text frame as a client sends it.
func masked(payload []byte) []byte {
	out := []byte{0x81}
	switch n := len(payload); {
	case n < 126:
		out = append(out, 0x80|byte(n))
	case n < 1<<16:
		out = bits.BigEndian.AppendUint16(append(out, 0x80|126), uint16(n))
	default:
		out = bits.BigEndian.AppendUint64(append(out, 0x80|127), uint64(n))
	}
	return append(append(out, 0, 0, 0, 0), payload...) // a mask of zeros
}

// raw is a WebSocket without a library.
type raw struct {
	net.Conn
	r *bufio.Reader
}

var errRefused = errors.New("refused")

// upgraded opens one and reads the challenge.
func upgraded(addr, source string) (*raw, *wire.Challenge, error) {
	conn, err := dialFrom(addr, source)
	if err != nil {
		return nil, nil, err
	}
	c := &raw{conn, bufio.NewReader(conn)}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err = io.WriteString(c, upgrade); err != nil {
		return c, nil, err
	}
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return c, nil, err
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusSwitchingProtocols {
		return c, nil, errRefused
	}
	f, err := c.next()
	if err != nil {
		return c, nil, err
	}
	ch, ok := f[0].(*wire.Challenge)
	if !ok {
		return c, nil, errors.New("no challenge")
	}
	return c, ch, nil
}

// next reads one message.
func (c *raw) next() (frames []wire.Frame, err error) {
	var b bytes.Buffer
	if _, err := frame(c.r, &b); err != nil {
		return nil, err
	}
	head := map[byte]int{126: 4, 127: 10}[b.Bytes()[1]&127]
	if b.Bytes()[0]&15 != 1 {
		return nil, io.EOF // a close, or a ping: this one does not answer
	}
	msg, err := wire.Split(b.Bytes()[max(head, 2):])
	for _, m := range msg {
		f, e := wire.Decode(m)
		if e != nil {
			return frames, e
		}
		frames = append(frames, f)
	}
	if err == nil && len(frames) == 0 {
		err = errors.New("an empty message")
	}
	return frames, err
}

func (c *raw) say(f wire.Frame) error {
	b, err := wire.Append(nil, f)
	if err == nil {
		_, err = c.Write(masked(b))
	}
	return err
}

// observe connects as an observer of a membership.
func observe(addr, source string, m client.Membership) (*raw, error) {
	c, ch, err := upgraded(addr, source)
	if err != nil {
		return nil, err
	}
	key := trust.SecretKeyFromSeed(m.MemberSeed)
	h := &wire.Hello{ProtocolVersion: wire.Version, Role: wire.RoleObserver, MeshID: m.MeshID, Pubkey: key.Public(), SessionPubkey: key.Public(), Nonce: ch.Nonce}
	trust.SignHello(key, m.BrokerKey, h)
	if err := c.say(h); err != nil {
		return nil, err
	}
	f, err := c.next()
	if err == nil {
		if _, ok := f[0].(*wire.HelloAck); !ok {
			err = fmt.Errorf("%+v", f[0])
		}
	}
	return c, err
}

// trickle writes a byte a second until the other end has had enough.
func trickle(c net.Conn, text string, ended <-chan struct{}) {
	for i := range len(text) {
		if _, err := io.WriteString(c, text[i:i+1]); err != nil {
			return
		}
		select {
		case <-time.After(time.Second):
		case <-ended:
			return
		}
	}
}

// offence is one thing that a stranger does. It returns when the broker has
// ended it.
type offence struct {
	name    string
	counted bool // in claudemesh_preauth_dropped_total
	do      func(addr, source string) error
}

// rest reads until the end.
func rest(c net.Conn) error {
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	_, err := io.Copy(io.Discard, c)
	if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
		return errors.New("it is open after 20 s")
	}
	return nil
}

// plain is an offence on a socket that says something at once and then slowly.
func plain(name string, counted bool, atOnce, slowly string) offence {
	return offence{name, counted, func(addr, source string) error {
		c, err := dialFrom(addr, source)
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := io.WriteString(c, atOnce); err != nil {
			return err
		}
		var wg sync.WaitGroup
		ended := make(chan struct{})
		wg.Go(func() { trickle(c, slowly, ended) })
		err = rest(c)
		close(ended)
		wg.Wait()
		return err
	}}
}

// hello is an offence by the first frame.
func hello(name string, say func(ch *wire.Challenge) []byte) offence {
	return offence{name, true, func(addr, source string) error {
		c, ch, err := upgraded(addr, source)
		if c != nil {
			defer c.Close()
		}
		if errors.Is(err, errRefused) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := c.Write(masked(say(ch))); err != nil {
			return err
		}
		return rest(c)
	}}
}

func offences() []offence {
	forged := func(ch *wire.Challenge) []byte {
		owner, session := trust.NewSecretKey(), trust.NewSecretKey()
		h := &wire.Hello{ProtocolVersion: wire.Version, Role: wire.RoleObserver, MeshID: trust.MeshID(owner.Public()), Pubkey: owner.Public(), SessionPubkey: owner.Public(), Nonce: ch.Nonce}
		trust.SignHello(session, ch.BrokerPubkey, h)
		b, err := wire.Append(nil, h)
		if err != nil {
			panic(err)
		}
		return b
	}
	return []offence{
		hello("garbage for a hello", func(*wire.Challenge) []byte { return []byte("\x00garbage{{{") }),
		hello("a forged hello", forged),
		hello("an oversize hello", func(*wire.Challenge) []byte { return bytes.Repeat([]byte("x"), 20<<10) }),
		plain("a silent socket", true, "", ""),
		plain("a silent WebSocket", true, upgrade, ""),
		plain("a header, a byte a second", true, "", upgrade),
		plain("a body, a byte a second", false, "POST "+wire.PathJoin+" HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", "{    {    {    {"),
		plain("a frame, a byte a second", true, upgrade, "\x81\xfe\x20\x00aaaabbbbbbbbbbbbb"),
	}
}

// tally is what came of the offences of one kind.
type tally struct {
	n       int
	slowest time.Duration
}

// rabble commits offences while it is on, each kind from an address of its own.
type rabble struct {
	addr string
	wg   sync.WaitGroup

	mu      sync.Mutex
	tallies map[string]*tally
	counted int
	errs    []error
}

// run commits one of each kind every so often until ctx ends; wait waits until
// the last has been ended.
func (r *rabble) run(ctx context.Context, every time.Duration) {
	for i, o := range offences() {
		r.wg.Go(func() {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					r.wg.Go(func() { r.commit(o, fmt.Sprintf("127.0.0.%d", i+10)) })
				case <-ctx.Done():
					return
				}
			}
		})
	}
}

func (r *rabble) commit(o offence, source string) {
	began := time.Now()
	err := o.do(r.addr, source)
	took := time.Since(began)
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tallies[o.name]
	if t == nil {
		t = &tally{}
		r.tallies[o.name] = t
	}
	t.n++
	t.slowest = max(t.slowest, took)
	if o.counted {
		r.counted++
	}
	if err != nil {
		r.errs = append(r.errs, fmt.Errorf("%s: %w", o.name, err))
	}
}

// patience is how long a stranger may go on: the 5 s of the hello timeout, and
// what a busy machine takes to notice.
const patience = 6500 * time.Millisecond

func endedInTime(tallies map[string]*tally) (breaches []error) {
	for _, o := range offences() {
		t := tallies[o.name]
		switch {
		case t == nil || t.n == 0:
			breaches = append(breaches, fmt.Errorf("%s: never tried", o.name))
		case t.slowest > patience:
			breaches = append(breaches, fmt.Errorf("%s: ended after %s", o.name, t.slowest))
		}
	}
	return breaches
}

func (r *rabble) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, name := range slices.Sorted(maps.Keys(r.tallies)) {
		out = append(out, fmt.Sprintf("%s: %d, the slowest ended after %s", name, r.tallies[name].n, r.tallies[name].slowest.Round(time.Millisecond)))
	}
	return strings.Join(out, "; ")
}

func TestEndedInTimeCanFail(t *testing.T) {
	all := map[string]*tally{}
	for _, o := range offences() {
		all[o.name] = &tally{3, 5 * time.Second}
	}
	if err := endedInTime(all); err != nil {
		t.Error(err)
	}
	all["a silent socket"].slowest = 7 * time.Second
	delete(all, "a forged hello")
	if err := endedInTime(all); len(err) != 2 {
		t.Errorf("one late and one missing: %v", err)
	}
}

// memory is a process' resident memory, now and at most, in MiB; 0 where the
// system does not tell.
func memory(pid int) (now, most float64) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(raw)) {
		var kib float64
		if _, err := fmt.Sscanf(line, "VmRSS: %f kB", &kib); err == nil {
			now = kib / 1024
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %f kB", &kib); err == nil {
			most = kib / 1024
		}
	}
	return now, most
}
