package bench

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// Process is what can be seen of a broker from outside.
type Process struct {
	PID     int    // 0: not on this machine
	Metrics string // URL of its metrics; "": none
	DB      string // its database; "": not on this machine
}

type sample struct {
	cpu, server  time.Duration // of the brokers, and of the database's server
	rss, peak    int64
	written      int64 // bytes to disk
	commits, ops float64
}

// clockTick is the unit of CPU times in /proc: 1/100 s on every Linux.
const clockTick = 10 * time.Millisecond

// brokers are all that take part.
func (b *bencher) brokers() []Process {
	out := []Process{b.Broker}
	for _, n := range b.More {
		out = append(out, n.Process)
	}
	return out
}

// sample reads the brokers' CPU time and memory from /proc (zero on other
// systems) and their commits from their metrics, and adds them up.
func (b *bencher) sample() (s sample) {
	for _, p := range b.brokers() {
		if p.PID > 0 {
			s.cpu += stat(p.PID).cpu()
			if raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID)); err == nil {
				s.rss, s.peak = s.rss+field(raw, "VmRSS:")*1024, s.peak+field(raw, "VmHWM:")*1024
			}
			if raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", p.PID)); err == nil {
				s.written += field(raw, "write_bytes:")
			}
		}
	}
	b.scrapes++
	for _, p := range b.brokers() {
		if p.Metrics != "" {
			commits, ops := b.scrape(p.Metrics)
			s.commits, s.ops = s.commits+commits, s.ops+ops
		}
	}
	s.server = serverCPU(b.Postgres)
	return s
}

// procStat is /proc/PID/stat from the third field on; nil when there is none.
type procStat []string

func stat(pid int) procStat {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
}

// cpu is the process's own time.
func (f procStat) cpu() time.Duration { return f.ticks(11, 12) }

// ended is the time of the children that have ended.
func (f procStat) ended() time.Duration { return f.ticks(13, 14) }

func (f procStat) ticks(fields ...int) (t time.Duration) {
	for _, i := range fields {
		if i < len(f) {
			t += time.Duration(number(f[i])) * clockTick
		}
	}
	return t
}

// ServerOf returns the database server's process, of which a backend is a child.
// 0: not on this machine.
func ServerOf(backend int) int {
	if f := stat(backend); len(f) > 1 {
		return int(number(f[1]))
	}
	return 0
}

// serverCPU is the time of a database server and all its processes.
func serverCPU(pid int) (t time.Duration) {
	if pid == 0 {
		return 0
	}
	own := stat(pid)
	t = own.cpu() + own.ended()
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if f := stat(child); len(f) > 1 && number(f[1]) == int64(pid) {
			t += f.cpu()
		}
	}
	return t
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// field returns a number of /proc/PID/status or io.
func field(raw []byte, name string) int64 {
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return number(strings.Fields(rest)[0])
		}
	}
	return 0
}

// watchRSS follows the broker's memory until the function that it returns is
// called, which returns the most that was seen.
func (b *bencher) watchRSS() (most func() int64) {
	stop, seen := make(chan struct{}), make(chan int64)
	go func() {
		t := time.NewTicker(10 * time.Millisecond)
		defer t.Stop()
		for peak := int64(0); ; {
			if raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.Broker.PID)); err == nil && b.Broker.PID > 0 {
				peak = max(peak, field(raw, "VmRSS:")*1024)
			}
			select {
			case <-t.C:
			case <-stop:
				seen <- peak
				return
			}
		}
	}()
	return func() int64 { close(stop); return <-seen }
}

// scrape reads the counters of the store, less what reading them added: to know
// that the writer lives, the broker commits nothing at each look.
func (b *bencher) scrape(url string) (commits, ops float64) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, 0
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, 0
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(io.LimitReader(resp.Body, 1<<20))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		v, err := strconv.ParseFloat(value, 64)
		switch {
		case err != nil:
		case name == "claudemesh_store_commits_total":
			commits = v
		case name == "claudemesh_store_operations_total":
			ops = v
		}
	}
	return commits - b.scrapes, ops - b.scrapes
}
