package wire

import "sync"

// Queue holds encoded frames between their makers and the one writer of a
// connection, which sends in one message whatever has gathered since its last
// write, never waiting for more. Both ends of a connection use it.
type Queue struct {
	soft, softBytes, hard int

	mu     sync.Mutex
	ready  sync.Cond // something to take, or the end
	room   sync.Cond // fewer than soft wait, or the end
	frames [][]byte
	bytes  int
	last   bool // nothing more comes: what is there is taken, then it ends
	ended  bool
}

// NewQueue makes a queue that is roomy below frames and bytes, and takes no
// more at max bytes.
func NewQueue(frames, bytes, max int) *Queue {
	q := &Queue{soft: frames, softBytes: bytes, hard: max}
	q.ready.L, q.room.L = &q.mu, &q.mu
	return q
}

// Put adds one frame. It reports false when the queue holds more than the hard limit.
func (q *Queue) Put(raw []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended || q.last {
		return true
	}
	if q.bytes+len(raw) > q.hard {
		return false
	}
	q.frames = append(q.frames, raw)
	q.bytes += len(raw)
	if len(q.frames) == 1 {
		q.ready.Signal()
	}
	return true
}

// Next waits until there is a frame to take. It is false at the end.
func (q *Queue) Next() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.frames) == 0 && !q.ended && !q.last {
		q.ready.Wait()
	}
	return len(q.frames) > 0 && !q.ended
}

// Take appends one message, a frame or an array of frames of at most limit
// bytes, to buf: nothing when there is no frame.
func (q *Queue) Take(buf []byte, limit int) []byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended || len(q.frames) == 0 {
		return buf
	}
	n, size := 0, 2
	for n < len(q.frames) && (n == 0 || size+1+len(q.frames[n]) <= limit) {
		size += 1 + len(q.frames[n])
		n++
	}
	if n == 1 {
		buf = append(buf, q.frames[0]...)
	} else {
		buf = append(buf, '[')
		for i, f := range q.frames[:n] {
			if i > 0 {
				buf = append(buf, ',')
			}
			buf = append(buf, f...)
		}
		buf = append(buf, ']')
	}
	for _, f := range q.frames[:n] {
		q.bytes -= len(f)
	}
	rest := copy(q.frames, q.frames[n:])
	clear(q.frames[rest:])
	q.frames = q.frames[:rest]
	if q.isRoomy() {
		q.room.Broadcast()
	}
	return buf
}

func (q *Queue) isRoomy() bool { return len(q.frames) < q.soft && q.bytes < q.softBytes }

// Bytes is how many bytes wait.
func (q *Queue) Bytes() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes
}

// Roomy reports whether frames that can wait elsewhere may be queued.
func (q *Queue) Roomy() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.isRoomy() && !q.ended
}

// Wait blocks while the queue is not roomy.
func (q *Queue) Wait() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.isRoomy() && !q.ended && !q.last {
		q.room.Wait()
	}
}

// End wakes everyone: Take returns false from now on, and Put drops.
func (q *Queue) End() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	q.ready.Broadcast()
	q.room.Broadcast()
}

// Finish lets the writer take what is queued, and then ends.
func (q *Queue) Finish() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.last = true
	q.ready.Broadcast()
	q.room.Broadcast()
}
