package main

import (
	"slices"
)

// gate is one line of the goals: ours against one of theirs, or against a
// figure.
type gate struct {
	id, measure string
	mode        string
	figure      func(result) float64
	against     string  // a contender; "" with fixed
	fixed       float64 // what ours is divided by; 1: the figure itself is judged
	of          string  // what fixed is
	low         bool    // less is better
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

// gates are G1 to G5 of issue 3.
var gates = []gate{
	{id: "G1", measure: "storm, messages/s", mode: "storm", figure: rate, against: nameJS, must: 2, goal: 4},
	{id: "G1", measure: "storm, messages/s", mode: "storm", figure: rate, against: nameJSAlways, must: 10, goal: 25},
	{id: "G1", measure: "storm, messages/s", mode: "storm", figure: rate, against: nameMosquitto, must: 0.8, goal: 1.5},
	{id: "G1", measure: "storm, messages/s", mode: "storm", figure: rate, against: nameRedis, must: 0.35, goal: 0.6},
	{id: "G1", measure: "storm, messages/s", mode: "storm", figure: rate, fixed: typeScriptRate, of: "TypeScript broker, as measured", must: 100, goal: 200},
	{id: "G2", measure: "CPU us/message", mode: "storm", figure: cpu, fixed: 1, of: "absolute", low: true, must: 55, goal: 35},
	{id: "G2", measure: "CPU us/message", mode: "storm", figure: cpu, against: nameJS, low: true, must: 0.5},
	{id: "G3", measure: "one at a time, messages/s", mode: "serial", figure: rate, against: nameJS, must: 2, goal: 3},
	{id: "G3", measure: "one at a time, messages/s", mode: "serial", figure: rate, against: nameRedis, must: 0.7, goal: 1.2},
	{id: "G4", measure: "pingpong p50 ms", mode: "pingpong", figure: p50, against: nameJS, low: true, must: 0.8},
	{id: "G4", measure: "pingpong p50 ms", mode: "pingpong", figure: p50, against: nameRedis, low: true, must: 1.3, goal: 0.6},
	{id: "G4", measure: "pingpong p99 ms", mode: "pingpong", figure: p99, against: nameRedis, low: true, must: 1, goal: 0.5},
	{id: "G5", measure: "open, end to end p95 ms", mode: "open", figure: p95, against: nameRedis, low: true, must: 2, goal: 0.8},
	{id: "G5", measure: "open, end to end p95 ms", mode: "open", figure: p95, against: nameJS, low: true, must: 0.1},
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
	r.Ours = median(ours, g.figure)
	r.Theirs = median(theirs, g.figure)
	if g.fixed > 0 {
		r.Against, r.Theirs = g.of, g.fixed
	}
	if r.Ours <= 0 || r.Theirs <= 0 {
		return r
	}
	r.Ratio = r.Ours / r.Theirs
	for i, o := range ours {
		by := g.fixed
		if by == 0 && i < len(theirs) && theirs[i] != nil {
			by = g.figure(*theirs[i])
		}
		if o != nil && by > 0 {
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
	var v []float64
	for _, r := range rs {
		if r != nil {
			v = append(v, figure(*r))
		}
	}
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
