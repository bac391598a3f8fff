package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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

// run runs the broker's own load in one mode.
func (o *ours) run(ctx context.Context, mode string, opt options) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	messages := opt.messages
	if mode == "pingpong" {
		messages = opt.pingpongs // it makes at least a thousand rounds
	}
	cmd := exec.CommandContext(ctx, o.bin, "bench", "--json", "--mode", mode,
		"--peers", strconv.Itoa(opt.peers), "--messages", strconv.Itoa(messages), "--window", strconv.Itoa(opt.window),
		"--size", strconv.Itoa(opt.size), "--rate", strconv.Itoa(opt.rate), "--open-for", opt.openFor.String())
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
