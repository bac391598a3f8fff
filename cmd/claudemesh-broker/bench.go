package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/bench"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// benchLimits are raised for a broker under load; they are printed with the figures.
var benchLimits = []string{
	"--sends-per-minute=1000000000", "--send-burst=1000000000", "--bytes-per-minute=1000000000000",
	"--queue-messages=10000000", "--queue-bytes=100000000000", "--mesh-messages=10000000", "--mesh-bytes=100000000000",
	"--preauth-per-address=1000", "--disk-high-water=100",
}

func benchCommand() *cli.Command {
	return &cli.Command{
		Name: "bench", Usage: "measure a broker with real peers and real envelopes",
		Description: `Starts a broker on a temporary file, or on Postgres, with raised limits, in a process of its own,
connects peers to it and prints what it does. With --url and --link the load goes to
a broker that runs already; its CPU and memory are then not seen.

EXAMPLE
   claudemesh-broker bench
   claudemesh-broker bench --mode storm --peers 100 --messages 300 --window 32 --json
   claudemesh-broker bench --mode pingpong --db postgres:///postgres --nodes 2`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "mode", Value: "pingpong,serial,storm,open,fanout", Usage: "`MODES`, with commas: " + strings.Join(bench.Modes, ", ")},
			&cli.IntFlag{Name: "peers", Value: 100, Usage: "connected sessions"},
			&cli.IntFlag{Name: "messages", Value: 300, Usage: "messages of each"},
			&cli.IntFlag{Name: "window", Value: 32, Usage: "unacknowledged messages of each"},
			&cli.IntFlag{Name: "size", Value: 400, Usage: "bytes of a message"},
			&cli.IntFlag{Name: "rate", Value: 2000, Usage: "messages/s of mode open"},
			&cli.DurationFlag{Name: "open-for", Value: 20 * time.Second, Usage: "how long mode open lasts"},
			&cli.IntSliceFlag{Name: "backlog", Value: []int{1_000, 100_000}, Usage: "messages that wait for one peer in mode backlog, one run each"},
			&cli.IntSliceFlag{Name: "idle", Value: []int{1_000, 9_000}, Usage: "silent sessions of mode idle, likewise"},
			&cli.IntSliceFlag{Name: "fanout", Value: []int{10, 50, 200}, Usage: "recipients of a message in mode fanout, likewise"},
			&cli.IntFlag{Name: "parked", Value: 1_000_000, Usage: "messages for sessions that are away, queued during mode parked"},
			&cli.StringFlag{Name: "parked-in", Usage: "keep mode parked's database in `FILE`; what is parked there already is used again"},
			&cli.StringFlag{Name: "db", Usage: "measure on a Postgres server, in a database of its own that is dropped afterwards; `URL`"},
			&cli.IntFlag{Name: "nodes", Value: 1, Usage: "brokers on that database; the peers are spread over them"},
			&cli.StringFlag{Name: "bus", Value: "postgres", Usage: "how they tell each other of news: postgres, or a nats:// `URL`"},
			&cli.StringFlag{Name: "seal", Value: "pre", Usage: "pre: envelopes are sealed before the clock starts; live: sealing and opening are measured too"},
			&cli.StringFlag{Name: "inbox", Value: "memory", Usage: "memory or disk: where the load's peers keep their mailboxes"},
			&cli.StringFlag{Name: "url", Usage: "load the broker at `URL` instead of one of its own"},
			&cli.StringFlag{Name: "link", Usage: "an invite link to a mesh there (better in the environment than here)", Sources: cli.EnvVars("CLAUDEMESH_BENCH_LINK")},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object"},
		},
		Action: runBench,
	}
}

func runBench(ctx context.Context, c *cli.Command) error {
	if err := noArguments(c); err != nil {
		return err
	}
	modes := strings.Split(c.String("mode"), ",")
	for _, m := range modes {
		if !slices.Contains(bench.Modes, m) {
			return fmt.Errorf("unknown mode %q; %w", m, errUsage)
		}
	}
	o := bench.Options{
		Peers: c.Int("peers"), Messages: c.Int("messages"), Window: c.Int("window"), Size: c.Int("size"), Rate: c.Int("rate"),
		OpenFor: c.Duration("open-for"), Live: c.String("seal") == "live", Progress: c.Root().ErrWriter,
		Backlogs: c.IntSlice("backlog"), Idles: c.IntSlice("idle"), Fanouts: c.IntSlice("fanout"), Parked: c.Int("parked"),
	}
	if slices.Min(slices.Concat(o.Backlogs, o.Idles, o.Fanouts, []int{o.Parked})) < 1 || slices.Max(append(o.Fanouts, 0)) > wire.MaxWraps {
		return fmt.Errorf("--backlog, --idle, --fanout and --parked are above zero, --fanout at most %d; %w", wire.MaxWraps, errUsage)
	}
	if o.Peers < 2 || o.Messages < 1 || o.Window < 1 || o.Size < 1 || o.Size > wire.MaxBodyBytes || o.Rate < 1 {
		return fmt.Errorf("bench needs two peers or more, a message, a window, a rate, and a size of at most %d; %w", wire.MaxBodyBytes, errUsage)
	}
	if n := c.Int("nodes"); n < 1 || n > 1 && c.String("db") == "" {
		return fmt.Errorf("--nodes is above zero, and more than one needs --db; %w", errUsage)
	}
	dir, err := os.MkdirTemp("", "claudemesh-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if c.String("inbox") == "disk" {
		o.Disk = dir
	}
	var results []bench.Result
	for _, m := range modes {
		r, err := benchOnce(ctx, c, o, m, dir)
		results = append(results, r...)
		if err != nil {
			return errors.Join(err, printBench(c, results))
		}
	}
	return printBench(c, results)
}

// benchOnce runs one mode, on a fresh broker unless --url names one.
func benchOnce(ctx context.Context, c *cli.Command, o bench.Options, mode, dir string) ([]bench.Result, error) {
	if url := c.String("url"); url != "" {
		if mode == "parked" {
			return nil, fmt.Errorf("mode parked fills the database of a broker of its own, without --url; %w", errUsage)
		}
		inv, err := client.LookUp(ctx, c.String("link"), true)
		if err != nil {
			return nil, err
		}
		if o.Membership, err = inv.Join(ctx, fmt.Sprintf("bench-%d", time.Now().UnixNano()%1e9)); err != nil {
			return nil, err
		}
		o.Membership.Broker = url
		return bench.Run(ctx, mode, o)
	}
	db := filepath.Join(dir, mode+".db")
	if server := c.String("db"); server != "" {
		var drop func()
		var err error
		if db, o.Postgres, drop, err = benchDatabase(ctx, server); err != nil {
			return nil, err
		}
		defer drop()
	}
	if mode == "parked" {
		if kept := c.String("parked-in"); kept != "" {
			db = kept
		}
		if err := park(ctx, db, o); err != nil {
			return nil, err
		}
	}
	brokers, err := startBrokers(ctx, c, db, c.Int("nodes"))
	if err != nil {
		return nil, err
	}
	for i, b := range brokers {
		defer b.stop()
		if i > 0 {
			o.More = append(o.More, bench.Node{URL: b.url, Process: b.process(db)})
		}
	}
	if o.Membership, err = client.Found(ctx, brokers[0].url, "", "bench", "bench"); err != nil {
		return nil, err
	}
	o.Broker = brokers[0].process(db)
	return bench.Run(ctx, mode, o)
}

// park fills a database before a broker has it.
func park(ctx context.Context, db string, o bench.Options) error {
	d, err := parseDatabase("db", db)
	if err != nil {
		return err
	}
	s, err := d.open(ctx, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return err
	}
	return errors.Join(bench.Park(ctx, s, o.Parked, o.Size, o.Progress), s.Close())
}

func printBench(c *cli.Command, results []bench.Result) error {
	out := c.Root().Writer
	if c.Bool("json") {
		raw, err := wire.Marshal(map[string]any{"limits": benchLimits, "results": results})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(out, "%s\n", raw)
		return err
	}
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "MODE\tPEERS\tMESSAGES\tACCEPTED/S\tDELIVERED/S\tP50\tP95\tP99 MS\tACK P50\tP99 MS\tCPU US/MSG\tPEAK MIB")
	for _, r := range results {
		fmt.Fprintf(w, "%s\t%d\t%d\t%.0f\t%.0f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.1f\t%.1f\n", r.Mode, r.Peers, r.Messages,
			r.AcceptedPerSecond, r.DeliveredPerSecond, r.LatencyMs.P50, r.LatencyMs.P95, r.LatencyMs.P99,
			r.AckLatencyMs.P50, r.AckLatencyMs.P99, r.BrokerCPUMicros, float64(r.BrokerPeakRSS)/(1<<20))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, r := range results {
		for _, f := range r.Extra {
			fmt.Fprintf(out, "%s: %s %.2f %s\n", r.Mode, f.Name, f.Value, f.Unit)
		}
	}
	_, err := fmt.Fprintf(out, "limits: %s\n", strings.Join(benchLimits, " "))
	return err
}
