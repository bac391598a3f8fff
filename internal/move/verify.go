package move

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
)

// verify reads a table from both ends, side by side, and reports its rows and
// their hash. ErrDiffers names the first key at which they are not the same.
func (m *mover) verify(ctx context.Context, t *table, out *Table) error {
	nextFrom, stopFrom := iter.Pull2(m.from.rows(ctx, t, t.start()))
	defer stopFrom()
	nextTo, stopTo := iter.Pull2(m.to.rows(ctx, t, t.start()))
	defer stopTo()
	hash, told := sha256.New(), int64(0)
	var a, b []byte
	for out.Rows = 0; ; out.Rows++ {
		from, err, more := nextFrom()
		if err != nil {
			return err
		}
		to, err, moreTo := nextTo()
		if err != nil {
			return err
		}
		if !more && !moreTo {
			break
		}
		if err := paired(t, from, to); err != nil {
			return err
		}
		if a, err = from.encode(a[:0]); err != nil {
			return err
		}
		if b, err = to.encode(b[:0]); err != nil {
			return err
		}
		if !bytes.Equal(a, b) {
			return fmt.Errorf("%w at %s", ErrDiffers, keyText(t.key(from)))
		}
		hash.Write(a)
		if out.Rows-told == batchRows {
			m.tell("verifying", t, out.Rows-told)
			told = out.Rows
		}
	}
	m.tell("verifying", t, out.Rows-told)
	out.SHA256 = hex.EncodeToString(hash.Sum(nil))
	return nil
}

// paired refuses two rows, of which one may be nil, that have not the same key.
func paired(t *table, from, to row) error {
	switch {
	case to == nil || from != nil && compare(t.key(from), t.key(to)) < 0:
		return fmt.Errorf("%w: %s is not in the target", ErrDiffers, keyText(t.key(from)))
	case from == nil || compare(t.key(from), t.key(to)) > 0:
		return fmt.Errorf("%w: %s is in the target alone", ErrDiffers, keyText(t.key(to)))
	}
	return nil
}
