package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// ours is claudemesh-broker, which makes its load itself: its bench command
// starts a broker in a process of its own for each mode and speaks to it as
// package client does.
type ours struct {
	root string // the repository
	bin  string // the program, once built
}

func (o *ours) absent() string {
	if _, err := exec.LookPath("go"); err != nil {
		return "there is no go command to build it with"
	}
	return ""
}

// build builds the broker as make build does, into dir.
func (o *ours) build(ctx context.Context, dir string) error {
	bin := filepath.Join(dir, "claudemesh-broker")
	cmd := exec.CommandContext(ctx, "go", "build", "-C", o.root, "-trimpath", "-o", bin, "./cmd/claudemesh-broker")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w: %s", err, out)
	}
	o.bin = bin
	return nil
}

// Modes of ours alone, and those that compare it with itself.
const (
	modeIdle        = "idle"
	modeFanout      = "fanout"
	modeParkedFew   = "parked-few"
	modeParkedMany  = "parked-many"
	modeStart       = "start"
	modeStartParked = "start-parked"
)

// allModes are the loads in the order in which they are printed.
func allModes() []string {
	return append(slices.Clone(roundModes), modeIdle, modeFanout, modeParkedFew, modeParkedMany, modeStart, modeStartParked)
}

// fewParked is what waits in mode parked-few.
const fewParked = 1000

// run runs the broker's own load in one mode.
func (o *ours) run(ctx context.Context, mode string, opt options) (result, error) {
	within := 5 * time.Minute
	if mode == modeIdle || mode == modeParkedMany {
		within = 10 * time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	cmd := exec.CommandContext(ctx, o.bin, append([]string{"bench", "--json"}, o.args(mode, opt)...)...)
	var words tail
	cmd.Stderr = &words
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it ends its broker
	cmd.WaitDelay = 15 * time.Second
	out, err := cmd.Output()
	if err != nil {
		return result{}, fmt.Errorf("%w: %s", err, &words)
	}
	var printed struct {
		Results []result `json:"results"`
	}
	if err := json.Unmarshal(out, &printed); err != nil {
		return result{}, err
	}
	if len(printed.Results) != 1 {
		return result{}, errors.New("no figures")
	}
	return printed.Results[0], nil
}

// args names a load to the broker's bench command.
func (o *ours) args(mode string, opt options) []string {
	messages, name := opt.messages, mode
	var more []string
	switch mode {
	case "pingpong":
		messages = opt.pingpongs // it makes at least a thousand rounds
	case "backlog":
		more = []string{"--backlog", strconv.Itoa(opt.backlog)}
	case modeIdle:
		more = []string{"--idle", strconv.Itoa(opt.idle)}
	case modeFanout:
		more = []string{"--fanout", "200"}
	case modeParkedFew:
		name, more = "parked", []string{"--parked", strconv.Itoa(fewParked), "--parked-in", filepath.Join(filepath.Dir(o.bin), "few.db")}
	case modeParkedMany:
		name, more = "parked", []string{"--parked", strconv.Itoa(opt.parked), "--parked-in", o.parkedDB()}
	}
	return append([]string{"--mode", name, "--peers", strconv.Itoa(opt.peers), "--messages", strconv.Itoa(messages),
		"--window", strconv.Itoa(opt.window), "--size", strconv.Itoa(opt.size), "--rate", strconv.Itoa(opt.rate),
		"--open-for", opt.openFor.String()}, more...)
}

// parkedDB is the database of mode parked-many, which mode start-parked opens again.
func (o *ours) parkedDB() string { return filepath.Join(filepath.Dir(o.bin), "many.db") }

// park fills it.
func (o *ours) park(ctx context.Context, opt options) error {
	opt.peers, opt.messages = 2, 1
	_, err := o.run(ctx, modeParkedMany, opt)
	return err
}

// oursBooter starts the broker without a load.
type oursBooter struct {
	bin  string
	db   string // "": a new one
	proc *process
}

func (b *oursBooter) stop() { b.proc.stop() }

func (b *oursBooter) boot(ctx context.Context, dir string) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	db := b.db
	if db == "" {
		db = filepath.Join(dir, "mesh.db")
	}
	addr := "127.0.0.1:" + strconv.Itoa(port)
	if b.proc, err = launch(ctx, nil, nil, b.bin, "--db", db, "--listen", addr, "--open", "--log-level", "error"); err != nil {
		return err
	}
	return b.proc.listening(ctx, addr)
}
