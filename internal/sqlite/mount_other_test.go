//go:build !linux

package sqlite_test

import "errors"

func mount(_, _ string) error { return errors.ErrUnsupported }
func unmount(string) error    { return nil }
