package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/internal/sqlite"
)

func backupCommand() *cli.Command {
	return &cli.Command{
		Name: "backup", Usage: "copy the database, also while the broker runs", ArgsUsage: "FILE",
		Description: "Writes a consistent, checked copy to FILE, which must not exist. A broker starts on it as it is.\nA Postgres database is backed up by its own tools, such as pg_dump.\n\nEXAMPLE\n   claudemesh-broker backup --db mesh.db mesh-backup.db",
		Flags:       dbFlags(),
		Action: func(ctx context.Context, c *cli.Command) error {
			if c.Args().Len() != 1 {
				return fmt.Errorf("backup takes the file to write; %w", errUsage)
			}
			db, err := readDatabase(c)
			if err != nil {
				return err
			}
			if db.url != "" {
				return fmt.Errorf("%s: a Postgres database is backed up by pg_dump, or by its server's archive; see docs/operations.md", db)
			}
			if err := sqlite.Backup(ctx, db.file, c.Args().First()); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.Root().Writer, "backup written and checked: %s\n", c.Args().First())
			return err
		},
	}
}

func checkCommand() *cli.Command {
	return &cli.Command{
		Name: "check", Usage: "check the database's integrity, also while the broker runs",
		Description: "Exits 1 and lists what is wrong. Restore the last backup then.\n\nEXAMPLE\n   claudemesh-broker check --db mesh.db",
		Flags:       dbFlags(),
		Action: func(ctx context.Context, c *cli.Command) error {
			db, err := soleDatabase(c)
			if err != nil {
				return err
			}
			if err := db.check(ctx); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.Root().Writer, "%s is whole\n", db)
			return err
		},
	}
}

func healthCommand() *cli.Command {
	return &cli.Command{
		Name: "health", Usage: "ask a running broker whether it is ready: exit 0 or 1",
		Description: "For container health checks.\n\nEXAMPLE\n   claudemesh-broker health --url http://127.0.0.1:7900",
		Flags:       []cli.Flag{&cli.StringFlag{Name: "url", Value: "http://127.0.0.1:7900", Usage: "the broker's `URL`"}},
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := noArguments(c); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(c.String("url"), "/")+"/health/ready", nil)
			if err != nil {
				return err
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
			if resp.StatusCode != http.StatusOK {
				return fmt.Errorf("not ready: %s", body)
			}
			_, err = fmt.Fprintf(c.Root().Writer, "%s\n", body)
			return err
		},
	}
}

func tokenCommand() *cli.Command {
	return &cli.Command{
		Name: "token", Usage: "the admin token, which founding a mesh asks for",
		Commands: []*cli.Command{{
			Name: "reset", Usage: "draw a new admin token and print it, also while the broker runs",
			Description: "The old token is void at once. Only the new one's hash is stored.\n\nEXAMPLE\n   claudemesh-broker token reset --db mesh.db",
			Flags:       dbFlags(),
			Action: func(ctx context.Context, c *cli.Command) error {
				db, err := soleDatabase(c)
				if err != nil {
					return err
				}
				token := rand.Text()
				if err := db.resetToken(ctx, sha256.Sum256([]byte(token))); err != nil {
					return err
				}
				_, err = fmt.Fprintln(c.Root().Writer, token)
				return err
			},
		}},
		Action: func(_ context.Context, c *cli.Command) error {
			return fmt.Errorf("token has one command, reset; %w", errUsage)
		},
	}
}
