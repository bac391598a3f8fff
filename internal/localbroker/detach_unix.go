//go:build unix

package localbroker

import (
	"os"
	"strconv"
	"syscall"
)

// detached gives the broker a session of its own: it hears of no terminal.
func detached() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// terminate asks a process to end.
func terminate(pid int) error { return syscall.Kill(pid, syscall.SIGTERM) }

// keepFiles keeps from the broker what this process was given open by its own parent:
// a pipe or terminal that the broker held would never end for whoever reads it.
func keepFiles() {
	entries, _ := os.ReadDir("/dev/fd")
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
}
