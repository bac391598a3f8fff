package profile

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/backup"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// Snapshot is what a backup holds of a profile: the meshes with all secrets, from
// wherever these are, and the seats.
type Snapshot struct {
	Meshes []client.Membership
	Seats  []SeatCopy
}

// SeatCopy is the file of a seat.
type SeatCopy struct {
	Mesh wire.ID
	SeatInfo
	name string
	data []byte
}

// seatName is the name of a seat's file: 16 digits of its directory's hash, its number.
var seatName = regexp.MustCompile(`^[0-9a-f]{16}-[1-9][0-9]{0,2}\.json$`)

// Snapshot reads the meshes and the seats of each. ErrKeyring.
func (p *Profile) Snapshot() (s Snapshot, err error) {
	if s.Meshes, err = p.Meshes(); err != nil {
		return s, err
	}
	for _, m := range s.Meshes {
		paths, err := p.seatPaths(m.MeshID, "")
		if err != nil {
			return s, err
		}
		for _, path := range paths {
			data, err := readPrivate(path)
			if errors.Is(err, fs.ErrNotExist) { // removed meanwhile
				continue
			}
			if err != nil {
				return s, err
			}
			c, err := parseSeatCopy(m.MeshID, filepath.Base(path), data)
			if err != nil {
				return s, fmt.Errorf("%s: %w; delete it to get a new seat with a new key", path, err)
			}
			s.Seats = append(s.Seats, c)
		}
	}
	return s, nil
}

func parseSeatCopy(mesh wire.ID, name string, data []byte) (SeatCopy, error) {
	f, err := parseSeat(data)
	if err != nil {
		return SeatCopy{}, err
	}
	if !seatName.MatchString(name) || !strings.HasSuffix(name, "-"+strconv.Itoa(f.Seat)+".json") {
		return SeatCopy{}, fmt.Errorf("%w: %s is not the file of seat %d", ErrMalformed, name, f.Seat)
	}
	return SeatCopy{mesh, f.info(), name, data}, nil
}

// Entries are the files of a snapshot.
func (s Snapshot) Entries() ([]backup.Entry, error) {
	var entries []Entry
	for _, m := range s.Meshes {
		entries = append(entries, Entry{Membership: m})
	}
	data, err := marshalConfig(entries)
	if err != nil {
		return nil, err
	}
	files := []backup.Entry{{Name: configName, Mode: 0o600, Data: data}}
	for _, c := range s.Seats {
		files = append(files, backup.Entry{Name: seatsName + "/" + c.Mesh.String() + "/" + c.name, Mode: 0o600, Data: c.data})
	}
	return files, nil
}

// ParseSnapshot reads the files of a snapshot out of an archive, and leaves the
// others. ErrMalformed, ErrNewer, backup.ErrNoEntry.
func ParseSnapshot(a backup.Archive) (s Snapshot, err error) {
	data, err := a.Find(configName)
	if err != nil {
		return s, err
	}
	c, err := parseConfig(data)
	if err != nil {
		return s, fmt.Errorf("%s of the backup: %w", configName, err)
	}
	for _, e := range c.Meshes {
		if e.Keyring != nil {
			return s, fmt.Errorf("%s of the backup: %w: it lacks the keys of %s", configName, ErrMalformed, e.Mesh)
		}
		s.Meshes = append(s.Meshes, e.Membership)
	}
	for _, f := range a.Entries {
		rest, ok := strings.CutPrefix(f.Name, seatsName+"/")
		if !ok {
			continue
		}
		dir, name, _ := strings.Cut(rest, "/")
		var mesh wire.ID
		if err := mesh.UnmarshalText([]byte(dir)); err != nil {
			return s, fmt.Errorf("%s of the backup: %w: %w", f.Name, ErrMalformed, err)
		}
		seat, err := parseSeatCopy(mesh, name, f.Data)
		if err != nil {
			return s, fmt.Errorf("%s of the backup: %w", f.Name, err)
		}
		s.Seats = append(s.Seats, seat)
	}
	return s, nil
}
