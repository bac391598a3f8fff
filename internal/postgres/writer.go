package postgres

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// A transaction ends before it has more than these: beyond them a larger batch
// saves no more, and makes its members and the meshes' other writers wait.
const (
	maxOps   = 1024
	maxRows  = 4096
	maxBytes = 8 << 20
)

// writerTimeout bounds one attempt at a batch. The server gives up before that.
const (
	writerTimeout   = 12 * time.Second
	writerStatement = "10000" // statement_timeout, in milliseconds
)

// op is one piece of work for the writer: a message or settlements.
type op struct {
	epoch    int64 // of the node when it was given
	msg      *broker.Message
	accepted func(broker.Accepted, error)
	settle   []broker.Settlement
	settled  func([]bool, error)

	// Outcome, of the latest attempt.
	num     int64 // of its first delivery, within the batch
	stored  bool
	err     error // of this op alone; the batch may still commit
	outcome broker.Accepted
	ended   []bool
}

// weight is what an op counts against maxRows and maxBytes.
func (o *op) weight() (rows, bytes int) {
	rows = 1 + len(o.settle)
	if o.msg != nil {
		rows += len(o.msg.Deliveries)
		bytes = len(o.msg.Ciphertext)
		for i := range o.msg.Deliveries {
			bytes += len(o.msg.Deliveries[i].Wrap)
		}
	}
	return rows, bytes
}

// writer owns a connection and commits what Accept and Settle are given. Below
// loop everything runs on its goroutine; add and stop may be called from any.
type writer struct {
	s   *Store
	cfg *pgx.ConnConfig

	ctx     context.Context // ends when Close has waited long enough
	giveUp  context.CancelFunc
	stopped chan struct{}

	mu      sync.Mutex // guards the following
	wake    sync.Cond
	queue   []op
	closing bool

	conn    *pgx.Conn // nil when it was lost
	meshes  map[wire.ID]int64
	columns columns
	byNum   map[int64]*op // the messages of the batch
}

func startWriter(ctx context.Context, s *Store, cfg *pgx.ConnConfig) (*writer, error) {
	w := &writer{s: s, cfg: cfg.Copy(), stopped: make(chan struct{}), meshes: make(map[wire.ID]int64), byNum: make(map[int64]*op)}
	w.cfg.RuntimeParams["statement_timeout"] = writerStatement
	w.wake.L = &w.mu
	if err := w.connect(ctx); err != nil {
		return nil, err
	}
	w.ctx, w.giveUp = context.WithCancel(context.WithoutCancel(ctx))
	go w.loop()
	return w, nil
}

// connect makes a connection unless there is one.
func (w *writer) connect(ctx context.Context) error {
	if w.conn != nil && !w.conn.IsClosed() {
		return nil
	}
	conn, err := pgx.ConnectConfig(ctx, w.cfg)
	if err != nil {
		return err
	}
	if _, err := conn.Prepare(ctx, postStatement, postQuery); err != nil {
		return errors.Join(err, conn.Close(ctx))
	}
	w.conn = conn
	return nil
}

// disconnect gives up a connection, which may be at an unknown point.
func (w *writer) disconnect() {
	if w.conn != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), time.Second)
		defer cancel()
		_ = w.conn.Close(ctx) // it is abandoned either way
		w.conn = nil
	}
}

// add queues an op. It reports false when the store is closed.
func (w *writer) add(o op) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closing {
		return false
	}
	w.queue = append(w.queue, o)
	if len(w.queue) == 1 {
		w.wake.Signal()
	}
	return true
}

// stop lets the writer finish what is queued, for as long as the store is
// patient, then closes its connection.
func (w *writer) stop() {
	w.mu.Lock()
	w.closing = true
	w.wake.Signal()
	w.mu.Unlock()
	timer := time.AfterFunc(w.s.opts.Patience, w.giveUp)
	<-w.stopped
	timer.Stop()
	w.giveUp()
}

func (w *writer) loop() {
	defer close(w.stopped)
	defer w.disconnect()
	var taken, spare []op
	for {
		w.mu.Lock()
		for len(w.queue) == 0 && !w.closing {
			w.wake.Wait()
		}
		taken, w.queue = w.queue, spare[:0]
		w.mu.Unlock()
		if len(taken) == 0 { // closing
			return
		}
		for rest := taken; len(rest) > 0; {
			n := cut(rest)
			w.run(rest[:n], false)
			rest = rest[n:]
		}
		clear(taken) // or the spare slice would keep the messages alive
		spare = taken
	}
}

// cut returns how many ops make a batch.
func cut(ops []op) int {
	rows, bytes := 0, 0
	for i := range ops {
		r, b := ops[i].weight()
		rows, bytes = rows+r, bytes+b
		if i > 0 && (i == maxOps || rows > maxRows || bytes > maxBytes) {
			return i
		}
	}
	return len(ops)
}

// run commits a batch, trying until it is known to be committed or can not be,
// and then tells every op, in order. When it fails because of one op,
// each op gets a transaction of its own. again says that an attempt at it was
// made before.
func (w *writer) run(batch []op, again bool) {
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err, passing := w.attempt(batch, again)
		if err != nil && w.ctx.Err() != nil {
			err, passing = errors.Join(broker.ErrClosed, err), false
		}
		if err == nil || !passing && (len(batch) == 1 || isOurs(err)) {
			tell(batch, err)
			return
		}
		w.s.opts.Logger.LogAttrs(w.ctx, slog.LevelWarn, "write failed; trying again",
			slog.Int("ops", len(batch)), slog.Bool("alone", !passing), slog.Any("error", err))
		if !passing {
			for i := range batch {
				w.run(batch[i:i+1], again)
			}
			return
		}
		again = true
		select {
		case <-w.ctx.Done():
		case <-time.After(pause):
		}
	}
}

// attempt makes one transaction of a batch. passing says that the next attempt
// may succeed, and that it is not known whether this one did.
func (w *writer) attempt(batch []op, again bool) (err error, passing_ bool) {
	ctx, cancel := context.WithTimeout(w.ctx, writerTimeout)
	defer cancel()
	if err := w.connect(ctx); err != nil {
		return err, true
	}
	if err = w.transact(ctx, batch, again); err == nil {
		return nil, false
	}
	if passing_ = passing(err) || ctx.Err() != nil; passing_ {
		w.disconnect()
	}
	return translate(err), passing_
}

func (w *writer) transact(ctx context.Context, batch []op, again bool) error {
	start, node := time.Now(), w.s.enlisted()
	w.columns.reset()
	clear(w.byNum)
	for i := range batch {
		if err := w.gather(ctx, &batch[i], node); err != nil {
			return err
		}
	}
	if w.columns.empty() {
		return nil
	}
	var stored []*op
	first, err := w.columns.post(ctx, w.conn.PgConn(), node, func(num int64) { stored = append(stored, w.byNum[num]) })
	if err != nil {
		return err
	}
	w.s.committed(len(batch), start)
	for _, o := range stored {
		o.stored, o.outcome = true, broker.Accepted{First: first + o.num}
	}
	if again {
		if err := w.settledBefore(ctx, batch, node); err != nil {
			return err
		}
	}
	if len(stored) == len(w.byNum) {
		return nil
	}
	return w.repeats(ctx, batch, again)
}

// tell gives every op of a batch its outcome. err is the batch's.
func tell(batch []op, err error) {
	for i := range batch {
		o := &batch[i]
		if err != nil {
			o.err, o.outcome, o.ended = err, broker.Accepted{}, nil
		}
		if o.msg != nil {
			o.accepted(o.outcome, o.err)
		} else {
			if o.err != nil {
				o.ended = nil
			}
			o.settled(o.ended, o.err)
		}
	}
}
