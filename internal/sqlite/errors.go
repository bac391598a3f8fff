package sqlite

import (
	"errors"
	"fmt"

	lib "modernc.org/sqlite/lib"

	"github.com/claudemesh/claudemesh/broker"
)

// coded is a *sqlite.Error: Code returns the extended result code.
type coded interface {
	error
	Code() int
}

// translate gives a driver error the meaning it has to callers.
func translate(err error) error {
	e, ok := errors.AsType[coded](err)
	if !ok {
		return err
	}
	switch code := e.Code(); {
	case code&0xff == lib.SQLITE_FULL, code == lib.SQLITE_IOERR_WRITE, code == lib.SQLITE_IOERR_SHMSIZE:
		return fmt.Errorf("%w: %w", broker.ErrStorageFull, err)
	case code&0xff == lib.SQLITE_CORRUPT, code&0xff == lib.SQLITE_NOTADB:
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}

// isFatal reports whether the kernel failed to bring data to the disk. The page
// cache no longer holds what the file does, so neither retrying nor going on is safe.
func isFatal(err error) bool {
	e, ok := errors.AsType[coded](err)
	return ok && (e.Code() == lib.SQLITE_IOERR_FSYNC || e.Code() == lib.SQLITE_IOERR_DIR_FSYNC)
}
