package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/wire"
)

const serveHelp = `Serves a broker on one SQLite file, or with others on one Postgres database. The first
start makes the tables and prints an admin token, which founding a mesh asks for.

EXAMPLE
   claudemesh-broker --db mesh.db
   claudemesh-broker --db mesh.db --listen :443 --tls-domain mesh.example.com
   claudemesh-broker --db postgres://mesh@db.example.com/mesh --bus nats://nats.example.com
   claudemesh-broker backup --db mesh.db mesh-backup.db

Every flag can be given as an environment variable, shown in brackets.`

func env(name string) cli.ValueSourceChain { return cli.EnvVars("CLAUDEMESH_BROKER_" + name) }

func serveFlags() []cli.Flag {
	return append(dbFlags(), []cli.Flag{
		&cli.StringFlag{Name: "bus", Usage: "how brokers on one Postgres database tell each other of news: postgres, or a nats:// `URL` (default: postgres)", Sources: env("BUS")},
		&cli.StringFlag{Name: "node", Usage: "this broker's `NAME` among them, which no two share (default: the host's name and the port)", Sources: env("NODE")},
		&cli.StringFlag{Name: "listen", Value: "127.0.0.1:7900", Usage: "`ADDRESS` to listen on", Sources: env("LISTEN")},
		&cli.StringFlag{Name: "public-url", Usage: "how peers reach this broker, `URL`, when a proxy stands before it", Sources: env("PUBLIC_URL")},
		&cli.BoolFlag{Name: "open", Usage: "let anyone found a mesh, without a token", Sources: env("OPEN")},
		&cli.StringFlag{Name: "admin-token", Usage: "use this `TOKEN` from now on (better in the environment than here)", Sources: env("ADMIN_TOKEN")},
		&cli.StringFlag{Name: "admin-token-file", Usage: "use the token in `FILE` from now on", Sources: env("ADMIN_TOKEN_FILE")},
		&cli.StringFlag{Name: "run-file", Usage: "while it serves, say in `FILE` which process it is and where it listens", Sources: env("RUN_FILE")},
		&cli.StringFlag{Name: "tls-domain", Usage: "serve TLS with a certificate that is obtained for `DOMAIN` (needs port 443)", Sources: env("TLS_DOMAIN")},
		&cli.StringFlag{Name: "tls-cache", Usage: "`DIR` for such certificates (default: the database's name with .certs)", Sources: env("TLS_CACHE")},
		&cli.StringFlag{Name: "tls-cert", Usage: "serve TLS with this certificate `FILE`", Sources: env("TLS_CERT")},
		&cli.StringFlag{Name: "tls-key", Usage: "and this key `FILE`", Sources: env("TLS_KEY")},
		&cli.StringFlag{Name: "client-ip-header", Usage: "`HEADER` in which a proxy puts the client's address", Sources: env("CLIENT_IP_HEADER")},
		&cli.StringFlag{Name: "audit", Usage: "keep an audit log, of metadata alone, in `FILE`, or off (default: the database's name with .audit; for Postgres off)", Sources: env("AUDIT")},
		&cli.StringFlag{Name: "log-level", Value: "info", Usage: "debug, info, warn or error", Sources: env("LOG_LEVEL")},
		&cli.StringFlag{Name: "log-format", Usage: "text or json (default: text on a terminal, else json)", Sources: env("LOG_FORMAT")},
	}...)
}

// limit is one flag over one field of broker.Limits.
type limit struct {
	name, usage string
	number      func(*broker.Limits) *int
	number64    func(*broker.Limits) *int64
	duration    func(*broker.Limits) *time.Duration
}

// limits is the one table of limit flags; docs/operations.md is held against it.
var limits = []limit{
	{name: "message-bytes", usage: "bytes of one WebSocket message", number: func(l *broker.Limits) *int { return &l.MessageBytes }},
	{name: "body-bytes", usage: "bytes of one sealed body", number: func(l *broker.Limits) *int { return &l.BodyBytes }},
	{name: "wraps", usage: "recipients of one group message", number: func(l *broker.Limits) *int { return &l.Wraps }},
	{name: "window", usage: "unacknowledged pushes of a connection", number: func(l *broker.Limits) *int { return &l.Window }},
	{name: "window-bytes", usage: "and their bytes", number: func(l *broker.Limits) *int { return &l.WindowBytes }},
	{name: "out-frames", usage: "frames that may wait for a connection before it gets no new pushes", number: func(l *broker.Limits) *int { return &l.OutFrames }},
	{name: "out-bytes", usage: "and their bytes", number: func(l *broker.Limits) *int { return &l.OutBytes }},
	{name: "out-max", usage: "waiting bytes at which a connection is closed", number: func(l *broker.Limits) *int { return &l.OutMax }},
	{name: "sends-per-minute", usage: "messages of one member", number: func(l *broker.Limits) *int { return &l.SendsPerMinute }},
	{name: "send-burst", usage: "messages of one member at once", number: func(l *broker.Limits) *int { return &l.SendBurst }},
	{name: "bytes-per-minute", usage: "bytes of one member", number: func(l *broker.Limits) *int { return &l.BytesPerMinute }},
	{name: "queue-messages", usage: "messages that wait for one recipient; a sender may fill a quarter", number64: func(l *broker.Limits) *int64 { return &l.QueueMessages }},
	{name: "queue-bytes", usage: "and their bytes", number64: func(l *broker.Limits) *int64 { return &l.QueueBytes }},
	{name: "mesh-messages", usage: "messages that wait in one mesh", number64: func(l *broker.Limits) *int64 { return &l.MeshMessages }},
	{name: "mesh-bytes", usage: "and their bytes", number64: func(l *broker.Limits) *int64 { return &l.MeshBytes }},
	{name: "disk-high-water", usage: "percent of the disk in use at which sends are refused", number: func(l *broker.Limits) *int { return &l.DiskHighWater }},
	{name: "preauth-per-address", usage: "unauthenticated sockets of one address", number: func(l *broker.Limits) *int { return &l.PreAuthPerAddress }},
	{name: "preauth", usage: "unauthenticated sockets in all", number: func(l *broker.Limits) *int { return &l.PreAuth }},
	{name: "failures-per-minute", usage: "failed joins and invite look-ups of one address", number: func(l *broker.Limits) *int { return &l.FailuresPerMinute }},
	{name: "hello-timeout", usage: "time an unauthenticated socket has", duration: func(l *broker.Limits) *time.Duration { return &l.HelloTimeout }},
	{name: "write-timeout", usage: "time a write may take before the connection is closed", duration: func(l *broker.Limits) *time.Duration { return &l.WriteTimeout }},
	{name: "lease", usage: "time a recipient has to acknowledge a push", duration: func(l *broker.Limits) *time.Duration { return &l.Lease }},
	{name: "attempts", usage: "failed attempts before a delivery bounces", number: func(l *broker.Limits) *int { return &l.Attempts }},
	{name: "ping-every", usage: "time between pings of a quiet connection", duration: func(l *broker.Limits) *time.Duration { return &l.PingEvery }},
	{name: "gone-after", usage: "silence after which a connection is closed", duration: func(l *broker.Limits) *time.Duration { return &l.GoneAfter }},
	{name: "grace", usage: "time a dropped session counts as online", duration: func(l *broker.Limits) *time.Duration { return &l.Grace }},
	{name: "forget-after", usage: "time after which an unseen session is forgotten", duration: func(l *broker.Limits) *time.Duration { return &l.ForgetAfter }},
	{name: "max-age", usage: "longest lifetime of a message", duration: func(l *broker.Limits) *time.Duration { return &l.MaxAge }},
}

func limitFlags() []cli.Flag {
	var defaults broker.Limits
	defaults = defaults.WithDefaults()
	var flags []cli.Flag
	for _, l := range limits {
		src := env(envName(l.name))
		switch {
		case l.number != nil:
			flags = append(flags, &cli.IntFlag{Name: l.name, Usage: l.usage, Value: *l.number(&defaults), Sources: src, Category: "LIMITS"})
		case l.number64 != nil:
			flags = append(flags, &cli.Int64Flag{Name: l.name, Usage: l.usage, Value: *l.number64(&defaults), Sources: src, Category: "LIMITS"})
		default:
			flags = append(flags, &cli.DurationFlag{Name: l.name, Usage: l.usage, Value: *l.duration(&defaults), Sources: src, Category: "LIMITS"})
		}
	}
	return flags
}

// readLimits takes the flags' values. None may be zero or negative.
func readLimits(c *cli.Command) (broker.Limits, error) {
	var out broker.Limits
	for _, l := range limits {
		ok := false
		switch {
		case l.number != nil:
			*l.number(&out) = c.Int(l.name)
			ok = c.Int(l.name) > 0
		case l.number64 != nil:
			*l.number64(&out) = c.Int64(l.name)
			ok = c.Int64(l.name) > 0
		default:
			*l.duration(&out) = c.Duration(l.name)
			ok = c.Duration(l.name) > 0
		}
		if !ok {
			return out, limitError(l.name)
		}
	}
	if out.MessageBytes > wire.MaxMessageBytes {
		return out, fmt.Errorf("--message-bytes is at most %d, which is what peers read; %w", wire.MaxMessageBytes, errUsage)
	}
	return out, nil
}
