package process

import (
	"bytes"
	"os"
	"strconv"
)

// started reads field 22 of proc_pid_stat(5): clock ticks since the boot. What
// comes before it holds the command's name, in parentheses, which may hold anything.
// A zombie has ended.
func started(pid int) int64 {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 || fields[0][0] == 'Z' || fields[0][0] == 'X' {
		return 0
	}
	n, err := strconv.ParseInt(string(fields[19]), 10, 64)
	if err != nil {
		return 0
	}
	return n + 1 // the first process starts at 0
}
