package broker

import "sync"

// routines are the goroutines of the broker. A sync.WaitGroup must not grow from
// zero while it is waited for, and callbacks of the store come whenever they come:
// once they are waited for, none begins any more.
type routines struct {
	mu   sync.Mutex
	over bool // no more begin
	wg   sync.WaitGroup
}

// begin reports whether one more may run, which then calls end.
func (r *routines) begin() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.over {
		r.wg.Add(1)
	}
	return !r.over
}

func (r *routines) end() { r.wg.Done() }

// run runs f in a goroutine, unless the broker has ended.
func (r *routines) run(f func()) {
	if r.begin() {
		go func() { defer r.end(); f() }()
	}
}

// wait returns when none is left.
func (r *routines) wait() {
	r.mu.Lock()
	r.over = true
	r.mu.Unlock()
	r.wg.Wait()
}
