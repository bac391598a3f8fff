package localbroker

import (
	"os"
	"syscall"

	"golang.org/x/sys/windows"
)

// detached gives the broker a group of its own and no console.
func detached() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP | windows.DETACHED_PROCESS}
}

// terminate ends a process at once: without a console it hears no signal. What the
// broker has acknowledged is on disk.
func terminate(pid int) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Kill()
}

// keepFiles has nothing to do: handles are passed on by name alone.
func keepFiles() {}
