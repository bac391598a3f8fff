//go:build unix

package main

import (
	"fmt"
	"syscall"
)

// become replaces this program with another.
func become(path string, args, env []string) error {
	return fmt.Errorf("run %s: %w", path, syscall.Exec(path, args, env))
}
