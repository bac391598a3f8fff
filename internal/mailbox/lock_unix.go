//go:build !windows

package mailbox

import (
	"os"
	"syscall"
)

// lockFlags open a lock file, and never through a symbolic link.
const lockFlags = os.O_CREATE | os.O_RDWR | syscall.O_NOFOLLOW
