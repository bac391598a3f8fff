package main

import (
	"math"
	"slices"
)

// gate is one line of the goals: ours against one of theirs, or against a
// figure.
type gate struct {
	id, measure string
	mode        string
	figure      func(result) float64
	against     string  // a contender; "" with than and fixed
	than        string  // a mode of ours that it is held against
	fixed       float64 // what ours is divided by; 1: the figure itself is judged
	of          string  // what fixed is
	low         bool    // less is better
	zero        bool    // nothing is a figure too
	must, goal  float64 // goal 0: none
}

// typeScriptRate is the earlier TypeScript broker at such a load, in
// messages/s, measured on another day; it is not run here.
const typeScriptRate = 111

func rate(r result) float64 { return r.DeliveredPerSecond }
func cpu(r result) float64  { return r.BrokerCPUMicros }
func p50(r result) float64  { return r.LatencyMs.P50 }
func p95(r result) float64  { return r.LatencyMs.P95 }
func p99(r result) float64  { return r.LatencyMs.P99 }
func peak(r result) float64 { return float64(r.BrokerPeakRSS) / (1 << 20) }

// Names of figures, as claudemesh-broker bench prints them.
const (
	firstAfterDial = "first message after dialling"
	drainRise      = "memory rise during the drain"
	baseRSS        = "resident memory before the first connection"
	perConnection  = "resident memory per connection"
	storedRatio    = "stored, of one body and the wraps"
	commitsEach    = "commits per message, one at a time"
)

// more is one of the figures beside the usual; NaN when a run has none.
func more(name string) func(result) float64 {
	return func(r result) float64 {
		for _, x := range r.Extra {
			if x.Name == name {
				return x.Value
			}
		}
		return math.NaN()
	}
}

const absolute = "absolute"

// gates are what docs/performance.md holds us to.
var gates = []gate{
	{id: "G1", measure: "storm, messages/s", mode: "storm", figure: rate, against: nameJS, must: 2, goal: 4},
	{id: "G1", measure: "storm, messages/s", mode: "storm", figure: rate, against: nameJSAlways, must: 10, goal: 25},
	{id: "G1", measure: "storm, messages/s", mode: "storm", figure: rate, against: nameMosquitto, must: 0.8, goal: 1.5},
	{id: "G1", measure: "storm, messages/s", mode: "storm", figure: rate, against: nameRedis, must: 0.35, goal: 0.6},
	{id: "G1", measure: "storm, messages/s", mode: "storm", figure: rate, fixed: typeScriptRate, of: "TypeScript broker, as measured", must: 100, goal: 200},
	{id: "G2", measure: "CPU us/message", mode: "storm", figure: cpu, fixed: 1, of: absolute, low: true, must: 55, goal: 35},
	{id: "G2", measure: "CPU us/message", mode: "storm", figure: cpu, against: nameJS, low: true, must: 0.5},
	{id: "G3", measure: "one at a time, messages/s", mode: "serial", figure: rate, against: nameJS, must: 2, goal: 3},
	{id: "G3", measure: "one at a time, messages/s", mode: "serial", figure: rate, against: nameRedis, must: 0.7, goal: 1.2},
	{id: "G4", measure: "pingpong p50 ms", mode: "pingpong", figure: p50, against: nameJS, low: true, must: 0.8},
	{id: "G4", measure: "pingpong p50 ms", mode: "pingpong", figure: p50, against: nameRedis, low: true, must: 1.3, goal: 0.6},
	{id: "G4", measure: "pingpong p99 ms", mode: "pingpong", figure: p99, against: nameRedis, low: true, must: 1, goal: 0.5},
	{id: "G5", measure: "open, end to end p95 ms", mode: "open", figure: p95, against: nameRedis, low: true, must: 2, goal: 0.8},
	{id: "G5", measure: "open, end to end p95 ms", mode: "open", figure: p95, against: nameJS, low: true, must: 0.1},
	{id: "G6", measure: "KiB per idle connection", mode: modeIdle, figure: more(perConnection), fixed: 1, of: absolute, low: true, must: 40, goal: 28},
	{id: "G6", measure: "MiB before connections", mode: modeIdle, figure: more(baseRSS), fixed: 1, of: absolute, low: true, must: 25, goal: 15},
	{id: "G6", measure: "peak MiB in storm", mode: "storm", figure: peak, fixed: 1, of: absolute, low: true, must: 96, goal: 64},
	{id: "G7", measure: "drain, messages/s", mode: "backlog", figure: rate, against: nameRedis, must: 0.4, goal: 0.8},
	{id: "G7", measure: "drain, messages/s", mode: "backlog", figure: rate, against: nameMosquitto, must: 0.7, goal: 1.2},
	{id: "G7", measure: "drain, ms to the first message", mode: "backlog", figure: more(firstAfterDial), fixed: 1, of: absolute, low: true, must: 20, goal: 5},
	{id: "G7", measure: "drain, MiB of memory more", mode: "backlog", figure: more(drainRise), fixed: 1, of: absolute, low: true, zero: true, must: 32, goal: 8},
	{id: "G8", measure: "start of a new file, ms", mode: modeStart, figure: p50, against: nameJS, low: true, must: 3, goal: 1},
	{id: "G8", measure: "start with parked messages, ms", mode: modeStartParked, figure: p50, than: modeStart, of: "a new file", low: true, must: 1.5},
	{id: "G9", measure: "storm beside parked, messages/s", mode: modeParkedMany, figure: rate, than: modeParkedFew, of: "few parked", must: 0.9, goal: 0.97},
	{id: "G9", measure: "storm beside parked, CPU us", mode: modeParkedMany, figure: cpu, than: modeParkedFew, of: "few parked", low: true, must: 1.15, goal: 1.05},
	{id: "G10", measure: "fanout to 200, bytes stored", mode: modeFanout, figure: more(storedRatio), fixed: 1, of: "one body + the wraps", low: true, must: 1.2},
	{id: "G10", measure: "fanout to 200, commits/message", mode: modeFanout, figure: more(commitsEach), fixed: 1, of: absolute, low: true, must: 1.05}, // of 50 messages; the janitor commits too
}

// Verdicts of a gate.
const (
	verdictPass  = "PASS"
	verdictGoal  = "PASS, goal"
	verdictBelow = "below"
	verdictNone  = "not run"
)

// ratio is a gate, judged.
type ratio struct {
	ID      string    `json:"id"`
	Measure string    `json:"measure"`
	Against string    `json:"against"`
	Ours    float64   `json:"ours"`
	Theirs  float64   `json:"theirs"`
	Ratio   float64   `json:"ratio"`   // of the medians
	ByRound []float64 `json:"byRound"` // least and most of the rounds' own ratios
	Low     bool      `json:"lessIsBetter"`
	Must    float64   `json:"must"`
	Goal    float64   `json:"goal,omitempty"`
	Verdict string    `json:"verdict"`
}

// judge compares the medians of the rounds.
func (g gate) judge(runs map[string]map[string][]*result) ratio {
	r := ratio{ID: g.id, Measure: g.measure, Against: g.against, Low: g.low, Must: g.must, Goal: g.goal, Verdict: verdictNone}
	ours := runs[nameOurs][g.mode]
	theirs := runs[g.against][g.mode]
	if g.than != "" {
		r.Against, theirs = g.of, runs[nameOurs][g.than]
	}
	var ran bool
	r.Ours, ran = middle(ours, g.figure)
	r.Theirs = median(theirs, g.figure)
	if g.fixed > 0 {
		r.Against, r.Theirs = g.of, g.fixed
	}
	if !ran || r.Ours <= 0 && !g.zero || r.Theirs <= 0 {
		return r
	}
	r.Ratio = r.Ours / r.Theirs
	for i, o := range ours {
		by := g.fixed
		if by == 0 && i < len(theirs) && theirs[i] != nil {
			by = g.figure(*theirs[i])
		}
		if o != nil && by > 0 && !math.IsNaN(g.figure(*o)) {
			r.ByRound = append(r.ByRound, g.figure(*o)/by)
		}
	}
	if len(r.ByRound) > 0 {
		r.ByRound = []float64{slices.Min(r.ByRound), slices.Max(r.ByRound)}
	}
	meets := func(bound float64) bool { return r.Ratio >= bound }
	if g.low {
		meets = func(bound float64) bool { return r.Ratio <= bound }
	}
	switch {
	case g.goal > 0 && meets(g.goal):
		r.Verdict = verdictGoal
	case meets(g.must):
		r.Verdict = verdictPass
	default:
		r.Verdict = verdictBelow
	}
	return r
}

// median of the rounds that were run; 0: none was.
func median(rs []*result, figure func(result) float64) float64 {
	v, _ := middle(rs, figure)
	return v
}

// middle is median; ok says that a round has the figure.
func middle(rs []*result, figure func(result) float64) (m float64, ok bool) {
	var v []float64
	for _, r := range rs {
		if r == nil {
			continue
		}
		if f := figure(*r); !math.IsNaN(f) {
			v = append(v, f)
		}
	}
	if len(v) == 0 {
		return 0, false
	}
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2, true
}
