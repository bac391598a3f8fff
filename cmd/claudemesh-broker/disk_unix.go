//go:build unix

package main

import (
	"path/filepath"

	"golang.org/x/sys/unix"
)

// diskUsage returns how full the file system of a file is, in percent of what
// an ordinary user may fill.
func diskUsage(file string) (int, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(file), &s); err != nil {
		return 0, err
	}
	used := uint64(s.Blocks) - uint64(s.Bfree) // types differ by system
	total := used + uint64(s.Bavail)
	if total == 0 {
		return 0, nil
	}
	return int(used * 100 / total), nil
}
