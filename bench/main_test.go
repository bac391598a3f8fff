package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// inProcess is a target without a process: it delivers at once, or when its
// peer comes back.
type inProcess struct {
	lose bool

	mu    sync.Mutex
	peers [100]*handlers
	waits [100][][]byte
}

func (t *inProcess) start(context.Context, string) error { return nil }
func (t *inProcess) boot(context.Context, string) error  { return nil }
func (t *inProcess) pid() int                            { return 0 }
func (t *inProcess) stop()                               {}

func (t *inProcess) dial(_ context.Context, i, _ int, h handlers) (client, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.peers[i] = &h
	for _, p := range t.waits[i] {
		go h.got(p)
	}
	t.waits[i] = nil
	return inProcessClient{t, i, h}, nil
}

// deliver returns nil handlers when the peer is away.
func (t *inProcess) deliver(to int, payload []byte) *handlers {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.peers[to] == nil {
		t.waits[to] = append(t.waits[to], payload)
	}
	return t.peers[to]
}

type inProcessClient struct {
	t  *inProcess
	me int
	h  handlers
}

func (c inProcessClient) close() {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	c.t.peers[c.me] = nil
}

func (c inProcessClient) send(to int, payload []byte) {
	if c.t.lose {
		c.h.fail(errors.New("lost"))
		return
	}
	go func() {
		if h := c.t.deliver(to, payload); h != nil {
			h.got(payload)
			h.got(payload) // a second delivery must not count
		}
		c.h.acked(payload)
	}()
}

func TestLoad(t *testing.T) {
	o := options{peers: 10, messages: 20, window: 4, size: 64, rate: 2000, openFor: 100 * time.Millisecond, pingpongs: 50, backlog: 500}
	for mode, want := range map[string]int{"pingpong": 100, "serial": 200, "storm": 200, "open": 200, "backlog": 500} {
		r, err := measure(t.Context(), &inProcess{}, mode, o)
		if err != nil || r.Messages != want || r.DeliveredPerSecond <= 0 || (r.LatencyMs.P99 <= 0) != (mode == "backlog") {
			t.Errorf("%s: %+v, %v", mode, r, err)
		}
		if _, err := measure(t.Context(), &inProcess{lose: true}, mode, o); err == nil || !strings.Contains(err.Error(), "lost") {
			t.Errorf("%s: a failed send gives %v", mode, err)
		}
	}
}

func TestJudge(t *testing.T) {
	runs := func(ours, theirs float64) map[string]map[string][]*result {
		of := func(v float64) map[string][]*result {
			return map[string][]*result{"storm": {{DeliveredPerSecond: v, BrokerCPUMicros: v}, nil, {DeliveredPerSecond: v, BrokerCPUMicros: v}}}
		}
		return map[string]map[string][]*result{nameOurs: of(ours), nameJS: of(theirs)}
	}
	more := gate{mode: "storm", figure: rate, against: nameJS, must: 2, goal: 4}
	less := gate{mode: "storm", figure: cpu, against: nameJS, low: true, must: 0.5}
	fixed := gate{mode: "storm", figure: cpu, fixed: 1, low: true, must: 55, goal: 35}
	for _, c := range []struct {
		g            gate
		ours, theirs float64
		want         string
	}{
		{more, 400, 100, verdictGoal}, {more, 200, 100, verdictPass}, {more, 199, 100, verdictBelow},
		{more, 200, 0, verdictNone}, {more, 0, 100, verdictNone},
		{less, 50, 100, verdictPass}, {less, 51, 100, verdictBelow}, {less, 1, 100, verdictPass},
		{fixed, 35, 0, verdictGoal}, {fixed, 55, 0, verdictPass}, {fixed, 56, 0, verdictBelow},
	} {
		if got := c.g.judge(runs(c.ours, c.theirs)); got.Verdict != c.want {
			t.Errorf("%g against %g: %+v, want %s", c.ours, c.theirs, got, c.want)
		}
	}
}

// TestJudgeOurs: gates that hold ours against itself, or ask for one of the
// figures beside the usual.
func TestJudgeOurs(t *testing.T) {
	run := func(v float64, more ...extra) *result {
		return &result{DeliveredPerSecond: v, BrokerCPUMicros: v, LatencyMs: quantiles{P50: v}, Extra: more}
	}
	runs := func(many, few float64, more ...extra) map[string]map[string][]*result {
		return map[string]map[string][]*result{nameOurs: {
			modeParkedMany: {run(many), nil, run(many)}, modeParkedFew: {run(few), run(few), run(few)}, "backlog": {run(1), run(1, more...)},
		}}
	}
	rates := gate{mode: modeParkedMany, figure: rate, than: modeParkedFew, of: "few", must: 0.9, goal: 0.97}
	costs := gate{mode: modeParkedMany, figure: cpu, than: modeParkedFew, of: "few", low: true, must: 1.15, goal: 1.05}
	first := gate{mode: "backlog", figure: more(firstAfterDial), fixed: 1, of: absolute, low: true, must: 20, goal: 5}
	memory := gate{mode: "backlog", figure: more(drainRise), fixed: 1, of: absolute, low: true, zero: true, must: 32, goal: 8}
	for _, c := range []struct {
		g         gate
		many, few float64
		more      []extra
		want      string
	}{
		{rates, 97, 100, nil, verdictGoal}, {rates, 90, 100, nil, verdictPass}, {rates, 89, 100, nil, verdictBelow}, {rates, 90, 0, nil, verdictNone},
		{costs, 105, 100, nil, verdictGoal}, {costs, 115, 100, nil, verdictPass}, {costs, 116, 100, nil, verdictBelow},
		{first, 1, 1, nil, verdictNone},
		{first, 1, 1, []extra{{drainRise, 1, "MiB"}}, verdictNone},
		{first, 1, 1, []extra{{firstAfterDial, 5, "ms"}}, verdictGoal},
		{first, 1, 1, []extra{{firstAfterDial, 20, "ms"}}, verdictPass},
		{first, 1, 1, []extra{{firstAfterDial, 21, "ms"}}, verdictBelow},
		{memory, 1, 1, []extra{{drainRise, 0, "MiB"}}, verdictGoal},
		{memory, 1, 1, []extra{{drainRise, 32, "MiB"}}, verdictPass},
	} {
		got := c.g.judge(runs(c.many, c.few, c.more...))
		if _, err := json.Marshal(got); err != nil || got.Verdict != c.want || c.g.than != "" && got.Against != "few" {
			t.Errorf("%g against %g, %v: %+v, %v, want %s", c.many, c.few, c.more, got, err, c.want)
		}
	}
}

// TestNames: the figures that gates ask for are printed under these names, and
// every gate's modes are run.
func TestNames(t *testing.T) {
	var printed []byte
	for _, file := range []string{"offline.go", "fanout.go"} {
		src, err := os.ReadFile(filepath.Join("..", "internal", "bench", file))
		if err != nil {
			t.Fatal(err)
		}
		printed = append(printed, src...)
	}
	for _, name := range []string{firstAfterDial, drainRise, baseRSS, perConnection, storedRatio, commitsEach} {
		if !bytes.Contains(printed, []byte(strconv.Quote(name))) {
			t.Errorf("claudemesh-broker bench prints no %q", name)
		}
	}
	for _, g := range gates {
		for _, mode := range []string{g.mode, g.than} {
			if mode != "" && !slices.Contains(allModes(), mode) {
				t.Errorf("%s asks for mode %q", g.id, mode)
			}
		}
	}
}

// TestWants: only the modes that the asked goals are made of are run.
func TestWants(t *testing.T) {
	s, err := parse([]string{"--only", "G8,G9,claudemesh"}, io.Discard)
	if err != nil || !slices.Equal(s.only, []string{nameOurs}) {
		t.Fatalf("%+v, %v", s, err)
	}
	for _, mode := range allModes() {
		want := mode == modeStart || mode == modeStartParked || mode == modeParkedFew || mode == modeParkedMany
		if s.wants(mode) != want {
			t.Errorf("mode %s: %v", mode, !want)
		}
	}
	if all, err := parse(nil, io.Discard); err != nil || !all.wants("storm") || !all.wants(modeIdle) {
		t.Errorf("%+v, %v: not everything", all, err)
	}
}

// TestReport: the table names what was skipped, the JSON holds everything.
func TestReport(t *testing.T) {
	s, err := parse([]string{"--only", nameJS, "--rounds", "2"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	rep := newReport(s)
	rep.add(nameJS, "storm", 1, result{Mode: "storm", DeliveredPerSecond: 10})
	rep.Skipped[nameRedis] = "absent"
	rep.conclude()
	var table, raw bytes.Buffer
	if err := errors.Join(rep.write(&table), rep.writeJSON(&raw)); err != nil {
		t.Fatal(err)
	}
	var back report
	if err := json.Unmarshal(raw.Bytes(), &back); err != nil || len(back.Ratios) != len(gates) || len(back.Medians) != 1 {
		t.Fatalf("%+v, %v", back, err)
	}
	if !strings.Contains(table.String(), "redis: skipped, absent") {
		t.Errorf("no word on what was skipped:\n%s", &table)
	}
}

func TestParse(t *testing.T) {
	for _, args := range [][]string{{"--peers", "1"}, {"--rounds", "0"}, {"--only", "kafka"}, {"--only", "G11"}, {"--size", "3"}, {"--backlog", "9"},
		{"--starts", "0"}, {"more"}} {
		if _, err := parse(args, io.Discard); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}
