package main

import (
	"errors"
	"os"
	"os/exec"
)

// become runs another program in the place of this one, which only waits for it.
// Both are on one console: an interrupt reaches the other by itself.
func become(path string, args, env []string) error {
	cmd := exec.Command(path, args[1:]...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return &failure{code: "claude", exit: exit.ExitCode(), text: "claude failed", shown: true}
	}
	return err
}
