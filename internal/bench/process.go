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
	cpu          time.Duration
	rss, peak    int64
	written      int64 // bytes to disk
	commits, ops float64
}

// clockTick is the unit of CPU times in /proc: 1/100 s on every Linux.
const clockTick = 10 * time.Millisecond

// sample reads the broker's CPU time and memory from /proc (zero on other
// systems) and its commits from its metrics.
func (b *bencher) sample() (s sample) {
	if b.Broker.PID > 0 {
		if raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.Broker.PID)); err == nil {
			f := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
			if len(f) > 12 {
				s.cpu = time.Duration(number(f[11])+number(f[12])) * clockTick
			}
		}
		if raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.Broker.PID)); err == nil {
			s.rss, s.peak = field(raw, "VmRSS:")*1024, field(raw, "VmHWM:")*1024
		}
		if raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", b.Broker.PID)); err == nil {
			s.written = field(raw, "write_bytes:")
		}
	}
	if b.Broker.Metrics != "" {
		s.commits, s.ops = b.scrape()
	}
	return s
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
func (b *bencher) scrape() (commits, ops float64) {
	b.scrapes++
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.Broker.Metrics, nil)
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
