package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/internal/move"
)

const migrateHelp = `Moves the broker's database from a SQLite file to Postgres, or back, with all that
waits in it. No broker may run on either. The source is only read. The target must
be empty; a move that was cut off goes on when the same command is given again. At
the end both are read and compared, table by table. A broker can be started on
the target only then.

EXAMPLE
   claudemesh-broker migrate --from mesh.db --to postgres://mesh@db.example.com/mesh --dry-run
   claudemesh-broker migrate --from mesh.db --to postgres://mesh@db.example.com/mesh
   claudemesh-broker migrate --from-file database-url --to mesh.db`

func migrateCommand() *cli.Command {
	return &cli.Command{
		Name: "migrate", Usage: "move the database from a file to Postgres, or back", Description: migrateHelp,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "the database that is there: a SQLite file, or a postgres:// URL; `FILE`"},
			&cli.StringFlag{Name: "from-file", Usage: "read its URL from `FILE`, which keeps its password out of sight"},
			&cli.StringFlag{Name: "to", Usage: "the new database, likewise; `FILE`"},
			&cli.StringFlag{Name: "to-file", Usage: "read its URL from `FILE`"},
			&cli.BoolFlag{Name: "dry-run", Usage: "say what would be moved, and change nothing"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object"},
			&cli.BoolFlag{Name: "quiet", Usage: "print nothing but errors"},
		},
		Action: migrate,
	}
}

// migrated is the JSON of a move.
type migrated struct {
	From    string  `json:"from"`
	To      string  `json:"to"`
	DryRun  bool    `json:"dryRun"`
	Seconds float64 `json:"seconds"`
	move.Report
}

func migrate(ctx context.Context, c *cli.Command) error {
	if err := noArguments(c); err != nil {
		return err
	}
	from, err := readNamed(c, "from")
	if err != nil {
		return err
	}
	to, err := readNamed(c, "to")
	if err != nil {
		return err
	}
	if from.name() == "" || to.name() == "" {
		return fmt.Errorf("migrate takes --from and --to; %w", errUsage)
	}
	if c.Bool("json") && c.Bool("quiet") {
		return fmt.Errorf("--json and --quiet: choose; %w", errUsage)
	}
	o := move.Options{DryRun: c.Bool("dry-run")}
	b := &bar{w: c.Root().ErrWriter, terminal: isTerminal(c.Root().ErrWriter)}
	if !c.Bool("json") && !c.Bool("quiet") {
		o.Progress = b.show
	}
	began := time.Now()
	report, err := move.Run(ctx, from.name(), to.name(), o)
	b.end()
	if errors.Is(err, context.Canceled) {
		return errors.New("stopped; give the same command again to go on")
	}
	if err != nil {
		return err
	}
	m := migrated{from.String(), to.String(), o.DryRun, time.Since(began).Seconds(), report}
	switch {
	case c.Bool("quiet"):
		return nil
	case c.Bool("json"):
		return json.NewEncoder(c.Root().Writer).Encode(m)
	}
	return m.print(c.Root().Writer)
}

func (m *migrated) print(w io.Writer) error {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	head := "table\trows\tSHA-256"
	if m.DryRun {
		head = "table\trows"
	}
	fmt.Fprintln(tab, head)
	for _, t := range m.Tables {
		fmt.Fprintf(tab, "%s\t%d", t.Name, t.Rows)
		if t.SHA256 != "" {
			fmt.Fprintf(tab, "\t%s", t.SHA256)
		}
		fmt.Fprintln(tab)
	}
	if err := tab.Flush(); err != nil {
		return err
	}
	if m.DryRun {
		_, err := fmt.Fprintf(w, "\n%s takes %d bytes. %d rows are in %s already. Nothing was changed.\n", m.From, m.Bytes, m.Found, m.To)
		return err
	}
	_, err := fmt.Fprintf(w, `
%d rows moved in %.1f s (%d were there before); both databases hold the same.
Start the broker on the new one:
   claudemesh-broker --db %s
Keep %s until you have seen that it works, and start no broker on it: what is
sent to one of the two is not in the other.
`, m.Moved, m.Seconds, m.Found, m.To, m.From)
	return err
}
