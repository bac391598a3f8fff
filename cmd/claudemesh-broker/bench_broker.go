package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/internal/bench"
	"github.com/claudemesh/claudemesh/internal/postgres"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// benchDatabase makes a database of the bench's own on the server of a
// Postgres URL, so that nothing there is touched. drop removes it again.
func benchDatabase(ctx context.Context, server string) (db string, pid int, drop func(), err error) {
	u, err := url.Parse(server)
	if err != nil || !postgres.IsURL(server) {
		return "", 0, nil, fmt.Errorf("--db is the postgres:// URL of a server; %w", errUsage)
	}
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return "", 0, nil, err
	}
	defer conn.Close(ctx)
	name := fmt.Sprintf("claudemesh_bench_%d", os.Getpid())
	quoted := pgx.Identifier{name}.Sanitize()
	if _, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+quoted+" WITH (FORCE)"); err != nil {
		return "", 0, nil, err
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+quoted); err != nil {
		return "", 0, nil, err
	}
	drop = func() {
		ctx := context.WithoutCancel(ctx)
		if conn, err := pgx.Connect(ctx, server); err == nil {
			_, _ = conn.Exec(ctx, "DROP DATABASE "+quoted+" WITH (FORCE)")
			_ = conn.Close(ctx)
		}
	}
	u.Path = "/" + name
	var backend int
	if err := conn.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&backend); err != nil {
		drop()
		return "", 0, nil, err
	}
	if u.Hostname() == "" || u.Hostname() == "127.0.0.1" || u.Hostname() == "localhost" {
		pid = bench.ServerOf(backend)
	}
	return u.String(), pid, drop, nil
}

// benchBroker is one that the bench has started.
type benchBroker struct {
	*exec.Cmd
	url string
}

func (b benchBroker) stop() { _ = b.Process.Signal(os.Interrupt); _ = b.Wait() }

// process is what can be seen of it.
func (b benchBroker) process(db string) bench.Process {
	base := strings.TrimSuffix(strings.Replace(b.url, "ws", "http", 1), wire.PathWS)
	return bench.Process{PID: b.Process.Pid, Metrics: base + "/metrics", DB: db}
}

// startBrokers starts this very program as so many brokers on one database.
func startBrokers(ctx context.Context, c *cli.Command, db string, nodes int) (out []benchBroker, err error) {
	for n := range nodes {
		args := []string{"--db", db, "--listen", "127.0.0.1:0", "--open", "--log-level", "error"}
		if postgres.IsURL(db) {
			args = append(args, "--node", fmt.Sprintf("bench-%d", n), "--bus", c.String("bus"))
		}
		b, err := startBroker(ctx, append(args, benchLimits...))
		if err != nil {
			for _, b := range out {
				b.stop()
			}
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

// startBroker starts a broker and waits until it listens.
func startBroker(ctx context.Context, args []string) (b benchBroker, err error) {
	self, err := os.Executable()
	if err != nil {
		return b, err
	}
	b.Cmd = exec.CommandContext(ctx, self, args...)
	b.Stderr = os.Stderr
	out, err := b.StdoutPipe()
	if err != nil {
		return b, err
	}
	if err := b.Start(); err != nil {
		return b, err
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if url, ok := strings.CutPrefix(lines.Text(), "listening on "); ok {
			b.url = url
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return b, nil
		}
	}
	return b, errors.Join(errors.New("the broker did not start"), b.Wait())
}
