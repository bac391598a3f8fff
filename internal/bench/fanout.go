package bench

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/claudemesh/claudemesh/client"
)

// fanout sends from one peer to a group of n others; a message counts when its
// last recipient has it.
func (b *bencher) fanout(ctx context.Context, n int) (Result, error) {
	messages := max(b.Messages/3, 20)
	b.say("fanout: %d messages to a group of %d", messages, n)
	group := fmt.Sprintf("g%d", n)
	var got, bytes, content atomic.Int64
	all := make(chan struct{})
	peers, err := b.dial(ctx, n+1, func(i int, _ *peer, o *client.Options) {
		if i == 0 {
			return
		}
		o.Card.Groups = []client.Group{{Name: group}}
		o.Unopened = func(f *client.Push) error {
			body := int64(len(f.Nonce) + len(f.Ciphertext))
			bytes.Add(body + int64(len(f.Wrap)))
			content.Store(body + int64(n*len(f.Wrap)))
			if got.Add(1) == int64(n*messages) {
				close(all)
			}
			return nil
		}
	})
	if err != nil {
		return Result{}, err
	}
	defer func() { hangUp(peers) }()
	if err := b.seal(ctx, peers[:1], messages, func(int, int) string { return "@" + group }); err != nil {
		return Result{}, err
	}
	r, err := b.measured(fmt.Sprintf("fanout %d", n), messages, func() error {
		b.release(peers[0], b.Window)
		select {
		case <-all:
			return nil
		case <-time.After(2 * time.Minute):
			return fmt.Errorf("stalled at %d of %d deliveries", got.Load(), n*messages)
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	if err != nil {
		return r, err
	}
	r.Peers = n + 1
	b.rates(&r)
	r.DeliveredPerSecond = float64(got.Load()) / r.Seconds
	r.LatencyMs = Quantiles{}
	r.Extra = append(r.Extra, Figure{"bytes delivered per message", float64(bytes.Load()) / float64(messages), "bytes"})
	if b.Broker.DB == "" {
		return r, nil
	}
	hangUp(peers[1:])
	peers = peers[:1]
	stored, err := b.stored(ctx, peers[0], "@"+group, content.Load())
	r.Extra = append(r.Extra, stored...)
	return r, err
}

// stored sends one message at a time to a group whose sessions are away, so that
// nothing but storing happens, and looks at what that took. content is the
// bytes of one body and the wraps.
func (b *bencher) stored(ctx context.Context, p *peer, target string, content int64) ([]Figure, error) {
	const messages = 50
	p.next.Store(0)
	if err := b.seal(ctx, []*peer{p}, messages, func(int, int) string { return target }); err != nil {
		return nil, err
	}
	if err := b.quiet(ctx); err != nil {
		return nil, fmt.Errorf("fanout: the broker goes on writing: %w", err)
	}
	filled, err := volume(ctx, b.Broker.DB)
	if err != nil {
		return nil, err
	}
	before := b.sample()
	b.release(p, 1) // each acknowledgement lets the next one go
	if err := b.until(ctx, func() bool { return b.countAcked() == messages }); err != nil {
		return nil, fmt.Errorf("fanout: not accepted: %w", err)
	}
	after := b.sample()
	full, err := volume(ctx, b.Broker.DB)
	if err != nil {
		return nil, err
	}
	each := func(bytes int64) float64 { return float64(bytes) / messages }
	return []Figure{
		{"one body and the wraps", float64(content), "bytes"},
		{StoredRatio, each(full.content-filled.content) / float64(content), "times"},
		{"growth of the database, of one body and the wraps", each(full.pages-filled.pages) / float64(content), "times"},
		{"written to disk, of one body and the wraps", each(after.written-before.written) / float64(content), "times"},
		{CommitsEach, (after.commits - before.commits) / messages, ""},
	}, nil
}

// quiet waits until the broker has written nothing for half a second.
func (b *bencher) quiet(ctx context.Context) error {
	last, since := b.sample().commits, time.Now()
	return b.until(ctx, func() bool {
		if now := b.sample().commits; now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > 500*time.Millisecond
	})
}

// held is what a database holds, in bytes.
type held struct {
	pages   int64 // in use
	content int64 // columns of messages and deliveries that hold bodies and wraps
}

// volume reads a database beside the broker that has it open.
func volume(ctx context.Context, path string) (v held, err error) {
	u := url.URL{Scheme: "file", OmitHost: true, Path: path}
	db, err := sql.Open("sqlite", u.String()+"?mode=rw&_busy_timeout=5000&_query_only=1")
	if err != nil {
		return v, err
	}
	defer db.Close()
	err = db.QueryRowContext(ctx, `SELECT (page_count - freelist_count) * page_size,
		(SELECT coalesce(sum(coalesce(length(nonce), 0) + coalesce(length(body), 0)), 0) FROM message) +
		(SELECT coalesce(sum(length(wrap)), 0) FROM delivery)
		FROM pragma_page_count, pragma_freelist_count, pragma_page_size`).Scan(&v.pages, &v.content)
	return v, err
}
