package main

import (
	"path/filepath"

	"golang.org/x/sys/windows"
)

// diskUsage returns how full the volume of a file is, in percent.
func diskUsage(file string) (int, error) {
	dir, err := windows.UTF16PtrFromString(filepath.Dir(file))
	if err != nil {
		return 0, err
	}
	var free, total, all uint64
	if err := windows.GetDiskFreeSpaceEx(dir, &free, &total, &all); err != nil || total == 0 {
		return 0, err
	}
	return int((total - free) * 100 / total), nil
}
