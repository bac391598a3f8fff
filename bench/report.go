package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"
)

// report is everything a run found out.
type report struct {
	CPUs     int                             `json:"cpus"`
	Rounds   int                             `json:"rounds"`
	Load     map[string]any                  `json:"load"`
	Versions map[string]string               `json:"versions"`
	Promises map[string]string               `json:"promises"`
	Skipped  map[string]string               `json:"skipped"`
	Seconds  float64                         `json:"seconds"`
	Medians  []row                           `json:"medians"`
	Ratios   []ratio                         `json:"ratios"`
	Runs     map[string]map[string][]*result `json:"runs"` // contender, mode, round; null: not run

	goals []string // that were asked for; nil: all
}

// row is the medians of one contender in one mode.
type row struct {
	Name string `json:"name"`
	result
}

func newReport(s settings) *report {
	r := &report{
		CPUs: runtime.NumCPU(), Rounds: s.rounds, Versions: map[string]string{"go": runtime.Version()},
		Load: map[string]any{"peers": s.peers, "messages": s.messages, "window": s.window, "size": s.size, "rate": s.rate,
			"openForSeconds": s.openFor.Seconds(), "pingpongs": s.pingpongs, "backlog": s.backlog,
			"idle": s.idle, "parked": s.parked, "starts": s.starts},
		goals: s.goals, Promises: map[string]string{}, Skipped: map[string]string{}, Runs: map[string]map[string][]*result{},
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if strings.Contains(m.Path, "nats.go") || strings.Contains(m.Path, "nats-server") || strings.Contains(m.Path, "paho") || strings.Contains(m.Path, "go-redis") {
				r.Versions[m.Path] = m.Version
			}
		}
	}
	return r
}

func (r *report) add(name, mode string, round int, res result) {
	if r.Runs[name] == nil {
		r.Runs[name] = map[string][]*result{}
	}
	for len(r.Runs[name][mode]) <= round {
		r.Runs[name][mode] = append(r.Runs[name][mode], nil)
	}
	r.Runs[name][mode][round] = &res
}

// conclude takes the medians and judges.
func (r *report) conclude() {
	for _, mode := range allModes() {
		for _, name := range names(contenders(&ours{})) {
			rs := r.Runs[name][mode]
			i := slices.IndexFunc(rs, func(x *result) bool { return x != nil })
			if i < 0 {
				continue
			}
			m := func(f func(result) float64) float64 { return median(rs, f) }
			r.Medians = append(r.Medians, row{name, result{
				Mode: mode, Peers: rs[i].Peers, Messages: rs[i].Messages, Seconds: m(func(x result) float64 { return x.Seconds }),
				AcceptedPerSecond: m(func(x result) float64 { return x.AcceptedPerSecond }), DeliveredPerSecond: m(rate),
				LatencyMs: quantiles{m(p50), m(p95), m(p99)},
				AckLatencyMs: quantiles{m(func(x result) float64 { return x.AckLatencyMs.P50 }),
					m(func(x result) float64 { return x.AckLatencyMs.P95 }), m(func(x result) float64 { return x.AckLatencyMs.P99 })},
				BrokerCPUMicros: m(cpu), BrokerPeakRSS: int64(m(func(x result) float64 { return float64(x.BrokerPeakRSS) })), Extra: extras(rs),
			}})
		}
	}
	for _, g := range gates {
		if r.goals == nil || slices.Contains(r.goals, g.id) {
			r.Ratios = append(r.Ratios, g.judge(r.Runs))
		}
	}
}

// extras are the medians of the other figures.
func extras(rs []*result) (out []extra) {
	for _, r := range rs {
		if r == nil {
			continue
		}
		for _, x := range r.Extra {
			if !slices.ContainsFunc(out, func(o extra) bool { return o.Name == x.Name }) {
				out = append(out, extra{x.Name, median(rs, more(x.Name)), x.Unit})
			}
		}
	}
	return out
}

func (r *report) writeJSON(w io.Writer) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", raw)
	return err
}

// write prints the figures, then the ratios.
func (r *report) write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "MODE\tSERVER\tMESSAGES\tACCEPTED/S\tDELIVERED/S\tP50\tP95\tP99 MS\tACK P50\tP99 MS\tCPU US/MSG\tPEAK MIB")
	for _, m := range r.Medians {
		fmt.Fprintf(w, "%s\t%s\t%d\t%.0f\t%.0f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.1f\t%.1f\n", m.Mode, m.Name, m.Messages,
			m.AcceptedPerSecond, m.DeliveredPerSecond, m.LatencyMs.P50, m.LatencyMs.P95, m.LatencyMs.P99,
			m.AckLatencyMs.P50, m.AckLatencyMs.P99, m.BrokerCPUMicros, float64(m.BrokerPeakRSS)/(1<<20))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	for _, m := range r.Medians {
		for _, x := range m.Extra {
			fmt.Fprintf(out, "%s, %s: %s %.2f %s\n", m.Mode, m.Name, x.Name, x.Value, x.Unit)
		}
	}
	fmt.Fprintln(out)
	fmt.Fprintln(w, "GOAL\tMEASURE\tAGAINST\tOURS\tTHEIRS\tRATIO\tBY ROUND\tMUST\tGOAL\tVERDICT")
	for _, x := range r.Ratios {
		sign := ">="
		if x.Low {
			sign = "<="
		}
		goal := "-"
		if x.Goal > 0 {
			goal = fmt.Sprintf("%s %g", sign, x.Goal)
		}
		quot, by := "-", "-"
		if x.Verdict != verdictNone {
			quot = fmt.Sprintf("%.2f", x.Ratio)
		}
		if len(x.ByRound) == 2 {
			by = fmt.Sprintf("%.2f-%.2f", x.ByRound[0], x.ByRound[1])
		}
		ours := figure(x.Ours)
		if x.Verdict != verdictNone && x.Ours == 0 {
			ours = "0"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s %g\t%s\t%s\n", x.ID, x.Measure, x.Against,
			ours, figure(x.Theirs), quot, by, sign, x.Must, goal, x.Verdict)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, name := range names(contenders(&ours{})) {
		if why, ok := r.Skipped[name]; ok {
			fmt.Fprintf(out, "%s: skipped, %s\n", name, why)
		}
	}
	_, err := fmt.Fprintf(out, "%d rounds, interleaved, medians; %d CPUs; %.0f s\n", r.Rounds, r.CPUs, r.Seconds)
	return err
}

// figure prints a number as finely as its size asks for.
func figure(v float64) string {
	switch {
	case v == 0:
		return "-"
	case v < 100:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.0f", v)
}
