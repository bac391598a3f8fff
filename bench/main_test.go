package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// inProcess is a target without a process: it delivers at once.
type inProcess struct {
	peers [100]handlers
	lose  bool
}

func (t *inProcess) start(context.Context, string) error { return nil }
func (t *inProcess) pid() int                            { return 0 }
func (t *inProcess) stop()                               {}

func (t *inProcess) dial(_ context.Context, i, _ int, h handlers) (client, error) {
	t.peers[i] = h
	return inProcessClient{t, i}, nil
}

type inProcessClient struct {
	t  *inProcess
	me int
}

func (c inProcessClient) close() {}

func (c inProcessClient) send(to int, payload []byte) {
	if c.t.lose {
		c.t.peers[c.me].fail(errors.New("lost"))
		return
	}
	go func() {
		c.t.peers[to].got(payload)
		c.t.peers[to].got(payload) // a second delivery must not count
		c.t.peers[c.me].acked(payload)
	}()
}

func TestLoad(t *testing.T) {
	o := options{peers: 10, messages: 20, window: 4, size: 64, rate: 2000, openFor: 100 * time.Millisecond, pingpongs: 50}
	for mode, want := range map[string]int{"pingpong": 100, "serial": 200, "storm": 200, "open": 200} {
		r, err := measure(t.Context(), &inProcess{}, mode, o)
		if err != nil || r.Messages != want || r.DeliveredPerSecond <= 0 || r.LatencyMs.P99 <= 0 {
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
	for _, args := range [][]string{{"--peers", "1"}, {"--rounds", "0"}, {"--only", "kafka"}, {"--size", "3"}, {"more"}} {
		if _, err := parse(args, io.Discard); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}
