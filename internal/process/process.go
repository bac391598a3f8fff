// Package process names a process so that another that gets its number later is not taken for it.
package process

import "os"

// Process is a process by its number and its start. The zero value is none.
type Process struct {
	PID     int   `json:"pid"`
	Started int64 `json:"started"` // by the system's own count; 0: not known
}

// Self is this process.
func Self() Process { return Of(os.Getpid()) }

// Of is the process that has a number now; without a start if there is none.
func Of(pid int) Process { return Process{PID: pid, Started: started(pid)} }

// Alive reports whether the process runs.
func (p Process) Alive() bool { return p.PID > 0 && p.Started > 0 && started(p.PID) == p.Started }
