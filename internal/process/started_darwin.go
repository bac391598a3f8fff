package process

import "golang.org/x/sys/unix"

// started asks the kernel: microseconds since 1970.
func started(pid int) int64 {
	const zombie = 5 // SZOMB of sys/proc.h
	info, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil || int(info.Proc.P_pid) != pid || info.Proc.P_stat == zombie {
		return 0
	}
	t := info.Proc.P_starttime
	return t.Sec*1e6 + int64(t.Usec)
}
