package sqlite_test

import "golang.org/x/sys/unix"

func mount(dir, size string) error {
	return unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size+",mode=0700")
}

// unmount lazily: a store may have its files open when a test fails.
func unmount(dir string) error { return unix.Unmount(dir, unix.MNT_DETACH) }
