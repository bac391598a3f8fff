package postgres

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
	"github.com/claudemesh/claudemesh/schema"
)

// pages reads queues. What is asked for while a query runs is asked for in the
// next one, all together: the way that the writer gathers what it commits.
type pages struct {
	s *Store

	mu      sync.Mutex // guards the following
	waiting []*pageRequest
	reading bool
	closed  bool
	done    sync.WaitGroup // the goroutine that reads
}

const (
	maxPages = 100 // in one query
	// pageTimeout is for a connection that is dead and does not know it: nobody
	// else reads meanwhile.
	pageTimeout = 10 * time.Second
)

// pageRequest is one call of Queued.
type pageRequest struct {
	ctx       context.Context
	recipient broker.PeerID
	after     broker.Place
	rows      int
	bytes     int64
	answer    chan struct{}

	page []broker.Delivery
	more bool
	err  error
}

// Queued implements broker.QueueStore.
func (s *Store) Queued(ctx context.Context, recipient broker.PeerID, after broker.Place, rows int, bytes int64) (page []broker.Delivery, more bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	r := &pageRequest{ctx: ctx, recipient: recipient, after: after, rows: rows, bytes: bytes, answer: make(chan struct{})}
	if !s.pages.ask(r) {
		return nil, false, broker.ErrClosed
	}
	select {
	case <-r.answer:
		return r.page, r.more, r.err
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
}

// ask queues a request, and starts to read unless that goes on.
func (p *pages) ask(r *pageRequest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.waiting = append(p.waiting, r)
	if !p.reading {
		p.reading = true
		p.done.Go(p.read)
	}
	return true
}

// stop refuses further requests and waits for those under way.
func (p *pages) stop() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.done.Wait()
}

// read answers requests until none waits.
func (p *pages) read() {
	for {
		p.mu.Lock()
		batch := p.take()
		if len(batch) == 0 {
			p.reading = false
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), pageTimeout)
		err := p.s.read(ctx, func(ctx context.Context, q querier) error { return readPages(ctx, q, batch) })
		cancel()
		for _, r := range batch {
			if err != nil {
				r.page, r.more, r.err = nil, false, err
			}
			close(r.answer)
		}
	}
}

// take takes requests of equal length off the queue; those that nobody waits
// for any more are dropped. p.mu is held.
func (p *pages) take() (batch []*pageRequest) {
	rest := p.waiting[:0]
	for _, r := range p.waiting {
		switch {
		case r.ctx.Err() != nil:
		case len(batch) < maxPages && (len(batch) == 0 || r.rows == batch[0].rows):
			batch = append(batch, r)
		default:
			rest = append(rest, r)
		}
	}
	clear(p.waiting[len(rest):])
	p.waiting = rest
	return batch
}

// queuedRank is what stands after a place in one rank.
const queuedRank = `(SELECT id, message, priority, attempts, size, wrap FROM delivery
	WHERE recipient = a.recipient AND priority = %d AND id > a.%s ORDER BY id LIMIT $6)`

// pagesQuery returns one delivery more than a page holds if there is one:
// without a message. $1 recipients, $2 to $4 places, $5 bytes, $6 rows + 1. OFFSET keeps
// the planner on the primary keys, whatever number of rows it expects.
var pagesQuery = `SELECT a.asked, d.id, d.priority, d.attempts, d.wrap, d.message, d.page,
		m.sender, m.id, m.mode, m.created, m.expires, b.nonce, b.ciphertext
	FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
		WITH ORDINALITY AS a (recipient, p0, p1, p2, bytes, asked)
	CROSS JOIN LATERAL (
		SELECT *, row_number() OVER w < $6 AND sum(size) OVER w - size < a.bytes AS page
		FROM (` + fmt.Sprintf(queuedRank+" UNION ALL "+queuedRank+" UNION ALL "+queuedRank, 0, "p0", 1, "p1", 2, "p2") + `) q
		WINDOW w AS (ORDER BY priority, id ROWS UNBOUNDED PRECEDING) ORDER BY priority, id LIMIT $6
	) d
	LEFT JOIN LATERAL (SELECT * FROM message WHERE d.page AND seq = d.message OFFSET 0) m ON true
	LEFT JOIN LATERAL (SELECT * FROM body WHERE d.page AND seq = d.message OFFSET 0) b ON true
	ORDER BY a.asked, d.priority, d.id`

// readPages fills in the pages of requests that ask for as many rows each.
func readPages(ctx context.Context, q querier, batch []*pageRequest) error {
	recipients, bytes := make([]int64, len(batch)), make([]int64, len(batch))
	var places [len(broker.Place{})][]int64
	for i, r := range batch {
		r.page, r.more = nil, false
		recipients[i], bytes[i] = int64(r.recipient), r.bytes
		for rank, number := range r.after {
			places[rank] = append(places[rank], number)
		}
	}
	found, err := q.Query(ctx, pagesQuery, recipients, places[0], places[1], places[2], bytes, int64(batch[0].rows)+1)
	if err != nil {
		return err
	}
	defer found.Close()
	for found.Next() {
		var d broker.Delivery
		asked, beyond, err := scanQueued(found, &d)
		if err != nil {
			return err
		}
		r := batch[asked-1]
		r.more = r.more || beyond
		if !r.more {
			r.page = append(r.page, d)
		}
	}
	found.Close()
	return found.Err()
}

// scanQueued says to which request a row belongs, and whether it stands beyond its page.
func scanQueued(row pgx.Rows, d *broker.Delivery) (asked int, beyond bool, err error) {
	var page bool
	var rank int
	var sender, mode, created, expires *int64
	err = row.Scan(&asked, &d.Number, &rank, &d.Attempts, &d.Wrap, &d.Message, &page,
		&sender, fixed(d.ID[:]), &mode, &created, &expires, &d.Nonce, &d.Ciphertext)
	if err != nil || !page {
		return asked, true, err
	}
	if sender == nil || d.Ciphertext == nil || *mode < 1 || int(*mode) >= len(schema.Modes) {
		return asked, false, fmt.Errorf("%w: delivery %d has no message", errData, d.Number)
	}
	d.Sender, d.Mode, d.Priority = broker.PeerID(*sender), schema.Modes[*mode], wire.Priorities[rank]
	d.Created, d.Expires = schema.Time(*created), schema.Time(*expires)
	return asked, false, nil
}
