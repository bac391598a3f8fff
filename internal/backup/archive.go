package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"
	"time"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// Archive is what a backup holds.
type Archive struct {
	Created int64   `json:"created"` // Unix ms
	Entries []Entry `json:"entries"`
}

// Entry is one file of an archive.
type Entry struct {
	Name string      `json:"name"` // like config.json or seats/MESH/FILE.json: below a directory, parted by slashes
	Mode fs.FileMode `json:"mode"` // permissions, none of them for other users
	Data []byte      `json:"data"`
}

const (
	maxEntries = 100_000
	maxName    = 200
)

// part is one step of an entry's name: no file system reads it as a way out, and
// none takes two of them for one.
var part = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*(\.[a-z0-9_-]+)*$`)

// ErrNoEntry says that an archive lacks a file.
var ErrNoEntry = errors.New("the backup has no such file")

// At returns when the archive was made.
func (a Archive) At() time.Time { return time.UnixMilli(a.Created) }

// Find returns the content of an entry. ErrNoEntry.
func (a Archive) Find(name string) ([]byte, error) {
	for _, e := range a.Entries {
		if e.Name == name {
			return e.Data, nil
		}
	}
	return nil, fmt.Errorf("%w: %s", ErrNoEntry, name)
}

func (a Archive) check() error {
	if len(a.Entries) > maxEntries {
		return fmt.Errorf("%w: it has %d files", ErrFormat, len(a.Entries))
	}
	seen := make(map[string]bool, len(a.Entries))
	for _, e := range a.Entries {
		switch {
		case !safeName(e.Name):
			return fmt.Errorf("%w: %.200q is no name of a file in it", ErrFormat, e.Name)
		case seen[e.Name]:
			return fmt.Errorf("%w: %s is in it twice", ErrFormat, e.Name)
		case e.Mode&^0o700 != 0:
			return fmt.Errorf("%w: %s has mode %04o", ErrFormat, e.Name, e.Mode)
		}
		seen[e.Name] = true
	}
	return nil
}

func safeName(name string) bool {
	if len(name) > maxName {
		return false
	}
	for step := range strings.SplitSeq(name, "/") {
		if !part.MatchString(step) {
			return false
		}
	}
	return true
}

func (a Archive) encode() ([]byte, error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	return wire.Marshal(a)
}

func decode(plain []byte) (a Archive, err error) {
	if err := wire.Unmarshal(plain, &a); err != nil {
		return Archive{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if err := a.check(); err != nil {
		return Archive{}, err
	}
	return a, nil
}
