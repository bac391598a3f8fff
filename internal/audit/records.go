package audit

import (
	"iter"
	"os"
)

// Records yields the records of the log at path, also while it is written. They
// are not checked against each other: see Verify. An error is the last it yields.
func Records(path string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		f, err := os.Open(path)
		if err != nil {
			yield(Record{}, err)
			return
		}
		defer f.Close()
		lines(f)(yield)
	}
}
