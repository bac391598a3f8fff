// Command bench runs the loads of claudemesh-broker bench side by side with
// what people would use instead, interleaved in one run, and prints the ratios.
// It is a module of its own, so that its dependencies stay out of the product.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	if raw := os.Getenv(natsEnv); raw != "" {
		exit(serveNATS(raw))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	exit(err)
}

func exit(err error) {
	if err == nil || errors.Is(err, flag.ErrHelp) {
		os.Exit(0)
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

// settings are the command line.
type settings struct {
	options
	rounds int
	starts int
	only   []string // contenders; nil: all
	goals  []string // likewise
	json   bool
	root   string
}

func parse(args []string, stderr io.Writer) (settings, error) {
	var s settings
	var only string
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&s.rounds, "rounds", 3, "how often each load is made; medians are printed")
	f.IntVar(&s.peers, "peers", 100, "connected clients")
	f.IntVar(&s.messages, "messages", 300, "messages of each, in serial and storm")
	f.IntVar(&s.window, "window", 32, "unacknowledged messages of each, in storm")
	f.IntVar(&s.size, "size", 400, "bytes of a message")
	f.IntVar(&s.rate, "rate", 2000, "messages/s of open")
	f.DurationVar(&s.openFor, "open-for", 5*time.Second, "how long open lasts")
	f.IntVar(&s.backlog, "backlog", 100_000, "messages that wait for one peer, in backlog")
	f.IntVar(&s.idle, "idle", 9_000, "silent sessions of idle; two processes with that many open files each")
	f.IntVar(&s.parked, "parked", 1_000_000, "messages that wait for others, in parked-many and start-parked")
	f.IntVar(&s.starts, "starts", 7, "starts of each server")
	f.StringVar(&only, "only", "", "with commas, goals: "+strings.Join(goals(), ", ")+"; and contenders: "+strings.Join(names(contenders(&ours{})), ", "))
	f.BoolVar(&s.json, "json", false, "print one JSON object")
	f.StringVar(&s.root, "root", "..", "the claudemesh repository")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	s.pingpongs = max(s.messages, 1000)
	if s.rounds < 1 || s.peers < 2 || s.messages < 1 || s.window < 1 || s.window > 1000 || s.size < idBytes || s.rate < 1 ||
		s.backlog < senders || s.idle < 1 || s.parked < 1 || s.starts < 1 || s.openFor <= 0 || f.NArg() > 0 {
		return s, fmt.Errorf("wanted: a round, two peers, a message, a window of at most 1000, a size of at least %d, a rate, a backlog of at least %d, something idle and parked, a start, and no arguments", idBytes, senders)
	}
	if only == "" {
		return s, nil
	}
	for n := range strings.SplitSeq(only, ",") {
		switch {
		case slices.Contains(goals(), n):
			s.goals = append(s.goals, n)
		case slices.Contains(names(contenders(&ours{})), n):
			s.only = append(s.only, n)
		default:
			return s, fmt.Errorf("--only: there is no %q", n)
		}
	}
	return s, nil
}

// wants reports whether a mode is needed for what was asked for.
func (s settings) wants(mode string) bool {
	return s.goals == nil || slices.ContainsFunc(gates, func(g gate) bool {
		return slices.Contains(s.goals, g.id) && (g.mode == mode || g.than == mode)
	})
}

func goals() (out []string) {
	for _, g := range gates {
		if !slices.Contains(out, g.id) {
			out = append(out, g.id)
		}
	}
	return out
}

func names(cs []contender) (out []string) {
	for _, c := range cs {
		out = append(out, c.name)
	}
	return out
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	s, err := parse(args, stderr)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "claudemesh-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	own := &ours{root: s.root}
	rep := newReport(s)
	var cs []contender
	for _, c := range contenders(own) {
		if len(s.only) > 0 && !slices.Contains(s.only, c.name) {
			rep.Skipped[c.name] = "not asked for"
		} else if why := c.absent(); why != "" {
			rep.Skipped[c.name] = why
			fmt.Fprintf(stderr, "%s is skipped: %s\n", c.name, why)
		} else {
			rep.Promises[c.name] = c.promise
			cs = append(cs, c)
		}
	}
	if slices.Contains(names(cs), nameOurs) {
		fmt.Fprintln(stderr, "building claudemesh-broker")
		if err := own.build(ctx, dir); err != nil {
			return err
		}
	}
	began := time.Now()
	err = errors.Join(rounds(ctx, cs, s, rep, stderr), singles(ctx, cs, own, s, rep, stderr))
	rep.Seconds = time.Since(began).Seconds()
	rep.conclude()
	if s.json {
		return errors.Join(err, rep.writeJSON(stdout))
	}
	return errors.Join(err, rep.write(stdout))
}

// rounds makes every load of every contender, each on a server of its own. In a
// mode they follow each other at once, and who is first changes with the round,
// so that a slow minute of the machine touches all. A failure of one is told
// and kept; the others go on.
func rounds(ctx context.Context, cs []contender, s settings, rep *report, stderr io.Writer) error {
	var failed []error
	for round := range s.rounds {
		for _, mode := range roundModes {
			for k := range cs {
				c := cs[(round+k)%len(cs)]
				if !c.does(mode) || !s.wants(mode) {
					continue
				}
				fmt.Fprintf(stderr, "round %d of %d, %s: %s", round+1, s.rounds, mode, c.name)
				r, err := c.measure(ctx, mode, s.options)
				if ctx.Err() != nil {
					fmt.Fprintln(stderr)
					return ctx.Err()
				}
				if err != nil {
					fmt.Fprintf(stderr, ": %v\n", err)
					failed = append(failed, fmt.Errorf("%s, %s: %w", c.name, mode, err))
					continue
				}
				fmt.Fprintf(stderr, ": %.0f/s\n", r.DeliveredPerSecond)
				rep.add(c.name, mode, round, r)
			}
		}
	}
	return errors.Join(failed...)
}
