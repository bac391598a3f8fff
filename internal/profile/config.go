package profile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/wholefile"
	"github.com/claudemesh/claudemesh/internal/wire"
)

const (
	configName    = "config.json"
	configVersion = 1
	maxFile       = 4 << 20
)

// config is the content of config.json.
type config struct {
	Version int     `json:"version"`
	Meshes  []Entry `json:"meshes"`
}

// Entry is a mesh as config.json holds it: whole, or without the secrets that are
// in the keyring.
type Entry struct {
	client.Membership         // without its seeds where Keyring is set
	Keyring           *Marker `json:"keyring,omitempty"`
}

// MemberKey is the member's public key, also where its secret is elsewhere.
func (e *Entry) MemberKey() wire.Key {
	if e.Keyring != nil {
		return e.Keyring.Member
	}
	return e.Membership.MemberKey()
}

// Owns reports whether the owner key of the mesh is kept.
func (e *Entry) Owns() bool {
	return !e.OwnerSeed.IsZero() || (e.Keyring != nil && e.Keyring.Owner)
}

// Meshes reads the joined meshes with their secrets from the file, which other
// processes change, and from the keyring. ErrKeyring.
func (p *Profile) Meshes() ([]client.Membership, error) {
	entries, err := p.Entries()
	if err != nil {
		return nil, err
	}
	var meshes []client.Membership
	for _, e := range entries {
		if err := p.reveal(&e); err != nil {
			return nil, err
		}
		meshes = append(meshes, e.Membership)
	}
	return meshes, nil
}

// Entries reads the joined meshes from the file alone: for what needs no secrets.
func (p *Profile) Entries() ([]Entry, error) {
	path := filepath.Join(p.dir, configName)
	data, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	c, err := parseConfig(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c.Meshes, nil
}

// readPrivate reads a file that nobody else can access. A symbolic link is refused:
// the first change would put a file in its place, and leave the old keys where it led.
func readPrivate(path string) ([]byte, error) {
	named, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if named.Mode()&fs.ModeSymlink != 0 {
		return nil, fmt.Errorf("%s %w; move the file itself there", path, ErrLink)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := checkMode(path, info); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s: %w: it is larger than %d MiB", path, ErrMalformed, maxFile>>20)
	}
	return data, nil
}

// parseVersion reads the version before anything that a later one may have
// changed.
func parseVersion(data []byte, known int) error {
	var head struct {
		Version int `json:"version"`
	}
	if err := wire.Unmarshal(data, &head); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if head.Version > known {
		return fmt.Errorf("%w (version %d, this one knows up to %d)", ErrNewer, head.Version, known)
	}
	if head.Version < 1 {
		return fmt.Errorf("%w: it has no version", ErrMalformed)
	}
	return nil
}

func parseConfig(data []byte) (config, error) {
	if err := parseVersion(data, configVersion); err != nil {
		return config{}, err
	}
	var c config
	if err := wire.Unmarshal(data, &c); err != nil {
		return config{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	for i, m := range c.Meshes {
		if m.MeshID.IsZero() || m.Mesh == "" || m.lacksKey() {
			return config{}, fmt.Errorf("%w: mesh %d lacks id, name or member key", ErrMalformed, i+1)
		}
		if err := admit(c.Meshes[:i], m.Membership); err != nil {
			return config{}, fmt.Errorf("%w: mesh %d: %w", ErrMalformed, i+1, err)
		}
	}
	return c, nil
}

// admit says whether m may stand beside other meshes.
func admit(others []Entry, m client.Membership) error {
	for _, o := range others {
		if o.MeshID == m.MeshID {
			return fmt.Errorf("%w: %s", ErrJoined, o.Mesh)
		}
		if o.Mesh == m.Mesh {
			return fmt.Errorf("%w: %s", ErrNameTaken, m.Mesh)
		}
	}
	return nil
}

// Add stores a new membership. ErrJoined, ErrNameTaken.
func (p *Profile) Add(m client.Membership) error { return p.add(Entry{Membership: m}) }

func (p *Profile) add(e Entry) error {
	return p.change(func(meshes []Entry) ([]Entry, error) {
		if err := admit(meshes, e.Membership); err != nil {
			return nil, err
		}
		return append(meshes, e), nil
	})
}

// Remove deletes a membership, and its secrets from the keyring. ErrNotJoined;
// ErrKeyring when it is deleted here, and they are still there.
func (p *Profile) Remove(meshID wire.ID) error {
	var gone Entry
	err := p.change(func(meshes []Entry) ([]Entry, error) {
		i := slices.IndexFunc(meshes, func(m Entry) bool { return m.MeshID == meshID })
		if i < 0 {
			return nil, ErrNotJoined
		}
		gone = meshes[i]
		return slices.Delete(meshes, i, i+1), nil
	})
	if err != nil || gone.Keyring == nil {
		return err
	}
	return gone.Keyring.forget()
}

// Move sets the address of the broker of all memberships at another one: it is the
// same broker, which listens elsewhere now.
func (p *Profile) Move(from, to string) error {
	return p.change(func(meshes []Entry) ([]Entry, error) {
		for i := range meshes {
			if meshes[i].Broker == from {
				meshes[i].Broker = to
			}
		}
		return meshes, nil
	})
}

// Amend changes what may change of one membership: not its keys or names. ErrNotJoined.
func (p *Profile) Amend(mesh wire.ID, f func(*client.Membership) error) error {
	return p.change(func(meshes []Entry) ([]Entry, error) {
		i := slices.IndexFunc(meshes, func(e Entry) bool { return e.MeshID == mesh })
		if i < 0 {
			return nil, ErrNotJoined
		}
		return meshes, f(&meshes[i].Membership)
	})
}

// change reads, changes and replaces config.json under its lock, so that
// processes do not lose each other's changes.
func (p *Profile) change(f func([]Entry) ([]Entry, error)) (err error) {
	lock, err := p.lock("config.lock")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	meshes, err := p.Entries()
	if err != nil {
		return err
	}
	if meshes, err = f(meshes); err != nil {
		return err
	}
	data, err := marshalConfig(meshes)
	if err != nil {
		return err
	}
	return wholefile.Replace(filepath.Join(p.dir, configName), data)
}

// marshalConfig makes the content of config.json. What cannot be read back must
// not replace what can.
func marshalConfig(meshes []Entry) ([]byte, error) {
	data, err := wire.Marshal(config{Version: configVersion, Meshes: meshes})
	if err != nil {
		return nil, err
	}
	if _, err := parseConfig(data); err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("the configuration would be larger than %d MiB", maxFile>>20)
	}
	return data, nil
}
