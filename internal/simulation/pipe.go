package simulation

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// window is how much may be on its way in one direction: a writer that is ahead
// of its reader by more waits, as TCP's does.
const window = 256 << 10

var errReset = &net.OpError{Op: "read", Net: "sim", Err: syscall.ECONNRESET}

// pipe is one direction of a connection: bytes that arrive in order, and later
// than they were written.
type pipe struct {
	mu      sync.Mutex
	changed sync.Cond
	queue   []packet
	size    int   // written and not yet read, or lost
	wErr    error // of whoever writes
	rErr    error // of whoever reads, when the queue is empty

	delay   time.Duration
	stalled time.Time // nothing arrives before it
	lost    bool      // nothing that is written arrives any more, not even an end
	cutAt   int       // bytes until cut is called; below 0: none
	cut     func()
	frames  framer

	rDeadline, wDeadline deadline
}

type packet struct {
	at   time.Time
	data []byte
}

func newPipe(delay time.Duration, stalled time.Time, skip int) *pipe {
	p := &pipe{delay: delay, stalled: stalled, cutAt: -1, frames: framer{skip: skip}}
	p.changed.L = &p.mu
	return p
}

// set changes what happens from now on.
func (p *pipe) set(fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fn()
	p.changed.Broadcast()
}

func (p *pipe) write(b []byte) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(b) > 0 {
		for p.wErr == nil && p.size >= window && !p.wDeadline.passed() {
			p.changed.Wait()
		}
		switch {
		case p.wErr != nil:
			return n, p.wErr
		case p.wDeadline.passed():
			return n, os.ErrDeadlineExceeded
		}
		part := b[:min(len(b), window-p.size)]
		cut := p.cutAt >= 0 && len(part) > p.cutAt
		if cut {
			part = part[:p.cutAt]
		}
		p.put(part)
		n, b = n+len(part), b[len(part):]
		if cut {
			p.cutAt = -1
			go p.cut()
			return n, errReset
		}
	}
	return n, nil
}

// put sends bytes on their way. p.mu is held.
func (p *pipe) put(b []byte) {
	if p.cutAt >= 0 {
		p.cutAt -= len(b)
	}
	if p.lost {
		p.size += len(b)
		return
	}
	data := p.frames.pass(b)
	p.size += len(data)
	at := time.Now().Add(p.delay)
	if at.Before(p.stalled) {
		at = p.stalled
	}
	if k := len(p.queue); k > 0 && at.Before(p.queue[k-1].at) {
		at = p.queue[k-1].at
	}
	p.queue = append(p.queue, packet{at, data})
	p.changed.Broadcast()
}

func (p *pipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.rDeadline.passed():
			return 0, os.ErrDeadlineExceeded
		case len(p.queue) == 0 && p.rErr != nil:
			return 0, p.rErr
		case len(p.queue) > 0:
			wait := time.Until(p.queue[0].at)
			if wait <= 0 {
				return p.take(b), nil
			}
			t := time.AfterFunc(wait, p.wake)
			p.changed.Wait()
			t.Stop()
			continue
		}
		p.changed.Wait()
	}
}

// take reads from what has arrived. p.mu is held.
func (p *pipe) take(b []byte) int {
	n := copy(b, p.queue[0].data)
	if p.queue[0].data = p.queue[0].data[n:]; len(p.queue[0].data) == 0 {
		p.queue = p.queue[1:]
	}
	p.size -= n
	p.changed.Broadcast()
	return n
}

func (p *pipe) wake() { p.set(func() {}) }

// stall keeps back what is on its way, and what follows it, until then.
func (p *pipe) stall(until time.Time) {
	p.set(func() {
		p.stalled = until
		for i := range p.queue {
			if p.queue[i].at.Before(until) {
				p.queue[i].at = until
			}
		}
	})
}

// lose lets everything from now on vanish.
func (p *pipe) lose() { p.set(func() { p.lost = true }) }

// reset breaks the direction; what is on its way arrives first if keep is set.
func (p *pipe) reset(keep bool) {
	p.set(func() {
		if !keep {
			p.queue = nil
		}
		if p.wErr == nil {
			p.wErr = errReset
		}
		if p.rErr == nil {
			p.rErr = errReset
		}
	})
}

// end is an orderly end by the writer. It reports whether the reader will hear of it.
func (p *pipe) end() (told bool) {
	p.set(func() {
		p.wErr = net.ErrClosed
		if told = !p.lost; told && p.rErr == nil {
			p.rErr = io.EOF
		}
	})
	return told
}

// abandon is the reader's end. told says whether the writer hears of it.
func (p *pipe) abandon(told bool) {
	p.set(func() {
		p.queue, p.rErr = nil, net.ErrClosed
		if !told {
			p.lost = true
		} else if p.wErr == nil {
			p.wErr = &net.OpError{Op: "write", Net: "sim", Err: errors.Join(syscall.EPIPE)}
		}
	})
}

// deadline is one of a pipe's; its pipe's mu guards it.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *deadline) set(at time.Time, wake func()) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = at
	if wait := time.Until(at); !at.IsZero() && wait > 0 {
		d.timer = time.AfterFunc(wait, wake)
	}
}
