package profile

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/gofrs/flock"
)

// Announce says that this process stays connected and carries the outbox,
// until release is called or it dies: it holds a lock that others share.
func (p *Profile) Announce() (release func() error, err error) {
	l := p.runningLock()
	if err := l.RLock(); err != nil {
		return nil, fmt.Errorf("announce this process: %w", err)
	}
	return l.Close, nil
}

// Running reports whether a process that has announced itself is alive.
func (p *Profile) Running() bool {
	l := p.runningLock()
	free, err := l.TryLock()
	_ = l.Close()
	return err == nil && !free
}

func (p *Profile) runningLock() *flock.Flock {
	return flock.New(filepath.Join(p.dir, "running.lock"), flock.SetPermissions(0o600))
}

// Alone keeps processes from announcing themselves until release is called.
// ErrRunning while there is one.
func (p *Profile) Alone() (release func() error, err error) {
	l := p.runningLock()
	free, err := l.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", l.Path(), err)
	}
	if !free {
		return nil, errors.Join(ErrRunning, l.Close())
	}
	return l.Close, nil
}
