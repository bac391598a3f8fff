//go:build unix

package clustertest

import "syscall"

// Stop ends a broker with SIGTERM, and waits until it has given back what it held.
func (p *Process) Stop() {
	p.t.Helper()
	Must(p.t, p.cmd.Process.Signal(syscall.SIGTERM))
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("the broker ends: %v", err)
	}
	p.cmd = nil
}

// Pause stops a broker in its tracks; the kernel goes on taking connections for it.
func (p *Process) Pause() {
	p.t.Helper()
	Must(p.t, p.cmd.Process.Signal(syscall.SIGSTOP))
}

// Continue has it go on, with what it believed when it was paused.
func (p *Process) Continue() {
	p.t.Helper()
	Must(p.t, p.cmd.Process.Signal(syscall.SIGCONT))
}
