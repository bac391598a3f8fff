// Package disktest is a disk for SQLite, for tests: at a power cut it forgets what
// was not synced, and it can be full. It is a SQLite VFS over the system's own.
//
// A write stays in memory until the file is synced and only then reaches the
// real file, which thus always holds what a cut leaves. The same goes for names:
// what was created or deleted lasts once SQLite has synced the directory. Locks
// and shared memory are the system's.
package disktest

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"sync"
)

// Kind says what a file is to SQLite.
type Kind string

// The files of a database.
const (
	Database Kind = "database"
	WAL      Kind = "wal"
	Journal  Kind = "journal" // of a file that is not yet in WAL mode
)

// Action is what SQLite does to a file.
type Action string

// What changes a disk, or makes a change last.
const (
	Write    Action = "write"
	Truncate Action = "truncate"
	Sync     Action = "sync"
	Delete   Action = "delete"
)

// Op is one action, before it is done.
type Op struct {
	Action Action
	File   Kind
}

// Disk is one disk: it holds the files of databases in one directory.
type Disk struct {
	name string // of the VFS
	vfs  vfs

	mu      sync.Mutex // guards the following
	files   map[string]*file
	removed map[string][]byte // deleted, and back after a cut: no sync of the directory since
	open    int               // handles
	dark    chan struct{}     // closed by the cut
	trip    func(Op) bool
	full    bool
	room    int64 // by which files may grow while full
}

// file is what the system has of a file: its content as everybody reads it, and
// what of it a cut would take.
type file struct {
	kind    Kind
	data    []byte
	pending []change // since the last sync
	linked  bool     // its name outlasts a cut
}

// change is one write, or a truncation when data is nil.
type change struct {
	at   int64
	data []byte
}

// New registers a disk as a SQLite VFS. Close unregisters it.
func New() (*Disk, error) {
	d := &Disk{files: map[string]*file{}, removed: map[string][]byte{}, dark: make(chan struct{})}
	if err := d.register(); err != nil {
		return nil, err
	}
	return d, nil
}

// Name is the VFS's name, for the vfs parameter of a data source name.
func (d *Disk) Name() string { return d.name }

// Dark is closed when the power is cut.
func (d *Disk) Dark() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dark
}

// CutAt cuts the power before the first operation for which trip holds. trip is called
// for one operation at a time and must not use the disk. nil waits for Cut.
func (d *Disk) CutAt(trip func(Op) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.trip = trip
}

// Cut cuts the power now: from here on every operation fails and none counts.
func (d *Disk) Cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cut()
}

func (d *Disk) cut() {
	if !d.isDark() {
		close(d.dark)
	}
}

func (d *Disk) isDark() bool {
	select {
	case <-d.dark:
		return true
	default:
		return false
	}
}

// PowerOn ends a cut, once every database is closed. With a nil rng all that was
// not synced is gone. Otherwise the disk had begun to write it, in any order: each
// sector of each write may have made it, and the names, all together; now and
// then everything did.
func (d *Disk) PowerOn(rng *rand.Rand) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.isDark() {
		return errors.New("the power is on")
	}
	if d.open > 0 {
		return fmt.Errorf("%d files are open", d.open)
	}
	names := rng != nil && rng.IntN(2) == 0
	survives := change.whole
	if rng != nil && rng.IntN(4) > 0 {
		survives = func(c change) []change { return c.torn(rng) }
	}
	for path, f := range d.files {
		if err := f.settle(path, names, rng != nil, survives); err != nil {
			return err
		}
	}
	for path, content := range d.removed {
		if _, err := os.Lstat(path); names || err == nil {
			continue
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return err
		}
	}
	clear(d.files)
	clear(d.removed)
	d.dark, d.trip, d.full = make(chan struct{}), nil, false
	return nil
}

// settle brings the real file to what the cut left.
func (f *file) settle(path string, names, some bool, survives func(change) []change) error {
	if f.kind == Database { // as a reboot would
		if err := os.Remove(path + "-shm"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if !f.linked && !names {
		return os.Remove(path)
	}
	if !some || len(f.pending) == 0 {
		return nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for _, c := range f.pending {
		for _, part := range survives(c) {
			content = part.apply(content)
		}
	}
	return os.WriteFile(path, content, 0o600)
}

// sector is what a disk writes whole or not at all.
const sector = 512

func (c change) whole() []change { return []change{c} }

// torn draws what of a change had reached the disk: all, nothing, or some sectors.
func (c change) torn(rng *rand.Rand) (parts []change) {
	switch rng.IntN(3) {
	case 0:
		return nil
	case 1:
		return c.whole()
	}
	if c.data == nil {
		return nil
	}
	for data, at := c.data, c.at; len(data) > 0; {
		n := min(int64(len(data)), sector-at%sector)
		if rng.IntN(2) == 0 {
			parts = append(parts, change{at, data[:n]})
		}
		data, at = data[n:], at+n
	}
	return parts
}

func (c change) apply(content []byte) []byte {
	end := c.at + int64(len(c.data))
	if c.data == nil {
		content = content[:min(int64(len(content)), c.at)]
	}
	if grow := end - int64(len(content)); grow > 0 {
		content = append(content, make([]byte, grow)...)
	}
	copy(content[c.at:], c.data)
	return content
}

// Fill lets files grow by no more than room bytes in all; Free ends that.
func (d *Disk) Fill(room int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full, d.room = true, room
}

// Free gives the disk room without end.
func (d *Disk) Free() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = false
}

// grow reports whether a file may grow by n bytes, or notes that it shrank.
func (d *Disk) grow(n int64) bool {
	if d.full && n > max(0, d.room) {
		return false
	}
	d.room -= n
	return true
}

// refuses reports whether an operation fails because the power is cut, at it or before.
func (d *Disk) refuses(op Op) bool {
	if !d.isDark() && d.trip != nil && d.trip(op) {
		d.cut()
	}
	return d.isDark()
}

// synced notes that the directory is synced: its names last.
func (d *Disk) synced() {
	for _, f := range d.files {
		f.linked = true
	}
	clear(d.removed)
}
