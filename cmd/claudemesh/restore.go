package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/backup"
	"github.com/claudemesh/claudemesh/internal/profile"
	"github.com/claudemesh/claudemesh/internal/render"
)

func (a *app) restoreCommand() *cli.Command {
	return command(spec{
		name: "restore", usage: "put the keys and seats of a backup in the place of those here", args: "FILE", min: 1, max: 1,
		about: "Shows what the backup holds and what it would replace, and asks. What is replaced is kept beside it.\n" +
			"It refuses while sessions run. One identity is for one machine: stop the other one first.",
		example: "claudemesh restore keys.backup --dry-run\nclaudemesh restore keys.backup --passphrase-stdin --yes <passphrase.txt",
		flags: []cli.Flag{
			passphraseFlag(), keyringFlag(), yesFlag(),
			&cli.BoolFlag{Name: "dry-run", Usage: "only show what would be done"},
		},
		run: a.runRestore,
	})
}

// restored is what restore prints.
type restored struct {
	DryRun    bool           `json:"dryRun"`
	CreatedAt *string        `json:"createdAt"` // of the backup
	Meshes    []restoredMesh `json:"meshes"`
	Seats     int            `json:"seats"`
	Dropped   []string       `json:"dropped"` // meshes here that the backup lacks
	Kept      []kept         `json:"kept"`
}

type restoredMesh struct {
	backupMesh
	Here string `json:"here"` // new, same or other: whether it was joined here, and as whom
}

type kept struct {
	Place string `json:"place"` // what was replaced
	Now   string `json:"now"`   // where it is now
}

// opened is the content of a backup.
type opened struct {
	made     time.Time
	snapshot profile.Snapshot
	memories map[client.ID]memory
}

func (a *app) runRestore(ctx context.Context, c *cli.Command) error {
	if a.mesh != "" {
		return usagef("a restore puts back every mesh").hinted("leave --mesh away")
	}
	sealed, err := readBackup(c.Args().First())
	if err != nil {
		return err
	}
	p, err := a.profile()
	if err != nil {
		return err
	}
	dry := c.Bool("dry-run")
	if !dry && p.Running() {
		return profile.ErrRunning
	}
	b, err := a.openBackup(ctx, sealed, c.Bool("passphrase-stdin"))
	if err != nil {
		return err
	}
	out, err := a.planRestore(p, b)
	if err != nil {
		return err
	}
	out.DryRun = dry
	if !a.json {
		a.showRestore(out)
	}
	if !dry {
		const reason = "this replaces the keys here, and there is no terminal to ask on"
		if err := a.ask(ctx, c.Bool("yes"), reason, "Restore it?"); err != nil {
			return err
		}
		if out.Kept, err = putBack(ctx, p, b, c.Bool("keyring")); err != nil {
			return err
		}
	}
	if a.json {
		a.printJSON(out)
	} else if !dry {
		a.tellRestored(out)
	}
	return nil
}

// readBackup reads the file, which is checked as what it is when it is opened.
func readBackup(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, backup.MaxFile+1))
}

// openBackup asks for the passphrase and reads all that the backup holds, so that
// nothing of it can fail later.
func (a *app) openBackup(ctx context.Context, sealed []byte, fromInput bool) (b opened, err error) {
	fd, attended := a.terminal()
	var passphrase string
	switch {
	case fromInput:
		passphrase, err = a.readPassphrase(ctx)
	case attended:
		passphrase, err = a.secret(ctx, "passphrase of the backup: ", fd)
	default:
		err = usagef("there is no terminal to ask for the passphrase on").hinted("--passphrase-stdin <FILE")
	}
	if err != nil {
		return b, err
	}
	a.deriving()
	archive, err := backup.Open(sealed, passphrase)
	if err != nil {
		return b, err
	}
	b.made = archive.At()
	if b.snapshot, err = profile.ParseSnapshot(archive); err == nil {
		b.memories, err = parseMemories(archive)
	}
	if err != nil && !errors.Is(err, profile.ErrNewer) { // no hint to repair a file that is here
		err = &failure{code: "bad_backup", exit: exitFailed, text: err.Error(), hint: "another backup"}
	}
	return b, err
}

// planRestore compares a backup with what is here.
func (a *app) planRestore(p *profile.Profile, b opened) (restored, error) {
	out := restored{CreatedAt: stamp(b.made), Meshes: []restoredMesh{}, Seats: len(b.snapshot.Seats), Dropped: []string{}, Kept: []kept{}}
	here, err := p.Entries()
	if errors.Is(err, profile.ErrMalformed) || errors.Is(err, profile.ErrNewer) { // a reason to restore
		a.note("what is here cannot be read, and is kept: %s", render.Visible(err.Error()))
	} else if err != nil {
		return out, err
	}
	at := func(id client.ID) int {
		return slices.IndexFunc(here, func(e profile.Entry) bool { return e.MeshID == id })
	}
	for _, m := range b.snapshot.Meshes {
		r := restoredMesh{backupMeshOf(m), "new"}
		if i := at(m.MeshID); i >= 0 {
			r.Here = "other"
			if here[i].MemberKey() == m.MemberKey() {
				r.Here = "same"
			}
		}
		out.Meshes = append(out.Meshes, r)
	}
	for _, e := range here {
		if !slices.ContainsFunc(b.snapshot.Meshes, func(m client.Membership) bool { return m.MeshID == e.MeshID }) {
			out.Dropped = append(out.Dropped, e.Mesh)
		}
	}
	return out, nil
}

// putBack does it: what must not be forgotten first, the keys last.
func putBack(ctx context.Context, p *profile.Profile, b opened, toKeyring bool) (old []kept, err error) {
	release, err := p.Alone()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, release()) }()
	box, err := client.OpenMailbox(ctx, p.MailboxPath())
	if err != nil {
		return nil, err
	}
	for mesh, m := range b.memories {
		if err := m.remind(ctx, box, mesh); err != nil {
			return nil, errors.Join(err, box.Close())
		}
	}
	if err := box.Close(); err != nil {
		return nil, err
	}
	moved, err := p.Restore(b.snapshot, toKeyring, time.Now())
	if err != nil {
		return nil, err
	}
	old = []kept{}
	for _, k := range moved {
		old = append(old, kept{k.Place, k.Now})
	}
	return old, p.RememberBackup(b.snapshot, b.made)
}

func (a *app) showRestore(out restored) {
	made, _ := time.Parse(time.RFC3339, *out.CreatedAt)
	a.printf("a backup of %s with %s and %s\n", made.Local().Format("2006-01-02 15:04"), plural(len(out.Meshes), "membership"), plural(out.Seats, "seat"))
	rows := [][]string{{"MESH", "MEMBER", "ROLE", "OWNER KEY", "HERE"}}
	for _, m := range out.Meshes {
		key := map[bool]string{true: "yes", false: "-"}[m.OwnerKey]
		here := map[string]string{"new": "not joined", "same": "replaced by the same key", "other": "replaced, another key"}[m.Here]
		rows = append(rows, []string{render.Line(m.Mesh), render.Line(m.Member), render.Line(m.Role), key, here})
	}
	for _, mesh := range out.Dropped {
		rows = append(rows, []string{mesh, "-", "-", "-", "taken away: the backup lacks it"})
	}
	a.table(rows)
	fmt.Fprintln(a.errw, "Two machines with one identity fight: each gets a part of what is sent to you, and sessions of one seat\n"+
		"take each other's connections away. Where these keys are in use on another machine, stop it first, for good.")
}

func (a *app) tellRestored(out restored) {
	a.printf("restored %s\n", plural(len(out.Meshes), "membership"))
	for _, k := range out.Kept {
		a.printf("kept: %s\n", k.Now)
	}
	if len(out.Kept) > 0 {
		a.printf("to undo it, give them their old names while no session runs; they hold keys, so delete them when all is well\n")
	}
	a.printf("next: claudemesh doctor\n")
}
