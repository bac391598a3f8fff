package clustertest

import (
	"fmt"
	"sync"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// Ledger audits one run from outside: what was tried, what Send returned for,
// what the broker acknowledged, what was shown, and what senders were told.
// Messages go by their text, which the run makes unique, and not by their id:
// a message that is shown under two ids is a duplicate too.
type Ledger struct {
	mu    sync.Mutex
	sent  map[string]*entry
	tags  map[client.ID]string
	acked map[delivery]bool
	final map[delivery]outcome
	shown map[client.Key][]showing
	lanes map[string]int // messages tried by each sender
}

// entry is one message as its sender meant it.
type entry struct {
	sender   string
	place    int // among the sender's
	priority client.Priority
	to       []client.Key
	id       client.ID
	tried    time.Time
	kept     bool // Send returned: it is in the outbox at least
	perishes bool // it may expire between a recipient's disk and the broker's ear
}

type delivery struct {
	id client.ID
	to client.Key
}

type outcome struct {
	state client.MessageState
	code  string
}

type showing struct {
	id   client.ID
	text string
	at   time.Time
}

// NewLedger returns an empty one.
func NewLedger() *Ledger {
	return &Ledger{
		sent: map[string]*entry{}, tags: map[client.ID]string{}, acked: map[delivery]bool{}, final: map[delivery]outcome{},
		shown: map[client.Key][]showing{}, lanes: map[string]int{},
	}
}

// Try notes that a sender is about to send a text; a sender tries one at a time.
func (l *Ledger) Try(sender, text string, p client.Priority, to ...client.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lanes[sender]++
	l.sent[text] = &entry{sender: sender, place: l.lanes[sender], priority: p, to: to, tried: time.Now()}
}

// Perishable notes that a text may expire while the run lasts. A recipient may then
// have it whose acknowledgement came too late: its sender is told that it bounced.
func (l *Ledger) Perishable(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent[text].perishes = true
}

// Kept notes that Send returned for a text.
func (l *Ledger) Kept(text string, id client.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.sent[text]; e != nil {
		e.id, e.kept = id, true
		l.tags[id] = text
	}
}

// Acked notes that the broker vouched for a message to a recipient.
func (l *Ledger) Acked(id client.ID, to client.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked[delivery{id, to}] = true
}

// Shown notes that a recipient was shown a message.
func (l *Ledger) Shown(to client.Key, id client.ID, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shown[to] = append(l.shown[to], showing{id, text, time.Now()})
}

// Final notes what a sender was told in the end.
func (l *Ledger) Final(id client.ID, to client.Key, s client.MessageState, code string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.final[delivery{id, to}] = outcome{s, code}
}

// Figures are counts of deliveries, but for Tried and Kept, which are messages.
type Figures struct {
	Tried, Kept, Acked, Shown, Bounced, Waiting int
	Lost                                        int // of Waiting, what was acknowledged
	Twice                                       int // of Shown, what was shown again
}

// Figures counts. Waiting is what was kept and is neither shown nor bounced.
func (l *Ledger) Figures() (f Figures) {
	l.mu.Lock()
	defer l.mu.Unlock()
	got := l.showings()
	f.Tried = len(l.sent)
	for text, e := range l.sent {
		if !e.kept {
			continue
		}
		f.Kept++
		for _, to := range e.to {
			d := delivery{e.id, to}
			switch {
			case got[to][text] > 0:
				f.Shown++
			case l.final[d].state == client.Bounced:
				f.Bounced++
			default:
				f.Waiting++
				if l.acked[d] {
					f.Lost++
				}
			}
			if got[to][text] > 1 {
				f.Twice++
			}
			if l.acked[d] {
				f.Acked++
			}
		}
	}
	return f
}

// Slowest returns how long the slowest of the deliveries took that were tried
// from one moment to another: from then until it was shown.
func (l *Ledger) Slowest(from, to time.Time) (most time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, list := range l.shown {
		for _, s := range list {
			e := l.sent[s.text]
			if e != nil && !e.tried.Before(from) && e.tried.Before(to) {
				most = max(most, s.at.Sub(e.tried))
			}
		}
	}
	return most
}

// Texts returns the texts that Send returned for, with their ids.
func (l *Ledger) Texts() map[string]client.ID {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]client.ID{}
	for text, e := range l.sent {
		if e.kept {
			out[text] = e.id
		}
	}
	return out
}

func (l *Ledger) showings() map[client.Key]map[string]int {
	got := map[client.Key]map[string]int{}
	for to, list := range l.shown {
		got[to] = map[string]int{}
		for _, s := range list {
			got[to][s.text]++
		}
	}
	return got
}

// Promise is what counts as one.
type Promise int

// The promises: the broker's acknowledgement alone, or also that Send returned.
const (
	OfAck Promise = iota
	OfSend
)

// Check returns every breach of the contract: what was promised is shown once
// at each recipient or bounced, the rest at most once; nothing comes out of
// order within a priority, or from nowhere; and senders were told the truth.
func (l *Ledger) Check(p Promise) (breaches []error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	got := l.showings()
	for text, e := range l.sent {
		for _, to := range e.to {
			breaches = append(breaches, l.checkOne(p, text, e, to, got[to][text])...)
		}
	}
	for to, list := range l.shown {
		breaches = append(breaches, l.checkLanes(to, list)...)
	}
	return breaches
}

func (l *Ledger) checkOne(p Promise, text string, e *entry, to client.Key, n int) (breaches []error) {
	bad := func(format string, args ...any) {
		breaches = append(breaches, fmt.Errorf("%s to %s: %s", text, to.Short(), fmt.Sprintf(format, args...)))
	}
	d := delivery{e.id, to}
	told, known := l.final[d]
	promised := e.kept && (l.acked[d] || p == OfSend)
	switch {
	case n > 1:
		bad("shown %d times", n)
	case n == 0 && promised && told.state != client.Bounced:
		bad("lost: promised and never shown; its sender was told %q", told.state)
	case n == 1 && told.state == client.Bounced && e.perishes && told.code == string(wire.CodeExpired):
	case n == 1 && told.state == client.Bounced:
		bad("shown, and its sender was told that it bounced: %s", told.code)
	case n == 0 && (told.state == client.Delivered || told.state == client.Read):
		bad("never shown, and its sender was told %q", told.state)
	case n == 1 && known && (told.state == client.Stored || told.state == client.Accepted):
		bad("shown, and its sender was told no more than %q", told.state)
	}
	return breaches
}

// checkLanes checks what one recipient was shown, in the order in which it was.
func (l *Ledger) checkLanes(to client.Key, list []showing) (breaches []error) {
	type lane struct {
		sender   string
		priority client.Priority
	}
	last := map[lane]*entry{}
	for _, s := range list {
		e := l.sent[s.text]
		switch {
		case e == nil:
			breaches = append(breaches, fmt.Errorf("%q at %s: nobody sent it", s.text, to.Short()))
			continue
		case !e.addressed(to):
			breaches = append(breaches, fmt.Errorf("%s at %s: not addressed to it", s.text, to.Short()))
		case e.kept && e.id != s.id:
			breaches = append(breaches, fmt.Errorf("%s at %s: shown under another id", s.text, to.Short()))
		}
		k := lane{e.sender, e.priority}
		// The same text again is a duplicate and told as one.
		if before := last[k]; before != nil && before.place > e.place {
			breaches = append(breaches, fmt.Errorf("%s at %s: out of order, after number %d of its sender", s.text, to.Short(), before.place))
		}
		last[k] = e
	}
	return breaches
}

func (e *entry) addressed(to client.Key) bool {
	for _, k := range e.to {
		if k == to {
			return true
		}
	}
	return false
}
