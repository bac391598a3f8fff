package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/prepared"
)

// maxBatch bounds one transaction: beyond it a larger batch saves no more CPU
// and only makes its members wait.
const maxBatch = 1024

// bg is the context of the writer's statements: what was started is finished.
var bg = context.Background()

// op is one piece of work for the writer. One of msg, settle and call is set.
type op struct {
	msg      *broker.Message
	first    int64 // number of its first delivery
	accepted func(broker.Accepted, error)
	settle   []broker.Settlement
	settled  func([]bool, error)
	call     *call

	// Outcome, of the latest attempt.
	err     error // of this op alone; the batch may still commit
	outcome broker.Accepted
	ended   []bool
}

// call is any other writing method: a function that runs in a savepoint of the
// batch. It may run again when the batch fails because of another op.
type call struct {
	run  func(w *writer) error
	err  error
	done chan struct{}
	// state makes starting and giving up exclude each other.
	state atomic.Int32
}

const (
	callWaiting int32 = iota
	callStarted
	callGivenUp
)

// writer owns the connection that writes. Everything below loop runs on its
// goroutine; add, do and stop may be called from any.
type writer struct {
	st   *prepared.Conn
	hot  hotStatements
	opts Options

	mu      sync.Mutex // guards the following
	wake    sync.Cond
	queue   []op
	alloc   int64 // number that the next accepted message's first delivery gets
	closing bool
	stopped chan struct{}

	next      int64                // above every number in the tables
	meshes    map[[16]byte]int64   // row ids of the meshes that Accept has met
	deltas    map[int64]*meshDelta // queue changes of the open transaction
	cursor    expiryCursor         // see Expire
	full      atomic.Bool          // the last commit failed for want of room
	committed atomic.Int64         // deliveries below it are visible to readers
	commits   struct{ n, ops, nanos atomic.Int64 }
}

type meshDelta struct{ count, bytes int64 }

func startWriter(ctx context.Context, db *sql.DB, opts Options) (*writer, error) {
	st, err := prepared.Open(ctx, db)
	if err != nil {
		return nil, translate(err)
	}
	w := &writer{
		st: st, hot: newHotStatements(), opts: opts, stopped: make(chan struct{}),
		meshes: make(map[[16]byte]int64), deltas: make(map[int64]*meshDelta),
	}
	w.wake.L = &w.mu
	err = w.st.Row(ctx, `SELECT max(next,
		(SELECT coalesce(max(id), 0) + 1 FROM delivery),
		(SELECT coalesce(max(seq), 0) + 1 FROM message)) FROM counter`, nil, &w.next)
	if errors.Is(err, sql.ErrNoRows) {
		err = fmt.Errorf("%w: the counter is missing", ErrCorrupt)
	}
	if err != nil {
		return nil, errors.Join(translate(err), w.st.Close())
	}
	w.alloc = w.next
	w.committed.Store(w.next)
	go w.loop()
	return w, nil
}

// add queues an op. It reports false when the store is closed. A message gets
// its numbers here, in the order in which it will commit.
func (w *writer) add(o op) bool { _, ok := w.enqueue(o); return ok }

func (w *writer) enqueue(o op) (first int64, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closing {
		return 0, false
	}
	if o.msg != nil {
		o.first = w.alloc
		w.alloc += max(1, int64(len(o.msg.Deliveries)))
	}
	w.queue = append(w.queue, o)
	if len(w.queue) == 1 {
		w.wake.Signal()
	}
	return o.first, true
}

// do runs a call and waits for its commit. Until it starts, ctx can end it.
func (w *writer) do(ctx context.Context, run func(w *writer) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c := &call{run: run, done: make(chan struct{})}
	if !w.add(op{call: c}) {
		return broker.ErrClosed
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		if c.state.CompareAndSwap(callWaiting, callGivenUp) {
			return ctx.Err()
		}
		<-c.done
		return c.err
	}
}

// stop lets the writer finish what is queued, then closes its connection.
func (w *writer) stop() {
	w.mu.Lock()
	w.closing = true
	w.wake.Signal()
	w.mu.Unlock()
	<-w.stopped
}

func (w *writer) loop() {
	defer close(w.stopped)
	var taken, spare []op
	for {
		w.mu.Lock()
		for len(w.queue) == 0 && !w.closing {
			w.wake.Wait()
		}
		taken, w.queue = w.queue, spare[:0]
		w.mu.Unlock()
		if len(taken) == 0 { // closing
			if err := errors.Join(w.hot.close(), w.st.Close()); err != nil {
				w.opts.Logger.LogAttrs(bg, slog.LevelError, "close the database", slog.Any("error", err))
			}
			return
		}
		for rest := taken; len(rest) > 0; {
			batch := rest[:min(maxBatch, len(rest))]
			rest = rest[len(batch):]
			w.run(batch)
		}
		clear(taken) // or the spare slice would keep the messages alive
		spare = taken
	}
}

// run commits a batch and then tells every op, in order. When the batch fails
// because of one op, each op gets a transaction of its own.
func (w *writer) run(batch []op) {
	err, byOp := w.transact(batch)
	if err == nil || !byOp || len(batch) == 1 {
		w.tell(batch, err)
		return
	}
	w.opts.Logger.LogAttrs(bg, slog.LevelError, "write failed; trying each of the batch alone",
		slog.Int("ops", len(batch)), slog.Any("error", err))
	for i := range batch {
		err, _ := w.transact(batch[i : i+1])
		w.tell(batch[i:i+1], err)
	}
}

// tell gives every op of a batch its outcome. err is the batch's.
func (w *writer) tell(batch []op, err error) {
	for i := range batch {
		o := &batch[i]
		if err != nil {
			o.err, o.outcome, o.ended = err, broker.Accepted{}, nil
		}
		switch {
		case o.msg != nil:
			o.accepted(o.outcome, o.err)
		case o.call != nil:
			o.call.err = o.err
			close(o.call.done)
		default:
			o.settled(o.ended, o.err)
		}
	}
}

// transact runs a batch in one transaction. byOp says that an op failed and not
// the storage, so that the other ops may do better without it.
func (w *writer) transact(batch []op) (err error, byOp bool) {
	start, next, cursor := time.Now(), w.next, w.cursor
	if err = w.exec("BEGIN IMMEDIATE"); err == nil {
		for i := range batch {
			if err = w.perform(&batch[i]); err != nil {
				byOp = true
				break
			}
		}
		if err == nil {
			err = w.flushDeltas()
		}
		if err == nil {
			err = w.exec("COMMIT")
		}
	}
	if err == nil {
		w.full.Store(false)
		w.committed.Store(w.next)
		w.commits.n.Add(1)
		w.commits.ops.Add(int64(len(batch)))
		w.commits.nanos.Add(int64(time.Since(start)))
		return nil, false
	}
	// SQLite has rolled back by itself after some errors; then this one fails.
	_ = w.exec("ROLLBACK")
	w.next, w.cursor = next, w.cursor.earlier(cursor)
	clear(w.deltas)
	clear(w.meshes)
	if isFatal(err) {
		w.opts.OnFatal(err)
	}
	err = translate(err)
	full := errors.Is(err, broker.ErrStorageFull)
	if full && !w.full.Swap(true) {
		w.opts.Logger.LogAttrs(bg, slog.LevelError, "storage is full", slog.Any("error", err))
	}
	return err, byOp && !full
}

// perform runs one op inside the transaction. An error it returns ends the
// transaction; what concerns the op alone goes into the op.
func (w *writer) perform(o *op) (err error) {
	o.err = nil
	switch {
	case o.msg != nil:
		o.outcome, o.err, err = w.accept(o.msg, o.first)
	case o.call != nil:
		err = w.performCall(o)
	default:
		o.ended, err = w.settle(o.settle)
	}
	return err
}

// performCall runs a call in a savepoint, so that its failure undoes it alone.
func (w *writer) performCall(o *op) error {
	if o.call.state.Load() != callStarted && !o.call.state.CompareAndSwap(callWaiting, callStarted) {
		return nil // given up
	}
	// Calls write the queue counters at once: let them see the batch's.
	if err := w.flushDeltas(); err != nil {
		return err
	}
	if err := w.exec("SAVEPOINT op"); err != nil {
		return err
	}
	cursor := w.cursor
	if o.err = o.call.run(w); o.err == nil {
		o.err = w.flushDeltas()
	}
	if isFatal(o.err) || errors.Is(translate(o.err), broker.ErrStorageFull) {
		return o.err // not this call's fault
	}
	if o.err != nil {
		clear(w.deltas)
		w.cursor = w.cursor.earlier(cursor)
		// This fails when the error was one that ends the whole transaction.
		if err := w.exec("ROLLBACK TO op"); err != nil {
			return o.err
		}
		o.err = translate(o.err)
	}
	return w.exec("RELEASE op")
}

// exec runs a statement without parameters.
func (w *writer) exec(query string) error {
	_, err := w.st.Exec(bg, query)
	return err
}

// queued notes a change of a mesh's queue; the transaction ends with one update
// per mesh.
func (w *writer) queued(mesh, count, bytes int64) {
	d := w.deltas[mesh]
	if d == nil {
		d = new(meshDelta)
		w.deltas[mesh] = d
	}
	d.count += count
	d.bytes += bytes
}

func (w *writer) flushDeltas() error {
	for mesh, d := range w.deltas {
		if _, err := w.st.Exec(bg, "UPDATE mesh SET queued = queued + ?, queued_bytes = queued_bytes + ? WHERE id = ?",
			d.count, d.bytes, mesh); err != nil {
			return err
		}
	}
	clear(w.deltas)
	return nil
}
