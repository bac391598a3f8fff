package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"
)

// singles makes, after the rounds, what takes long or compares ours with
// itself: idle and fanout once, parked-few and parked-many in turns, then starts.
func singles(ctx context.Context, cs []contender, own *ours, s settings, rep *report, stderr io.Writer) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var failed []error
	if slices.Contains(names(cs), nameOurs) {
		for _, step := range []struct {
			modes []string
			times int
		}{{[]string{modeIdle}, 1}, {[]string{modeFanout}, 1}, {[]string{modeParkedFew, modeParkedMany}, 3}} {
			failed = append(failed, turns(ctx, own, step.modes, step.times, s, rep, stderr))
		}
	}
	if s.wants(modeStart) || s.wants(modeStartParked) {
		failed = append(failed, starts(ctx, cs, own, s, rep, stderr))
	}
	return errors.Join(failed...)
}

// turns runs modes of ours one after the other, several times over; who is
// first changes.
func turns(ctx context.Context, own *ours, modes []string, times int, s settings, rep *report, stderr io.Writer) error {
	var failed []error
	for k := range times {
		for i := range modes {
			mode := modes[(k+i)%len(modes)]
			if !s.wants(mode) {
				continue
			}
			fmt.Fprintf(stderr, "%d of %d, %s: %s", k+1, times, mode, nameOurs)
			r, err := own.run(ctx, mode, s.options)
			if ctx.Err() != nil {
				fmt.Fprintln(stderr)
				return ctx.Err()
			}
			if err != nil {
				fmt.Fprintf(stderr, ": %v\n", err)
				failed = append(failed, fmt.Errorf("%s: %w", mode, err))
				continue
			}
			fmt.Fprintf(stderr, ": %.0f/s\n", r.DeliveredPerSecond)
			r.Mode = mode
			rep.add(nameOurs, mode, k, r)
		}
	}
	return errors.Join(failed...)
}

// starting is who is started, and what that is called.
type starting struct {
	name, mode string
	server     func() booter
	times      []float64 // ms
}

// starts measures the time from exec until a server takes TCP connections:
// everybody with an empty directory, ours also with the parked messages.
func starts(ctx context.Context, cs []contender, own *ours, s settings, rep *report, stderr io.Writer) error {
	var all []*starting
	for _, c := range cs {
		switch {
		case c.name == nameOurs:
			all = append(all, &starting{name: c.name, mode: modeStart, server: func() booter { return &oursBooter{bin: own.bin} }})
			if !s.wants(modeStartParked) {
				continue
			}
			fmt.Fprintf(stderr, "%s: parking\n", modeStartParked)
			if err := own.park(ctx, s.options); err != nil {
				return fmt.Errorf("%s: %w", modeStartParked, err)
			}
			all = append(all, &starting{name: c.name, mode: modeStartParked,
				server: func() booter { return &oursBooter{bin: own.bin, db: own.parkedDB()} }})
		case c.does(modeStart):
			all = append(all, &starting{name: c.name, mode: modeStart, server: func() booter { return c.target() }})
		}
	}
	fmt.Fprintf(stderr, "%d starts of each\n", s.starts)
	for k := range s.starts {
		for i := range all {
			x := all[(k+i)%len(all)]
			ms, err := startOnce(ctx, x.server())
			if err != nil {
				return fmt.Errorf("%s, %s: %w", x.name, x.mode, err)
			}
			x.times = append(x.times, ms)
		}
	}
	for _, x := range all {
		rep.add(x.name, x.mode, 0, result{Mode: x.mode, LatencyMs: quantile(x.times)})
	}
	return nil
}

func startOnce(ctx context.Context, b booter) (ms float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "claudemesh-bench")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	defer b.stop()
	began := time.Now()
	if err := b.boot(ctx, dir); err != nil {
		return 0, err
	}
	return float64(time.Since(began)) / 1e6, nil
}
