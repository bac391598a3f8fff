package mailbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// ErrCorrupt means that the file is damaged or was never a mailbox.
var ErrCorrupt = errors.New("the mailbox is damaged")

// ErrClosed is returned by every method after Close.
var ErrClosed = errors.New("the mailbox is closed")

// magic begins every SQLite file.
var magic = []byte("SQLite format 3\x00")

// resolve returns path as one name for the file, however it was reached, so
// that one mailbox has one lock.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, filepath.Base(path))
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real, nil
	}
	return path, nil
}

// checkPrivate refuses a directory or file that others than its owner can use.
func checkPrivate(path string) error {
	if runtime.GOOS == "windows" { // access is a matter of ACLs there, and modes are made up
		return nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	what, want := "file", "600"
	if info.IsDir() {
		what, want = "directory", "700"
	}
	return fmt.Errorf("the %s %s is open to other users (mode %04o); run: chmod %s '%s'", what, path, info.Mode().Perm(), want, path)
}

// createFile makes the file, empty and private, before SQLite would make it
// readable by all; the WAL and its index take their mode from it.
func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return checkPrivate(path)
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// checkHeader refuses a file that is not a SQLite database before SQLite may
// touch it. An empty file is a new mailbox.
func checkHeader(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, len(magic))
	n, err := io.ReadFull(f, head)
	if n == 0 && err == io.EOF {
		return nil
	}
	if !bytes.Equal(head[:n], magic) {
		return fmt.Errorf("%w: it is not a SQLite database", ErrCorrupt)
	}
	return nil
}

// explain names the file and, for a damaged one, the way out.
func explain(path string, err error) error {
	if errors.Is(err, ErrCorrupt) {
		return fmt.Errorf("%s: %w; to start with a new mailbox move this file and its -wal and -shm files aside: "+
			"unread messages in it are lost, and session keys will be new", path, err)
	}
	return fmt.Errorf("%s: %w", path, err)
}
