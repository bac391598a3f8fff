package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/backup"
	"github.com/claudemesh/claudemesh/internal/profile"
	"github.com/claudemesh/claudemesh/internal/wholefile"
	"github.com/claudemesh/claudemesh/internal/words"
)

// passphraseWords is how many words a generated passphrase has: 66 bits of chance.
const passphraseWords = 6

func (a *app) backupCommand() *cli.Command {
	return command(spec{
		name: "backup", usage: "write your keys and seats into one file, sealed with a passphrase", args: "FILE", min: 1, max: 1,
		about: "Holds every mesh that was joined, with the member's and the owner's keys from wherever they are, the\n" +
			"seats, and what is known of members and removals, grants and blocks. It holds no messages. The passphrase is\n" +
			"asked for on the terminal, or six words are made for you; without it the backup is of no use to anybody.",
		example: "claudemesh backup keys.backup\nclaudemesh backup keys.backup --passphrase-stdin <passphrase.txt",
		flags: []cli.Flag{
			passphraseFlag(),
			&cli.BoolFlag{Name: "generate", Usage: "make a passphrase of six words and show it once"},
			&cli.BoolFlag{Name: "low-memory", Usage: "derive the key in 64 MiB and not in 256 MiB"},
			&cli.BoolFlag{Name: "force", Usage: "replace FILE if it is there"},
		},
		run: a.runBackup,
	})
}

func passphraseFlag() cli.Flag {
	return &cli.BoolFlag{Name: "passphrase-stdin", Usage: "read the passphrase from the first line of standard input"}
}

// backedUp is what backup prints.
type backedUp struct {
	File      string       `json:"file"`
	Bytes     int          `json:"bytes"`
	CreatedAt *string      `json:"createdAt"`
	Meshes    []backupMesh `json:"meshes"`
	Seats     int          `json:"seats"`
}

// backupMesh is a mesh of a backup.
type backupMesh struct {
	Mesh     string `json:"mesh"`
	MeshID   string `json:"meshId"`
	Member   string `json:"member"`
	Role     string `json:"role"`
	OwnerKey bool   `json:"ownerKey"`
}

func backupMeshOf(m client.Membership) backupMesh {
	return backupMesh{m.Mesh, m.MeshID.String(), m.Member, m.Role, !m.OwnerSeed.IsZero()}
}

func (a *app) runBackup(ctx context.Context, c *cli.Command) error {
	file := c.Args().First()
	switch {
	case a.mesh != "":
		return usagef("a backup holds every mesh").hinted("leave --mesh away")
	case c.Bool("generate") && c.Bool("passphrase-stdin"):
		return usagef("--generate makes a passphrase, --passphrase-stdin reads one: say one")
	}
	if err := checkTarget(file, c.Bool("force")); err != nil {
		return err
	}
	p, err := a.profile()
	if err != nil {
		return err
	}
	snapshot, archive, err := collect(ctx, p, time.Now())
	if err != nil {
		return err
	}
	passphrase, err := a.newPassphrase(ctx, c.Bool("passphrase-stdin"), c.Bool("generate"))
	if err != nil {
		return err
	}
	cost := backup.Standard
	if c.Bool("low-memory") {
		cost = backup.LowMemory
	}
	a.deriving()
	sealed, err := backup.Seal(archive, passphrase, cost)
	if err != nil {
		return err
	}
	if err := wholefile.Replace(file, sealed); err != nil {
		return err
	}
	if err := p.RememberBackup(snapshot, archive.At()); err != nil {
		return err
	}
	out := backedUp{File: file, Bytes: len(sealed), CreatedAt: stampMs(archive.Created), Seats: len(snapshot.Seats)}
	for _, m := range snapshot.Meshes {
		out.Meshes = append(out.Meshes, backupMeshOf(m))
	}
	a.showBackedUp(out)
	return nil
}

// collect gathers what goes into a backup.
func collect(ctx context.Context, p *profile.Profile, now time.Time) (s profile.Snapshot, archive backup.Archive, err error) {
	if s, err = p.Snapshot(); err != nil {
		return s, archive, err
	}
	if len(s.Meshes) == 0 {
		return s, archive, errNothingJoined
	}
	archive.Created = now.UnixMilli()
	if archive.Entries, err = s.Entries(); err != nil {
		return s, archive, err
	}
	more, err := memories(ctx, p.MailboxPath(), s.Meshes)
	archive.Entries = append(archive.Entries, more...)
	return s, archive, err
}

func (a *app) showBackedUp(out backedUp) {
	if a.json {
		a.printJSON(out)
		return
	}
	for _, m := range out.Meshes {
		key := ""
		if m.OwnerKey {
			key = ", with its owner key"
		}
		a.printf("%s: the keys of %s%s\n", m.Mesh, m.Member, key)
	}
	a.printf("backed up %s and %s to %s\n", plural(len(out.Meshes), "membership"), plural(out.Seats, "seat"), out.File)
	a.printf("keep it on another machine; to get them back: claudemesh restore FILE\n")
}

// checkTarget refuses a place where a backup would destroy something, or go
// somewhere else than it says: a link would be replaced by the file, not followed.
func checkTarget(file string, force bool) error {
	info, err := os.Lstat(file)
	f := &failure{code: "file_exists", exit: exitRefused, hint: "another name"}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		f.text, f.hint = file+" is a symbolic link", "the name of the file itself"
	case !info.Mode().IsRegular():
		f.text = file + " is not a file"
	case force:
		return nil
	default:
		f.text, f.hint = file+" is there already", "another name, or --force to replace it"
	}
	return f
}

// newPassphrase reads one, makes one, or asks for one twice.
func (a *app) newPassphrase(ctx context.Context, fromInput, generate bool) (passphrase string, err error) {
	fd, attended := a.terminal()
	switch {
	case fromInput:
		passphrase, err = a.readPassphrase(ctx)
	case generate:
		return a.generated(), nil
	case !attended:
		return "", usagef("there is no terminal to ask for a passphrase on").hinted("--passphrase-stdin, or --generate")
	default:
		passphrase, err = a.secret(ctx, fmt.Sprintf("a passphrase of at least %d characters (Enter: six words are made for you): ", backup.MinPassphrase), fd)
		if err == nil && passphrase == "" {
			return a.generated(), nil
		}
	}
	if err == nil {
		err = backup.CheckPassphrase(passphrase)
	}
	if err != nil || fromInput {
		return passphrase, err
	}
	again, err := a.secret(ctx, "the same again: ", fd)
	if err == nil && again != passphrase {
		err = &failure{code: "declined", exit: exitFailed, text: "the two differ; nothing was written", hint: "the command again"}
	}
	return passphrase, err
}

// generated makes a passphrase and shows it, to a person and not among the results.
func (a *app) generated() string {
	passphrase := strings.Join(words.Random(passphraseWords), "-")
	fmt.Fprintf(a.errw, "passphrase   %s\nWrite it down: it is not shown again, and without it the backup is of no use to anybody.\n", passphrase)
	return passphrase
}

func (a *app) readPassphrase(ctx context.Context) (string, error) {
	line, ok, err := firstLine(a.input(ctx))
	if err == nil && !ok {
		err = usagef("standard input holds no passphrase").hinted("--passphrase-stdin <FILE")
	}
	return line, err
}

// deriving says why nothing seems to happen.
func (a *app) deriving() {
	if _, ok := a.terminal(); ok {
		a.note("deriving the key from the passphrase ...")
	}
}

// offerBackup asks the founder of a mesh, where there is one to ask, for a place
// for a backup; without an answer it says the command.
func (a *app) offerBackup(ctx context.Context) {
	if _, ok := a.terminal(); ok {
		file, err := a.question(ctx, "a file for a backup of your keys, which nobody else can restore (Enter: later)")
		if err == nil && file != "" && a.again(ctx, a.in, a.errw, "backup", "--", file) == nil {
			return
		}
	}
	a.printf("nobody else can restore them; back them up: claudemesh backup FILE\n")
}
