package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/bus"
	"github.com/claudemesh/claudemesh/internal/postgres"
	"github.com/claudemesh/claudemesh/internal/sqlite"
)

// dbFlags name the database; every command that opens it has them.
func dbFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "db", Value: "mesh.db", Usage: "the database: a SQLite file, or a postgres:// URL; `FILE`", Sources: env("DB")},
		&cli.StringFlag{Name: "db-file", Usage: "read the database's URL from `FILE`, which keeps its password out of sight", Sources: env("DB_FILE")},
	}
}

// database is what --db and --db-file name: a SQLite file, or a Postgres URL.
type database struct{ file, url string }

func readDatabase(c *cli.Command) (database, error) { return readNamed(c, "db") }

// soleDatabase reads the database of a command that takes nothing else.
func soleDatabase(c *cli.Command) (database, error) {
	if err := noArguments(c); err != nil {
		return database{}, err
	}
	return readDatabase(c)
}

// readNamed reads a database that two flags name: one itself, one, with -file, in a file.
func readNamed(c *cli.Command, flag string) (database, error) {
	db := c.String(flag)
	if path := c.String(flag + "-file"); path != "" {
		if c.IsSet(flag) && db != "" { // empty sets the default of a container aside
			return database{}, fmt.Errorf("--%[1]s and --%[1]s-file: choose; %w", flag, errUsage)
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return database{}, fmt.Errorf("--%s-file: %w", flag, err)
		}
		if db = strings.TrimSpace(string(raw)); !postgres.IsURL(db) {
			return database{}, fmt.Errorf("--%s-file: %s holds no postgres:// URL", flag, path)
		}
	}
	return parseDatabase(flag, db)
}

// parseDatabase tells a file from a URL. Another scheme is a mistake and no file name.
func parseDatabase(flag, db string) (database, error) {
	if postgres.IsURL(db) {
		return database{url: db}, nil
	}
	if scheme, _, ok := strings.Cut(db, "://"); ok {
		return database{}, fmt.Errorf("--%s is a SQLite file or a postgres:// URL, not %s://; %w", flag, scheme, errUsage)
	}
	return database{file: db}, nil
}

// String names the database without what may be secret, be it the password or a parameter.
func (d database) String() string {
	if d.url == "" {
		return d.file
	}
	u, err := url.Parse(d.url)
	if err != nil {
		return "postgres"
	}
	return "postgres://" + cmp.Or(u.Host, u.Query().Get("host")) + u.Path
}

// open opens the store of a broker.
func (d database) open(ctx context.Context, log *slog.Logger, onFatal func(error)) (broker.Store, error) {
	if d.url != "" {
		return postgres.Open(ctx, d.url, postgres.Options{Logger: log})
	}
	return sqlite.Open(ctx, d.file, sqlite.Options{Logger: log, OnFatal: onFatal})
}

// name is what package move calls the database.
func (d database) name() string { return d.file + d.url } // one is empty

// check looks for damage.
func (d database) check(ctx context.Context) error {
	if d.url != "" {
		return postgres.Check(ctx, d.url)
	}
	return sqlite.Check(ctx, d.file)
}

func (d database) resetToken(ctx context.Context, hash [32]byte) error {
	if d.url != "" {
		return postgres.ResetToken(ctx, d.url, hash)
	}
	return sqlite.ResetToken(ctx, d.file, hash)
}

// diskUsage measures the disk of a file; a server's is its operator's to watch.
func (d database) diskUsage() func() (int, error) {
	if d.url != "" {
		return nil
	}
	return func() (int, error) { return diskUsage(d.file) }
}

// cluster is the broker's part among those that share the database; zero for a
// file, which has one broker.
func (d database) cluster(c *cli.Command, ln net.Listener, log *slog.Logger, onFatal func(error)) (broker.ClusterConfig, error) {
	spec, node := c.String("bus"), c.String("node")
	if d.url == "" {
		if spec != "" || node != "" {
			return broker.ClusterConfig{}, fmt.Errorf("--bus and --node are for brokers that share a Postgres database; %w", errUsage)
		}
		return broker.ClusterConfig{}, nil
	}
	if spec == "" {
		spec = "postgres"
	}
	b, err := bus.Open(spec, d.url, log)
	if err != nil {
		return broker.ClusterConfig{}, err
	}
	if node == "" {
		node = defaultNode(ln)
	}
	return broker.ClusterConfig{Node: node, Bus: b, OnReplaced: onFatal}, nil
}

// defaultNode is the host's name and the port: the same after a restart, so that
// the broker then takes its own place at once.
func defaultNode(ln net.Listener) string {
	host, err := os.Hostname()
	if err != nil {
		host = "broker"
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return host + ":" + port
}

// schemaCommand brings a Postgres schema up to date.
func schemaCommand() *cli.Command {
	return &cli.Command{
		Name: "schema", Usage: "bring the database's schema up to date, and exit",
		Description: "Every broker does so when it starts; of several that start at once one does and the others\nwait. A job of its own keeps long migrations out of a roll-out.\n\nEXAMPLE\n   claudemesh-broker schema --db-file database-url",
		Flags:       dbFlags(),
		Action: func(ctx context.Context, c *cli.Command) error {
			db, err := soleDatabase(c)
			if err != nil {
				return err
			}
			s, err := db.open(ctx, slog.New(slog.DiscardHandler), nil)
			if err != nil {
				return err
			}
			if err := s.Close(); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.Root().Writer, "%s: the schema is up to date\n", db)
			return err
		},
	}
}
