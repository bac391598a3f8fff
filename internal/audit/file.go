package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"sync"
	"time"

	"github.com/gofrs/flock"
)

// maxLine bounds a record's line in bytes: no record comes near it.
const maxLine = 64 << 10

// ErrInUse says that another process writes the log.
var ErrInUse = errors.New("another process writes this audit log")

// File is a log in a file, a record a line of JSON. One process writes it. It
// is not brought to the disk before Close: a power cut may take the end.
type File struct {
	mu   sync.Mutex
	file *os.File
	lock *flock.Flock
	last Record
	err  error // a write failed: what the file ends with is not known
}

// OpenFile opens the log at path to go on with it, and makes it with mode 0600 if
// there is none. A last line that a crash has torn is cut off, and a record says
// so. ErrInUse, *Broken when the last record is damaged.
func OpenFile(path string) (_ *File, err error) {
	lock := flock.New(path+".lock", flock.SetPermissions(0o600))
	switch free, err := lock.TryLock(); {
	case err != nil:
		return nil, fmt.Errorf("lock %s: %w", lock.Path(), err)
	case !free:
		return nil, fmt.Errorf("%s: %w", path, ErrInUse)
	}
	f := &File{lock: lock}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
		}
	}()
	if f.file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	return f, f.resume()
}

// resume finds the last record and cuts off what stands behind it.
func (f *File) resume() error {
	size, err := f.file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	whole, line, err := lastLine(f.file, size)
	if err != nil {
		return err
	}
	if len(line) > 0 {
		if f.last, err = parse(line); err == nil {
			_, err = Verify(one(f.last))
		}
		if err != nil {
			return err
		}
	}
	if whole == size {
		return nil
	}
	if err := f.file.Truncate(whole); err != nil {
		return err
	}
	if _, err := f.file.Seek(whole, io.SeekStart); err != nil {
		return err
	}
	return f.Append(Entry{At: time.Now().UnixMilli(), Event: Torn, Note: fmt.Sprintf("%d bytes were cut off", size-whole)})
}

// lastLine returns the last whole line of r without its end, and where what
// follows it begins.
func lastLine(r io.ReaderAt, size int64) (end int64, line []byte, err error) {
	from := max(0, size-2*maxLine)
	tail := make([]byte, size-from)
	if _, err := r.ReadAt(tail, from); err != nil && err != io.EOF {
		return 0, nil, err
	}
	last := bytes.LastIndexByte(tail, '\n')
	if last < 0 {
		if from > 0 {
			return 0, nil, errors.New("it holds a line that is no record")
		}
		return 0, nil, nil
	}
	return from + int64(last) + 1, tail[bytes.LastIndexByte(tail[:last], '\n')+1 : last], nil
}

// Append adds entries at the end, in order. After an error nothing more is taken.
func (f *File) Append(entries ...Entry) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	var lines []byte
	last := f.last
	for _, e := range entries {
		last = last.Next(e)
		lines = append(append(lines, last.line()...), '\n')
	}
	if _, f.err = f.file.Write(lines); f.err == nil {
		f.last = last
	}
	return f.err
}

// Close brings the log to the disk and ends its use.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if errors.Is(f.err, os.ErrClosed) {
		return nil
	}
	f.err = os.ErrClosed
	var errs []error
	if f.file != nil {
		errs = append(errs, f.file.Sync(), f.file.Close())
	}
	return errors.Join(append(errs, f.lock.Close())...)
}

// VerifyFile checks the log at path from its first record, also while it is
// written, and returns how many records there are. *Broken.
func VerifyFile(path string) (n int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return Verify(lines(f))
}

// lines yields the records of a log's lines. What follows the last one is being
// written, or was torn: the next OpenFile says so.
func lines(r io.Reader) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		in := bufio.NewReaderSize(r, maxLine)
		for n := int64(1); ; n++ {
			line, err := in.ReadSlice('\n')
			switch {
			case err == io.EOF:
				return
			case errors.Is(err, bufio.ErrBufferFull):
				err = &Broken{n, "it is no record"}
			}
			var rec Record
			if err == nil {
				rec, err = parse(line[:len(line)-1])
			}
			if err == nil && rec.Number != n {
				err = &Broken{n, fmt.Sprintf("record %d stands in its place", rec.Number)}
			}
			if bad := new(Broken); errors.As(err, &bad) {
				bad.Number = n
			}
			if !yield(rec, err) || err != nil {
				return
			}
		}
	}
}

// parse reads a line, which must be written as line writes it.
func parse(text []byte) (r Record, err error) {
	if json.Unmarshal(text, &r) != nil || !bytes.Equal(r.line(), text) {
		return r, &Broken{r.Number, "it is no record"}
	}
	return r, nil
}

func (r Record) line() []byte {
	b, err := json.Marshal(r)
	if err != nil { // it holds numbers, text and hex only
		panic(err)
	}
	return b
}

func one(r Record) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) { yield(r, nil) }
}
