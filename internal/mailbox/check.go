package mailbox

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// Check reads the whole mailbox at path, which processes may have open, and
// returns what SQLite finds wrong with it. ErrCorrupt.
func Check(ctx context.Context, path string) error {
	if _, err := os.Stat(path); err != nil {
		return err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if err := checkHeader(abs); err != nil {
		return explain(path, err)
	}
	db, err := openPool(abs, readerQuery, 1)
	if err != nil {
		return err
	}
	defer db.Close()
	var found string
	if err := db.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&found); err != nil {
		return explain(path, translate(err))
	}
	if found != "ok" {
		return explain(path, fmt.Errorf("%w: %s", ErrCorrupt, found))
	}
	return nil
}
