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
	Version int                 `json:"version"`
	Meshes  []client.Membership `json:"meshes"`
}

// Meshes reads the joined meshes from the file, which other processes change.
func (p *Profile) Meshes() ([]client.Membership, error) {
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

// readPrivate reads a file that nobody else can access.
func readPrivate(path string) ([]byte, error) {
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
		if m.MeshID.IsZero() || m.Mesh == "" || m.MemberSeed.IsZero() {
			return config{}, fmt.Errorf("%w: mesh %d lacks id, name or member key", ErrMalformed, i+1)
		}
		if err := admit(c.Meshes[:i], m); err != nil {
			return config{}, fmt.Errorf("%w: mesh %d: %w", ErrMalformed, i+1, err)
		}
	}
	return c, nil
}

// admit says whether m may stand beside other meshes.
func admit(others []client.Membership, m client.Membership) error {
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
func (p *Profile) Add(m client.Membership) error {
	return p.change(func(meshes []client.Membership) ([]client.Membership, error) {
		if err := admit(meshes, m); err != nil {
			return nil, err
		}
		return append(meshes, m), nil
	})
}

// Remove deletes a membership. ErrNotJoined.
func (p *Profile) Remove(meshID wire.ID) error {
	return p.change(func(meshes []client.Membership) ([]client.Membership, error) {
		i := slices.IndexFunc(meshes, func(m client.Membership) bool { return m.MeshID == meshID })
		if i < 0 {
			return nil, ErrNotJoined
		}
		return slices.Delete(meshes, i, i+1), nil
	})
}

// Move sets the address of the broker of all memberships at another one: it is the
// same broker, which listens elsewhere now.
func (p *Profile) Move(from, to string) error {
	return p.change(func(meshes []client.Membership) ([]client.Membership, error) {
		for i := range meshes {
			if meshes[i].Broker == from {
				meshes[i].Broker = to
			}
		}
		return meshes, nil
	})
}

// change reads, changes and replaces config.json under its lock, so that
// processes do not lose each other's changes.
func (p *Profile) change(f func([]client.Membership) ([]client.Membership, error)) (err error) {
	lock, err := p.lock("config.lock")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	meshes, err := p.Meshes()
	if err != nil {
		return err
	}
	if meshes, err = f(meshes); err != nil {
		return err
	}
	data, err := wire.Marshal(config{Version: configVersion, Meshes: meshes})
	if err != nil {
		return err
	}
	// What cannot be read back must not replace what can.
	if _, err := parseConfig(data); err != nil {
		return err
	}
	if len(data) > maxFile {
		return fmt.Errorf("the configuration would be larger than %d MiB", maxFile>>20)
	}
	return wholefile.Replace(filepath.Join(p.dir, configName), data)
}
