// Package profile is the ~/.claudemesh directory: the meshes that were joined
// with their secret keys, and the seats that sessions take. Several processes
// share it: what changes a file holds a lock, and files are replaced whole, so
// that a reader needs none.
package profile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/gofrs/flock"
)

// EnvDir names the environment variable that overrides the directory.
const EnvDir = "CLAUDEMESH_CONFIG_DIR"

// Errors of a Profile.
var (
	ErrJoined    = errors.New("this mesh was joined already")
	ErrNameTaken = errors.New("another mesh has this name")
	ErrNotJoined = errors.New("this mesh was not joined")
	ErrNewer     = errors.New("it was written by a newer claudemesh; update claudemesh")
	ErrMalformed = errors.New("it is malformed")
	ErrRunning   = errors.New("sessions of this profile run")
	ErrLink      = errors.New("is a symbolic link")
	// ErrKeyring: the keyring is locked or absent, or does not hold what it should.
	ErrKeyring = errors.New("the OS keyring does not serve")
)

// Profile is one profile directory.
type Profile struct {
	dir string

	mu       sync.Mutex         // guards the following
	revealed map[string]secrets // what the keyring gave, by account: it may ask a person each time
}

// DefaultDir returns the directory to use: that of CLAUDEMESH_CONFIG_DIR, else
// ~/.claudemesh. A shell may have inherited a variable whose directory is gone;
// then the default is returned with a warning.
func DefaultDir(getenv func(string) string, home func() (string, error)) (dir, warning string, err error) {
	env := getenv(EnvDir)
	if env != "" {
		fault := unusable(env)
		if fault == "" {
			return filepath.Clean(env), "", nil
		}
		warning = fmt.Sprintf("%s=%s is ignored: %s", EnvDir, env, fault)
	}
	h, err := home()
	if err != nil {
		return "", warning, fmt.Errorf("find the home directory: %w", err)
	}
	return filepath.Join(h, ".claudemesh"), warning, nil
}

// unusable says what is wrong with a directory from the environment.
func unusable(dir string) string {
	if !filepath.IsAbs(dir) {
		return "it is not an absolute path"
	}
	if parent, err := os.Stat(filepath.Dir(filepath.Clean(dir))); err != nil || !parent.IsDir() {
		return "its parent directory does not exist"
	}
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return "it is not a directory"
	}
	return ""
}

// Open opens the profile in dir and makes the directory, with mode 0700, if
// there is none. It refuses one that other users can access.
func Open(dir string) (*Profile, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if err := checkMode(dir, info); err != nil {
		return nil, err
	}
	return &Profile{dir: dir}, nil
}

// At is the profile in dir, which is neither made nor looked at.
func At(dir string) *Profile { return &Profile{dir: dir} }

// Dir returns the directory, absolute.
func (p *Profile) Dir() string { return p.dir }

// MailboxPath returns the file of the mailbox.
func (p *Profile) MailboxPath() string { return filepath.Join(p.dir, "mailbox.db") }

// HookLog returns the file of what hooks of an agent failed at.
func (p *Profile) HookLog() string { return filepath.Join(p.dir, "hooks.log") }

// checkMode refuses what group or others can access: everything here holds or
// leads to secret keys.
func checkMode(path string, info fs.FileInfo) error {
	if runtime.GOOS == "windows" { // access is a matter of ACLs there, and modes are made up
		return nil
	}
	mode := info.Mode().Perm()
	if mode&0o077 == 0 {
		return nil
	}
	what, want := "file", "600"
	if info.IsDir() {
		what, want = "directory", "700"
	}
	return fmt.Errorf("the %s %s is open to other users (mode %04o); run: chmod %s '%s'", what, path, mode, want, path)
}

// lock waits for the exclusive lock of the profile with this name. The kernel
// drops it with the process.
func (p *Profile) lock(name string) (*flock.Flock, error) {
	l := flock.New(filepath.Join(p.dir, name), flock.SetPermissions(0o600))
	if err := l.Lock(); err != nil {
		return nil, fmt.Errorf("lock %s: %w", l.Path(), err)
	}
	return l, nil
}
