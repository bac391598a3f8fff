package profile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/wholefile"
)

// Kept is what a restore has moved out of its way: a file or a directory.
type Kept struct{ Place, Now string }

// Restore puts a snapshot in the place of the profile's meshes and seats, and
// returns where it has kept what was there. With toKeyring the keyring takes the
// secrets; what it holds of the old meshes stays in it. The caller holds Alone.
// After an error all is as before. ErrKeyring.
func (p *Profile) Restore(s Snapshot, toKeyring bool, at time.Time) (kept []Kept, err error) {
	entries, err := hideAll(s.Meshes, toKeyring)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, forgetAll(entries))
		}
	}()
	data, err := marshalConfig(entries)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"config.lock", seatsLock} {
		lock, err := p.lock(name)
		if err != nil {
			return nil, err
		}
		defer lock.Close() // it was taken to exclude others, and nothing is lost with it
	}
	old := p.keptName(at)
	kept, back, err := p.swapSeats(s.Seats, old)
	if err != nil {
		return nil, err
	}
	keptConfig, err := p.swapConfig(data, old)
	if err != nil {
		return nil, errors.Join(err, back())
	}
	return append(kept, keptConfig...), nil
}

// hideAll makes entries of meshes: whole, or with their secrets in the keyring.
func hideAll(meshes []client.Membership, toKeyring bool) (entries []Entry, err error) {
	for _, m := range meshes {
		e := Entry{Membership: m}
		if toKeyring {
			if e, err = hide(m); err != nil {
				return nil, errors.Join(err, forgetAll(entries))
			}
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func forgetAll(entries []Entry) (err error) {
	for _, e := range entries {
		if e.Keyring != nil {
			err = errors.Join(err, e.Keyring.forget())
		}
	}
	return err
}

// keptName is the end of the names under which this restore keeps what it replaces.
func (p *Profile) keptName(at time.Time) string {
	base := ".before-restore-" + at.UTC().Format("20060102T150405Z")
	name := base
	for n := 2; exists(filepath.Join(p.dir, configName+name)) || exists(filepath.Join(p.dir, seatsName+name)); n++ {
		name = base + "-" + strconv.Itoa(n)
	}
	return name
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// swapSeats writes the seats beside the old ones and puts them into their place;
// back undoes that.
func (p *Profile) swapSeats(seats []SeatCopy, old string) (kept []Kept, back func() error, err error) {
	place := filepath.Join(p.dir, seatsName)
	next, err := os.MkdirTemp(p.dir, seatsName+".tmp-*") // of mode 0700
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(next) // gone already after a success
	for _, c := range seats {
		dir := filepath.Join(next, c.Mesh.String())
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, nil, err
		}
		if err := wholefile.Replace(filepath.Join(dir, c.name), c.data); err != nil {
			return nil, nil, err
		}
	}
	back = func() error { return os.RemoveAll(place) }
	switch err := os.Rename(place, place+old); {
	case err == nil:
		kept = []Kept{{place, place + old}}
		back = func() error { return errors.Join(os.RemoveAll(place), os.Rename(place+old, place)) }
	case !errors.Is(err, fs.ErrNotExist):
		return nil, nil, err
	}
	if err := os.Rename(next, place); err != nil {
		return nil, nil, errors.Join(err, back())
	}
	return kept, back, nil
}

// swapConfig replaces config.json after copying it, so that there always is one.
func (p *Profile) swapConfig(data []byte, old string) ([]Kept, error) {
	place := filepath.Join(p.dir, configName)
	have, err := readPrivate(place)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, wholefile.Replace(place, data)
	}
	if err != nil {
		return nil, err
	}
	if err := wholefile.Replace(place+old, have); err != nil {
		return nil, err
	}
	return []Kept{{place, place + old}}, wholefile.Replace(place, data)
}
