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
}

type sample struct {
	cpu          time.Duration
	rss, peak    int64
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
			s.rss, s.peak = field(raw, "VmRSS:"), field(raw, "VmHWM:")
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

// field returns a size of /proc/PID/status in bytes.
func field(status []byte, name string) int64 {
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return number(strings.Fields(rest)[0]) * 1024
		}
	}
	return 0
}

func (b *bencher) scrape() (commits, ops float64) {
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
	return commits, ops
}
