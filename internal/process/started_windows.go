package process

import "golang.org/x/sys/windows"

// started asks the kernel: 100 ns since 1601.
func started(pid int) int64 {
	h, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, uint32(pid))
	if err != nil {
		return 0
	}
	defer windows.CloseHandle(h)
	var code uint32
	const running = 259 // STILL_ACTIVE
	if windows.GetExitCodeProcess(h, &code) != nil || code != running {
		return 0
	}
	var start, exit, kernel, user windows.Filetime
	if windows.GetProcessTimes(h, &start, &exit, &kernel, &user) != nil {
		return 0
	}
	return int64(start.HighDateTime)<<32 | int64(start.LowDateTime)
}
