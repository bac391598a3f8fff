package profile

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/gofrs/flock"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wholefile"
	"github.com/claudemesh/claudemesh/internal/wire"
)

const (
	seatsName   = "seats"
	seatVersion = 1
	maxSeats    = 256 // sessions of one mesh in one directory
	// seatsLock is held while a seat is taken or all are removed. It is not in
	// the directory of the mesh, which comes and goes.
	seatsLock = "seats.lock"
)

// Seat is one place of a mesh in a directory. A session that starts there gets
// the lowest free one, and with it the key, the label and the queue of the
// session that had it before. It is held until Close or the process's end.
type Seat struct {
	Number int // 1, 2, ..
	Label  string
	Key    trust.SecretKey
	Dir    string // absolute and free of symbolic links
	lock   *flock.Flock
}

// Close frees the seat.
func (s *Seat) Close() error { return s.lock.Close() }

// SeatInfo is what is stored of a seat, held or not.
type SeatInfo struct {
	Number  int
	Label   string
	Key     wire.Key
	Dir     string
	Mailbox string // the mailbox its key is bound to
}

// seatFile is the content of a seat's file.
type seatFile struct {
	Version int           `json:"version"`
	Dir     string        `json:"dir"` // to be read by people; the file's name decides
	Seat    int           `json:"seat"`
	Label   string        `json:"label"`
	Seed    client.Secret `json:"seed"`
	Mailbox string        `json:"mailbox"`
}

func (f *seatFile) info() SeatInfo {
	return SeatInfo{f.Seat, f.Label, trust.SecretKeyFromSeed(f.Seed).Public(), f.Dir, f.Mailbox}
}

func (p *Profile) seatsDir(mesh wire.ID) string {
	return filepath.Join(p.dir, seatsName, mesh.String())
}

// place returns the one name of a directory and how its seats' files begin.
func place(cwd string) (dir, prefix string, err error) {
	if dir, err = filepath.Abs(cwd); err != nil {
		return "", "", err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return "", "", err
	}
	sum := sha256.Sum256([]byte(dir))
	return dir, hex.EncodeToString(sum[:8]) + "-", nil
}

// TakeSeat takes the lowest free seat of a mesh in a directory. A key that is
// bound to another mailbox is drawn anew: what it had seen is lost. A name, if
// given, becomes the label; else the stored label stays, or one is made from the
// directory's name.
func (p *Profile) TakeSeat(mesh wire.ID, cwd, mailboxID, name string) (_ *Seat, err error) {
	if name != "" && !trust.ValidName(name) {
		return nil, fmt.Errorf("%q cannot be a name: it must match [a-z0-9][a-z0-9._-]{0,31}", name)
	}
	dir, prefix, err := place(cwd)
	if err != nil {
		return nil, err
	}
	all, err := p.lock(seatsLock)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, all.Close()) }()
	if err := os.MkdirAll(p.seatsDir(mesh), 0o700); err != nil {
		return nil, err
	}
	for n := 1; n <= maxSeats; n++ {
		base := filepath.Join(p.seatsDir(mesh), prefix+strconv.Itoa(n))
		lock := flock.New(base+".lock", flock.SetPermissions(0o600))
		got, err := lock.TryLock()
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", lock.Path(), err)
		}
		if !got {
			continue
		}
		f, err := p.sit(mesh, base+".json", seatFile{Dir: dir, Seat: n, Mailbox: mailboxID}, name)
		if err != nil {
			return nil, errors.Join(err, lock.Close())
		}
		return &Seat{Number: n, Label: f.Label, Key: trust.SecretKeyFromSeed(f.Seed), Dir: dir, lock: lock}, nil
	}
	return nil, fmt.Errorf("%d sessions of this mesh run in %s already", maxSeats, dir)
}

// sit completes want with what the seat's file holds, and stores it if it differs.
func (p *Profile) sit(mesh wire.ID, path string, want seatFile, name string) (seatFile, error) {
	have, err := readSeat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return seatFile{}, err
	}
	want.Version = seatVersion
	if want.Seed = have.Seed; have.Mailbox != want.Mailbox || have.Seed.IsZero() {
		want.Seed = trust.NewSecretKey().Seed()
	}
	switch {
	case name != "":
		want.Label = name
		if want.Seat > 1 {
			want.Label = numbered(name, want.Seat)
		}
	case have.Label != "":
		want.Label = have.Label
	default:
		taken, err := p.labels(mesh, path)
		if err != nil {
			return seatFile{}, err
		}
		want.Label = freeLabel(baseLabel(want.Dir), want.Seat, taken)
	}
	want.Dir = strings.ToValidUTF8(want.Dir, "\uFFFD") // JSON holds no other bytes
	if want == have {
		return want, nil
	}
	data, err := wire.Marshal(want)
	if err != nil {
		return seatFile{}, err
	}
	return want, wholefile.Replace(path, data)
}

func readSeat(path string) (f seatFile, err error) {
	data, err := readPrivate(path)
	if err != nil {
		return seatFile{}, err
	}
	if f, err = parseSeat(data); err != nil {
		return seatFile{}, fmt.Errorf("%s: %w; delete it to get a new seat with a new key", path, err)
	}
	if !strings.HasSuffix(path, "-"+strconv.Itoa(f.Seat)+".json") {
		return seatFile{}, fmt.Errorf("%s: %w: it is the file of seat %d; delete it to get a new seat with a new key", path, ErrMalformed, f.Seat)
	}
	return f, nil
}

func parseSeat(data []byte) (f seatFile, err error) {
	if err := parseVersion(data, seatVersion); err != nil {
		return f, err
	}
	if err := wire.Unmarshal(data, &f); err != nil {
		return f, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if f.Seat < 1 || f.Seed.IsZero() || !trust.ValidName(f.Label) {
		return f, fmt.Errorf("%w: it lacks seat, key or label", ErrMalformed)
	}
	return f, nil
}

// Seats returns the stored seats of a mesh in a directory, by number. Whether a
// session holds one is not said: to find out would take the seat's lock, and a
// session that starts at that moment would miss its seat.
func (p *Profile) Seats(mesh wire.ID, cwd string) ([]SeatInfo, error) {
	_, prefix, err := place(cwd)
	if err != nil {
		return nil, err
	}
	return p.list(mesh, prefix)
}

// AllSeats returns the stored seats of a mesh, by directory and number.
func (p *Profile) AllSeats(mesh wire.ID) ([]SeatInfo, error) { return p.list(mesh, "") }

func (p *Profile) list(mesh wire.ID, prefix string) (list []SeatInfo, err error) {
	paths, err := p.seatPaths(mesh, prefix)
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		f, err := readSeat(path)
		if errors.Is(err, fs.ErrNotExist) { // removed meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, f.info())
	}
	slices.SortFunc(list, func(a, b SeatInfo) int {
		if c := strings.Compare(a.Dir, b.Dir); c != 0 {
			return c
		}
		return a.Number - b.Number
	})
	return list, nil
}

func (p *Profile) seatPaths(mesh wire.ID, prefix string) (paths []string, err error) {
	entries, err := os.ReadDir(p.seatsDir(mesh))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) && strings.HasSuffix(e.Name(), ".json") {
			paths = append(paths, filepath.Join(p.seatsDir(mesh), e.Name()))
		}
	}
	return paths, err
}

// RemoveSeats deletes the seats of a mesh that was left. A session that still
// holds one keeps it, but nothing of it remains.
func (p *Profile) RemoveSeats(mesh wire.ID) (err error) {
	all, err := p.lock(seatsLock)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, all.Close()) }()
	return os.RemoveAll(p.seatsDir(mesh))
}
